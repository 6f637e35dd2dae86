"""Traces and metrics of real requests, as a collector of its own process receives them."""

import asyncio
import gc
import itertools
import json
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from service import telemetry
from service.api import observation
from service.ledger.errors import ErrorCode
from service.measures import Measures
from service.telemetry import Telemetry, TelemetryError, Tracing, trace_id_of
from tests.faults.wire import Request, at_once
from tests.live import CHECKOUT, LiveService, passbook
from tests.otlp import Collector, attributes_of, collector
from tests.some import some
from tests.waiting import until_async

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT_ID = "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE_ID}-{PARENT_ID}-01"
NOT_SAMPLED = f"00-{TRACE_ID[::-1]}-{PARENT_ID}-00"
TELEGRAM_ID = "73015550001234"
PERSONAL = (
    TELEGRAM_ID,
    "73015550009999",
    "독고영재",
    "비밀의 사유",
    "secret-idempotency-key",
    "a-caller/1.0",
    "127.0.0.1",
)
"""What the requests hold and no telemetry may."""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Collector, dict[str, Any]]]:
    """A collector that has all of a service's telemetry, and what was asked of the service."""
    with collector() as receiver:
        service = LiveService(
            tmp_path_factory.mktemp("telemetry") / "passbook.db",
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
                "OTEL_SERVICE_NAME": "a-ledger",
                "OTEL_BSP_SCHEDULE_DELAY": "100",
            },
        ).start()
        asked = _ask(service)
        assert service.stop() == 0, service.said
        assert "exporting" not in service.said.lower(), service.said
        receiver.until(lambda received: "http.server.request.duration" in received.metrics())
        receiver.until(lambda received: len(received.spans()) >= asked["spans"])
        yield receiver, asked


def _ask(service: LiveService) -> dict[str, Any]:
    key = service.make_key("--role", "admin", "--name", "till")
    client = service.client(key)
    client.headers["User-Agent"] = "a-caller/1.0"
    deposit = {"telegram_id": TELEGRAM_ID, "amount": 5000, "depositor_name": "독고영재"}
    first = client.write("/v1/deposits", deposit, key="secret-idempotency-key-1", traceparent=SAMPLED)
    assert first.status_code == 201
    replayed = client.write("/v1/deposits", deposit, key="secret-idempotency-key-1")
    assert replayed.headers["Idempotency-Replayed"] == "true"
    reused = client.write("/v1/deposits", {**deposit, "amount": 1}, key="secret-idempotency-key-1")
    assert reused.json()["code"] == "idempotency_key_reused"
    debit = {"telegram_id": TELEGRAM_ID, "amount": 10**9, "reason": "비밀의 사유"}
    assert client.write("/v1/debits", debit, key="secret-idempotency-key-2").status_code == 409
    assert client.get(f"/v1/users/{TELEGRAM_ID}/balance").status_code == 200
    assert client.get("/v1/users/73015550009999").status_code == 404
    assert client.get(f"/v1/nothing/{TELEGRAM_ID}").status_code == 404
    assert client.get("/livez", headers={"traceparent": NOT_SAMPLED}).status_code == 200
    requests = [Request("/v1/deposits", json.dumps(deposit), f"secret-idempotency-key-3-{n}") for n in range(24)]
    answers = asyncio.run(at_once(service.url, [(request, key) for request in requests]))
    assert {answer.status for answer in answers} == {201}
    return {"key": key, "spans": 7 + 4 + 3 + 2 * 24 + 1}


def _named(receiver: Collector, name: str, **attributes: Any) -> list[dict[str, Any]]:
    return [
        span for span in receiver.spans() if span["name"] == name and attributes.items() <= span["attributes"].items()
    ]


