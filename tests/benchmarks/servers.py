"""`python -m tests.benchmarks.servers [ROUNDS] [SECONDS]`: the same application behind other HTTP servers.

Each serves a database of its own, in this one process kind: the event loop, the application and the writer. Rounds
alternate. Beside the figures stands what each makes of a request that is none: a head of 1 MiB, a thousand headers,
bytes that are not HTTP, and a body that never ends (the service cuts it off after 1 s here). Prints Markdown.

Needs the peers' Python for the children (see processes.PEERS).
"""

import asyncio
import contextlib
import json
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from litestar import Litestar

from service.config import Config
from tests.benchmarks.figures import Load, interleaved, p50_ms, p99_ms, per_s, ratio
from tests.benchmarks.processes import PEERS, Wrk, rss_mib, serving
from tests.live import CHECKOUT, passbook

USERS = 200
_TIMEOUT_S = 1
_WAIT_S = 4


def _ready(port: int) -> None:
    print(f"ready http://127.0.0.1:{port}", flush=True)


async def _uvicorn(app: Litestar, listener: socket.socket, http: str) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            _ready(listener.getsockname()[1])

    options: Any = {"http": http, "lifespan": "off", "ws": "none", "access_log": False, "log_config": None}
    async with app.lifespan():
        await Server(uvicorn.Config(app, backlog=2048, **options)).serve(sockets=[listener])


async def _granian(app: Litestar, listener: socket.socket) -> None:
    from granian.constants import HTTPModes, Interfaces
    from granian.server.embed import Server

    port = listener.getsockname()[1]
    listener.close()
    async with app.lifespan():
        server = Server(
            app, address="127.0.0.1", port=port, interface=Interfaces.ASGINL, runtime_threads=1, http=HTTPModes.http1,
            websockets=False, log_enabled=False, backlog=2048,
        )  # fmt: skip
        task = asyncio.create_task(server.serve())
        while True:  # it tells nobody when it listens
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            except OSError:
                await asyncio.sleep(0.05)
        _ready(port)
        await task


async def _hypercorn(app: Litestar, listener: socket.socket) -> None:
    from hypercorn.asyncio import serve
    from hypercorn.config import Config as HypercornConfig

    config = HypercornConfig()
    config.bind = [f"fd://{listener.fileno()}"]
    config.accesslog = None
    listener.listen(2048)
    _ready(listener.getsockname()[1])
    await serve(app, config)  # type: ignore[arg-type]


SERVERS: dict[str, Callable[[Litestar, socket.socket], Any]] = {
    "uvicorn, httptools": partial(_uvicorn, http="httptools"),
    "uvicorn, h11": partial(_uvicorn, http="h11"),
    "granian": _granian,
    "hypercorn": _hypercorn,
}
"""Those that are not the service's own, each on uvloop."""
OWN = "Passbook's (uvicorn, httptools, bounded)"


def serve(name: str, database: str) -> None:
    """One of SERVERS, or the service's own."""
    import uvloop

    from service import server
    from tests.benchmarks.serve import make_app

    config = Config(database=database, port=0, request_timeout_s=_TIMEOUT_S)
    listener = server.listen(config)
    app = make_app(config)
    if name == OWN:
        _, port = listener.getsockname()
        nothing: Callable[[], None] = lambda: None  # noqa: E731
        server.run(app, config, listener, on_ready=lambda: _ready(port), on_stopping=nothing, on_stop=nothing)
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(SERVERS[name](app, listener))


def _answer_to(url: str, sent: bytes, *, wait_s: float = _WAIT_S) -> str:
    """Status and media type of what comes back for raw bytes; what became of the connection otherwise."""
    target = urlsplit(url)
    with socket.create_connection((target.hostname, target.port), timeout=wait_s) as connection:
        got = b""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(sent)
        try:
            while b"\r\n\r\n" not in got:
                more = connection.recv(65536)
                if not more:
                    return "closed without an answer"
                got += more
        except TimeoutError:
            return f"nothing within {wait_s:g} s"
        except ConnectionResetError:
            return "reset without an answer"
    head = got.partition(b"\r\n\r\n")[0].decode("latin-1").lower()
    media_type = next((line.partition(": ")[2] for line in head.splitlines() if line.startswith("content-type")), "")
    return f"{head.split()[1]} {media_type.partition(';')[0] or 'without a body'}"


