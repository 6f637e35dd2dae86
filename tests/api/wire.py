"""Requests as bytes, for what no HTTP client would send."""

import json
import re
import socket
from collections.abc import Iterable
from typing import Any

from tests import looks
from tests.live import LiveService

TIMEOUT_S = 10


class Answer(looks.Watched):
    """Status, headers (names in lower case) and body of one answer; status 0 when the connection ended without one."""

    def __init__(self, received: bytes) -> None:
        head, _, self.body = received.partition(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 100 "):
            head, _, self.body = self.body.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split()[1]) if head else 0
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}

    def json(self) -> Any:
        """The body; what follows the announced length belongs to another answer."""
        return json.loads(self.body[: int(self.headers.get("content-length", len(self.body)))])


def send(service: LiveService, data: bytes, *, half_close: bool = False) -> Answer:
    """Sends `data` over a new connection and reads until the service closes it."""
    host, port = re.fullmatch(r"http://([^:]+):(\d+)", service.url).groups()  # type: ignore[union-attr]
    received = b""
    with socket.create_connection((host, int(port)), TIMEOUT_S) as connection:
        try:
            connection.sendall(data)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(65536):
                received += chunk
        except (BrokenPipeError, ConnectionResetError):
            pass  # closed while it was still being sent to; what was read counts
    answer = Answer(received)
    if answer.status >= looks.FAILURE_MIN:
        line = data.partition(b"\r\n")[0].decode(errors="replace")[:300]
        said = answer.body[:300].decode(errors="replace")
        looks.keep(answer, f"{line} was answered {answer.status}: {said}")
    return answer


def request(
    service: LiveService,
    method: str,
    path: str,
    *,
    headers: Iterable[str | bytes] = (),
    body: bytes = b"",
    without: Iterable[str] = (),
    version: str = "1.1",
) -> Answer:
    """A request with the admin's key, and with the usual headers except those `without`."""
    usual = {
        "Host": "localhost",
        "Connection": "close",
        "Authorization": f"Bearer {service.admin_key}",
        **({"Content-Type": "application/json", "Content-Length": str(len(body))} if body or method == "POST" else {}),
    }
    lines: list[str | bytes] = [f"{method} {path} HTTP/{version}"]
    lines += [f"{name}: {value}" for name, value in usual.items() if name not in without]
    lines += headers
    head = b"\r\n".join(line.encode() if isinstance(line, str) else line for line in lines)
    return send(service, head + b"\r\n\r\n" + body)