def test_a_request_continues_the_trace_of_its_caller(seen: tuple[Collector, dict[str, Any]]) -> None:
    """traceparent is the parent of the request's span, which is that of the unit of work and of the commit."""
    spans = [span for span in seen[0].spans() if span["traceId"] == TRACE_ID]
    request, work, commit = sorted(spans, key=lambda span: ["POST", "unit", "COMM"].index(span["name"][:4]))
    assert (request["name"], request["kind"], request["parentSpanId"]) == (
        "POST /v1/deposits",
        "SPAN_KIND_SERVER",
        PARENT_ID,
    )
    assert (work["name"], work["parentSpanId"]) == ("unit_of_work deposit_announce", request["spanId"])
    assert (commit["name"], commit["parentSpanId"]) == ("COMMIT", request["spanId"])
    assert work["links"] == [{"traceId": TRACE_ID, "spanId": commit["spanId"]}]
    instants = [
        request["startTimeUnixNano"],
        work["startTimeUnixNano"],
        work["endTimeUnixNano"],
        commit["startTimeUnixNano"],
        commit["endTimeUnixNano"],
        request["endTimeUnixNano"],
    ]
    assert [int(one) for one in instants] == sorted(int(one) for one in instants)


def test_a_request_says_what_it_was(seen: tuple[Collector, dict[str, Any]]) -> None:
    """Route template, key's name, status, code, what the Idempotency-Key came to, and the times of the write."""
    receiver = seen[0]
    first = next(s for s in receiver.spans() if s["traceId"] == TRACE_ID and s["kind"] == "SPAN_KIND_SERVER")
    told = first["attributes"]
    assert 0 < told.pop("passbook.writer.queue_wait_s") < 10
    assert 0 < told.pop("passbook.writer.commit_s") < 10
    assert told == {
        "http.request.method": "POST",
        "http.route": "/v1/deposits",
        "http.response.status_code": 201,
        "passbook.api_key.name": "till",
        "passbook.idempotency.outcome": "new",
        "passbook.writer.batch_size": 1,
    }
    outcome = "passbook.idempotency.outcome"
    assert len(_named(receiver, "POST /v1/deposits", **{outcome: "replayed"})) == 1
    reused = {outcome: "reused", "error.type": "idempotency_key_reused", "http.response.status_code": 409}
    assert len(_named(receiver, "POST /v1/deposits", **reused)) == 1
    refused = {outcome: "refused", "error.type": "insufficient_funds", "http.response.status_code": 409}
    assert len(_named(receiver, "POST /v1/debits", **refused)) == 1
    assert len(_named(receiver, "GET /v1/users/{telegram_id}", **{"error.type": "user_not_found"})) == 1
    nothing = _named(receiver, "GET", **{"error.type": "route_not_found"})
    assert len(nothing) == 1
    assert "http.route" not in nothing[0]["attributes"]


def test_requests_of_one_commit_are_linked_with_it(seen: tuple[Collector, dict[str, Any]]) -> None:
    """The commit is in the first one's trace and links to the requests of the others; each unit of work links to it."""
    spans = {span["spanId"]: span for span in seen[0].spans()}
    commits = [span for span in spans.values() if span["name"] == "COMMIT" and span["links"]]
    assert commits, "24 requests at once, and no two in one commit"
    for commit in some(commits):
        assert len(commit["links"]) + 1 == commit["attributes"]["db.operation.batch.size"]
        requests = {link["spanId"] for link in commit["links"]} | {commit["parentSpanId"]}
        works = [s for s in spans.values() if {"traceId": commit["traceId"], "spanId": commit["spanId"]} in s["links"]]
        assert {work["parentSpanId"] for work in works} == requests
        assert {spans[one]["name"] for one in requests} == {"POST /v1/deposits"}


def test_what_the_caller_does_not_sample_is_not_sent(seen: tuple[Collector, dict[str, Any]]) -> None:
    """The default sampler is the caller's decision where there is one."""
    assert NOT_SAMPLED.split("-")[1] not in {span["traceId"] for span in seen[0].spans()}


