"""A collector: a process of its own that takes OTLP over HTTP and tells, a JSON line for each request, what was in it.

`python -m tests.otlp` prints its port, then the lines: {"path": "/v1/traces", "body": {…}}, the body as the protobuf
JSON mapping has it, with ids in hexadecimal digits.
"""

import base64
import gzip
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.live import CHECKOUT

_KINDS: dict[str, type[Any]] = {"/v1/traces": ExportTraceServiceRequest, "/v1/metrics": ExportMetricsServiceRequest}


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        assert self.headers["Content-Type"] == "application/x-protobuf"
        message = _KINDS[self.path]()
        message.ParseFromString(body)
        line = json.dumps({"path": self.path, "body": MessageToDict(message)}, ensure_ascii=False)
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing."""


class Collector:
    """The running process. `received` is all that was read from it until now."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        self._lines = process.stdout
        self.url = f"http://127.0.0.1:{int(self._lines.readline())}"
        self.received: list[dict[str, Any]] = []

    def until(self, wanted: Callable[["Collector"], bool]) -> None:
        """Reads what comes in until `wanted` is true of it. The process's end is an error."""
        while not wanted(self):
            line = self._lines.readline()
            assert line, "the collector ended"
            self.received.append(json.loads(line))

    @property
    def text(self) -> str:
        """All that came in, to look for what must not be there."""
        return json.dumps(self.received, ensure_ascii=False)

    def spans(self) -> list[dict[str, Any]]:
        """Every span with its ids in hexadecimal digits and its attributes as a dict."""
        found = []
        for batch in self._bodies("/v1/traces"):
            for resource in batch["resourceSpans"]:
                for scope in resource["scopeSpans"]:
                    for span in scope["spans"]:
                        ids = {name: _hex(span.get(name)) for name in ("traceId", "spanId", "parentSpanId")}
                        links = [
                            {name: _hex(link[name]) for name in ("traceId", "spanId")} for link in span.get("links", [])
                        ]
                        found.append({**span, **ids, "links": links, "attributes": attributes_of(span)})
        return found

    def metrics(self) -> dict[str, dict[str, Any]]:
        """The metrics by name, as they came in last."""
        return {
            metric["name"]: metric
            for batch in self._bodies("/v1/metrics")
            for resource in batch["resourceMetrics"]
            for scope in resource["scopeMetrics"]
            for metric in scope["metrics"]
        }

    def resources(self) -> list[dict[str, Any]]:
        """The attributes of every resource that sent something."""
        return [
            attributes_of(resource["resource"])
            for line in self.received
            for resource in line["body"].get("resourceSpans") or line["body"]["resourceMetrics"]
        ]

    def _bodies(self, path: str) -> Iterator[dict[str, Any]]:
        return (line["body"] for line in self.received if line["path"] == path)


def attributes_of(holder: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a span, a point or a resource; whole numbers as numbers."""
    found = {}
    for attribute in holder.get("attributes", []):
        (kind, value), *_ = attribute["value"].items()
        found[attribute["key"]] = int(value) if kind == "intValue" else value
    return found


def _hex(encoded: str | None) -> str:
    return base64.b64decode(encoded or "").hex()


@contextmanager
def collector() -> Iterator[Collector]:
    """A collector for the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.otlp"], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    try:
        yield Collector(process)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