def probes(url: str, key: str) -> dict[str, str]:
    """What the server makes of requests that are none."""
    begin = f"GET /empty/1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n".encode()
    body = f"POST /v1/deposits HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: 100\r\n\r\n{{"
    return {
        "a header of 1 MiB": _answer_to(url, begin + b"X: " + b"x" * 2**20 + b"\r\n\r\n"),
        "a thousand headers": _answer_to(url, begin + b"".join(b"X%d: 1\r\n" % n for n in range(1000)) + b"\r\n"),
        "bytes that are no HTTP": _answer_to(url, b"\x16\x03\x01 hello\r\n\r\n"),
        "a body that never ends": _answer_to(url, body.encode()),
    }


def main() -> None:
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], sys.argv[3])
        return
    rounds, seconds = (int(sys.argv[n]) if len(sys.argv) > n else default for n, default in ((1, 4), (2, 3)))
    names = [OWN, *SERVERS]
    made_in = CHECKOUT / "build"
    made_in.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=made_in) as folder, contextlib.ExitStack() as stack:
        first = Path(folder) / "0.db"
        made = passbook("migrate", "up", "--database", str(first))
        assert made.returncode == 0, made.stderr
        key = passbook("keys", "create", "--name", "bench", "--role", "admin", "--database", str(first)).stdout.strip()
        servers, wrks = {}, {}
        for number, name in enumerate(names):
            database = Path(folder) / f"{number}.db"
            if number:
                shutil.copyfile(first, database)
            arguments = ("--serve", name, str(database))
            servers[name] = stack.enter_context(serving("tests.benchmarks.servers", *arguments, python=PEERS))
            wrks[name] = Wrk(servers[name].url, key, users=USERS)
            wrks[name].run("announce", "warm", connections=8, seconds=1)
        runs: dict[str, Callable[[int], Load]] = {
            json.dumps([name, kind]): lambda n, name=name, kind=kind: wrks[name].run(  # type: ignore[misc]
                kind, f"r{n}", connections=64, seconds=seconds
            )
            for kind in ("empty", "announce")
            for name in names
        }
        found = interleaved(runs, rounds, lambda step: print(step, file=sys.stderr))
        print(
            "| server | F/s | F p99 ms | F to the first | P/s | P p50 ms | P p99 ms | P to the first | failed | MiB |"
        )
        print("|---|---|---|---|---|---|---|---|---|---|")
        for name in names:
            empty, durable = (found[json.dumps([name, kind])] for kind in ("empty", "announce"))
            to_first = [
                f"{against.median:.2f} ({against.least:.2f}–{against.most:.2f})"
                for against in (
                    ratio(empty, found[json.dumps([OWN, "empty"])]),
                    ratio(durable, found[json.dumps([OWN, "announce"])]),
                )
            ]
            print(
                f"| {name} | {per_s(empty):,.0f} | {p99_ms(empty):.1f} | {to_first[0]} | {per_s(durable):,.0f}"
                f" | {p50_ms(durable):.1f} | {p99_ms(durable):.1f} | {to_first[1]}"
                f" | {sum(load.not_2xx + load.broken for load in (*empty, *durable))}"
                f" | {rss_mib(servers[name].process.pid):.0f} |"
            )
        answers = {name: probes(servers[name].url, key) for name in names}
        print(f"\n| server | {' | '.join(answers[OWN])} |\n|---{'|---' * len(answers[OWN])}|")
        for name, said in answers.items():
            print(f"| {name} | {' | '.join(said.values())} |")


if __name__ == "__main__":
    main()