def test_nothing_personal_is_sent(seen: tuple[Collector, dict[str, Any]]) -> None:
    """No name, no Telegram id, no path with one, no address, no Idempotency-Key, no API key; names of keys are."""
    receiver, asked = seen
    for personal in (*PERSONAL, asked["key"], asked["key"].rpartition("_")[2]):
        assert personal not in receiver.text, personal


def test_metrics_arrive_with_units_and_attributes(seen: tuple[Collector, dict[str, Any]]) -> None:
    """Histograms and counters are cumulative; the requests are those that were made."""
    receiver = seen[0]
    metrics = receiver.metrics()
    duration = metrics["http.server.request.duration"]
    assert duration["unit"] == "s"
    assert duration["histogram"]["aggregationTemporality"] == "AGGREGATION_TEMPORALITY_CUMULATIVE"
    counted = {tuple(attributes_of(p).values()): int(p["count"]) for p in duration["histogram"]["dataPoints"]}
    assert counted["POST", "/v1/deposits", 201] == 26
    assert counted["GET", "/v1/users/{telegram_id}/balance", 200] == 1
    assert counted["GET", 404] == 1
    point = duration["histogram"]["dataPoints"][0]
    assert sum(map(int, point["bucketCounts"])) == int(point["count"])
    assert len(point["bucketCounts"]) == len(point["explicitBounds"]) + 1
    assert "min" not in point
    counted = {attributes_of(p)["code"]: int(p["asInt"]) for p in metrics["passbook.refusals"]["sum"]["dataPoints"]}
    refusals = {code: count for code, count in counted.items() if count}
    assert refusals == dict.fromkeys(
        ("insufficient_funds", "idempotency_key_reused", "user_not_found", "route_not_found"), 1
    )
    assert metrics["passbook.refusals"]["sum"]["isMonotonic"] is True
    writes = {attributes_of(p)["outcome"]: int(p["asInt"]) for p in metrics["passbook.writes"]["sum"]["dataPoints"]}
    assert writes == {"new": 25, "refused": 1, "replayed": 1, "reused": 1}
    assert "gauge" in metrics["passbook.writer.queue.depth"]
    resources = receiver.resources()
    assert resources
    assert all(r["service.name"] == "a-ledger" and r["service.version"] for r in some(resources))


def commits(received: Collector) -> Counter[str]:
    """How often the writer committed and how often that failed, as it was told last."""
    points = received.metrics().get("passbook.writer.commits", {"sum": {"dataPoints": []}})["sum"]["dataPoints"]
    return Counter({attributes_of(point)["outcome"]: int(point["asInt"]) for point in points})


def test_metrics_are_sent_while_the_service_runs(own_service: LiveService) -> None:
    """Every OTEL_METRIC_EXPORT_INTERVAL; with traces off none are sent."""
    with collector() as receiver:
        own_service.environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_METRIC_EXPORT_INTERVAL": "100",
        }
        own_service.start()
        client = own_service.client()
        client.credit("1", 100)
        receiver.until(lambda received: commits(received)["committed"] >= 2)
        assert commits(receiver) == {"committed": 2, "failed": 0}, "one by the key's, one by the credit's"
        assert own_service.stop() == 0
        assert receiver.spans() == []


@pytest.mark.parametrize(
    "environment", [{}, {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}]
)
def test_off_costs_nothing(environment: dict[str, str]) -> None:
    """Without the variables, or with the SDK disabled, the OpenTelemetry SDK is not even imported."""
    code = (
        "import os, sys, service.cli\nfrom service.app import create_app\nfrom service.config import Config\n"
        "from service.telemetry import Telemetry\ncreate_app(Config(), telemetry=Telemetry(os.environ))\n"
        "unwanted = ('opentelemetry.sdk', 'opentelemetry.exporter', 'google')\n"
        "sys.exit(str([name for name in sys.modules if name.startswith(unwanted)] or ''))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(CHECKOUT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr.strip() in {"", "[]"}, done.stderr


def test_every_wrong_variable_is_named(tmp_path: Path) -> None:
    """The start ends with one sentence, before anything is made; what Passbook has not is refused, not ignored."""
    wrong = {
        "OTEL_TRACES_EXPORTER": "zipkin",
        "OTEL_LOGS_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318",
        "OTEL_TRACES_SAMPLER": "sometimes",
        "OTEL_TRACES_SAMPLER_ARG": "2",
        "OTEL_METRIC_EXPORT_INTERVAL": "1m",
    }
    refused = passbook("serve", "--port", "0", "--database", str(tmp_path / "p.db"), env=wrong)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    for name, value in wrong.items():
        assert f"{name}={value!r}" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_sampler_of_the_environment_is_used(own_service: LiveService) -> None:
    """With always_off nothing is sent, whatever the caller's flag says."""
    with collector() as receiver:
        own_service.environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_TRACES_SAMPLER": "always_off"}
        own_service.start()
        assert own_service.client().get("/v1/deposits", headers={"traceparent": SAMPLED}).status_code == 200
        assert own_service.stop() == 0
        receiver.until(lambda received: bool(received.metrics()))
        assert receiver.spans() == []


def test_a_collector_that_hangs_or_is_away_holds_nothing_up(own_service: LiveService) -> None:
    """Requests are answered, and SIGTERM ends the service with 0, though an export may take ten minutes."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()  # takes connections and never answers
        own_service.environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{deaf.getsockname()[1]}",
            "OTEL_METRIC_EXPORT_INTERVAL": "50",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "600",
        }
        own_service.start()
        client = own_service.client()
        for _ in range(20):
            assert client.credit("1", 100)["amount"] == 100
        assert own_service.stop() == 0, own_service.said


@pytest.mark.parametrize(
    ("value", "trace_id"),
    [
        (SAMPLED, TRACE_ID),
        (f"00-{'0' * 32}-{PARENT_ID}-01", None),
        ("00-short", None),
        ("", None),
        (SAMPLED.upper(), None),
    ],
)
def test_trace_id_of_traceparent(value: str, trace_id: str | None) -> None:
    """W3C Trace Context: lower case, not all zeros."""
    assert trace_id_of([(b"traceparent", value.encode())]) == trace_id


def test_an_endpoint_of_one_signal_turns_on_that_signal() -> None:
    """OTEL_EXPORTER_OTLP_TRACES_ENDPOINT alone sends traces and no metrics."""
    telemetry = Telemetry({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/v1/traces"})
    assert telemetry.tracing is not None
    assert telemetry._exporter is None
    telemetry.close()
    with pytest.raises(TelemetryError, match="OTEL_TRACES_EXPORTER='x'"):
        Telemetry({"OTEL_TRACES_EXPORTER": "x"})


@pytest.mark.parametrize(("status", "failed"), [(200, False), (404, False), (499, False), (500, True), (503, True)])
def test_the_span_of_a_request_that_failed_by_the_services_fault_is_an_error(status: int, failed: bool) -> None:
    """What the caller did wrong is none; those who look for errors would find nothing else."""
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))

    async def app(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def send(_: Any) -> None:
        return

    scope: Any = {"type": "http", "method": "GET", "path_template": "/x", "headers": [], "state": {}}
    nothing: Any = None
    watched = observation.observed(app, Measures([]), Tracing(provider), access_log=False)  # type: ignore[arg-type]
    asyncio.run(watched(scope, nothing, send))
    (span,) = kept.get_finished_spans()
    assert (span.name, span.status.status_code) == ("GET /x", StatusCode.ERROR if failed else StatusCode.UNSET)


class Exporter:
    """Takes measures in a way that the test chooses; `taken` grows by one for each that is whole."""

    def __init__(self, take: Callable[[int], object] = lambda _: None) -> None:
        self._take = take
        self.asked = 0
        self.taken = 0
        self.ended = False

    def export(self, _: Any) -> None:
        """Called in a thread."""
        self.asked += 1
        self._take(self.asked)
        self.taken += 1

    def shutdown(self) -> None:
        """The end of it."""
        self._take(0)
        self.ended = True


def exporting(exporter: Exporter, *, interval_ms: int) -> Telemetry:
    """Telemetry whose measures go to `exporter`."""
    interval = {"OTEL_METRIC_EXPORT_INTERVAL": str(interval_ms), "OTEL_TRACES_EXPORTER": "none"}
    made = Telemetry({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", **interval})
    vars(made)["_exporter"] = exporter
    return made


async def _stopped_after(made: Telemetry, is_time: Callable[[], bool], collect: Any = list) -> None:
    stopping = asyncio.Event()
    sending = asyncio.create_task(made.export_measures(collect, 0, stopping))
    await until_async(is_time, "measures are sent", within_s=20)
    stopping.set()
    await asyncio.wait_for(sending, 20)


def test_measures_are_sent_once_more_at_the_end_and_waited_for() -> None:
    """With an interval that has not passed: what was counted since the last time would be lost."""
    exporter = Exporter(lambda _: time.sleep(0.2))
    asyncio.run(_stopped_after(exporting(exporter, interval_ms=600_000), lambda: True))
    assert (exporter.asked, exporter.taken) == (1, 1)


@pytest.mark.parametrize("where", ["sending", "collecting"])
def test_measures_that_fail_once_are_sent_the_next_time(where: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is on record, and the service goes on."""
    collected = 0

    def fail(number: int) -> None:
        if where == "sending" and number == 1:
            raise ValueError("the collector said no")

    def collect() -> list[Any]:
        nonlocal collected
        collected += 1
        if where == "collecting" and collected == 1:
            raise ValueError("a file is gone")
        return []

    exporter = Exporter(fail)
    asyncio.run(_stopped_after(exporting(exporter, interval_ms=10), lambda: exporter.taken >= 2, collect))
    assert [record.message for record in caplog.records] == ["measures could not be sent"]


def test_a_collector_that_hangs_gets_nothing_more_and_the_end_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """One export is under way, however many intervals pass; the last one is tried and given up."""
    monkeypatch.setattr(telemetry, "_LAST_EXPORT_S", 0.1)
    go_on, looks = threading.Event(), itertools.count()
    exporter = Exporter(lambda _: go_on.wait(20))
    made = exporting(exporter, interval_ms=10)
    asyncio.run(_stopped_after(made, lambda: exporter.asked >= 1 and next(looks) > 30))
    made.close()
    assert (exporter.asked, exporter.taken, exporter.ended) == (2, 0, False)
    go_on.set()


def test_a_close_ends_spans_and_measures() -> None:
    """Both send what they have."""
    spans, measures = Exporter(), Exporter()
    made = exporting(measures, interval_ms=10)
    vars(made)["_provider"] = spans
    made.close()
    assert (spans.ended, measures.ended) == (True, True)


def test_watching_a_request_leaves_nothing_to_the_garbage_collector() -> None:
    """A cycle in each request cost a tenth of the throughput once."""

    async def answer(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(_message: Any) -> None:
        pass

    watched: Any = observation.observed(answer, Measures(ErrorCode), None, access_log=False)

    async def ask() -> None:
        await watched({"type": "http", "method": "GET", "path": "/", "headers": [], "state": {}}, None, send)

    async def left_behind() -> int:
        await asyncio.create_task(ask())
        gc.collect()
        gc.disable()
        try:
            before = len(gc.get_objects())
            for _ in range(500):
                await asyncio.create_task(ask())
            return len(gc.get_objects()) - before
        finally:
            gc.enable()

    assert asyncio.run(left_behind()) < 50
