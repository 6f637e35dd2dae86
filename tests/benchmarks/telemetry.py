"""`python -m tests.benchmarks.telemetry [ROUNDS [REQUESTS]] [--json]`: what metrics and traces cost.

Asked are an announcement, durable, and an empty answer.

One process calls the application as a server would, 64 requests at a time, without HTTP; rounds alternate between the
bare application, the one with metrics (as it always is served), and those with traces of 1 % and of all requests, whose
spans are made and thrown away. Printed is processor time for each request, of all threads, and its ratio to bare.
"""

import asyncio
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from litestar import Litestar
from msgspec import Struct
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

from service.api import observation
from service.app import create_app
from service.config import Config
from service.ledger.access import RANDOM_BYTES, ROLES
from service.ledger.timestamps import stored, system_clock
from service.repository import api_keys
from service.storage import sqlite
from service.telemetry import Tracing
from tests.benchmarks.figures import Spread, spread
from tests.live import passbook

AT_ONCE = 64
REQUESTS = 1000
BODY = '{{"telegram_id": "1{0}", "amount": 5000, "depositor_name": "손님{0}"}}'


async def ask(app: Litestar, method: str, path: str, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    """One request; its answer must be a good one."""
    scope: Any = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "scheme": "http",
        "root_path": "",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"localhost"), *headers],
        "state": {},
    }
    sent = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        return sent.pop() if sent else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        assert message.get("status", 200) < 300, message

    await app(scope, receive, send)


async def round_of(app: Litestar, kind: str, key: str, name: str, requests: int) -> float:
    """Microseconds of processor time for each request."""
    number = iter(range(requests))
    authorization = (b"authorization", f"Bearer {key}".encode())

    async def caller() -> None:
        for n in number:
            if kind == "empty":
                await ask(app, "GET", "/livez", [], b"")
                continue
            once = (b"idempotency-key", f"{name}-{n}".encode())
            headers = [authorization, once, (b"content-type", b"application/json")]
            body = BODY.format(n).encode()
            await ask(app, "POST", "/v1/deposits", [*headers, (b"content-length", str(len(body)).encode())], body)

    began = time.process_time()
    await asyncio.gather(*(asyncio.create_task(caller()) for _ in range(AT_ONCE)))
    return (time.process_time() - began) / requests * 1e6


class Cost(Struct, frozen=True, kw_only=True):
    """Processor time of one request of `kind` in µs, and its ratio to the bare application's in the same round."""

    kind: str
    variant: str
    us: Spread
    ratio: Spread


async def run(database: Path, key: str, rounds: int, requests: int = REQUESTS) -> list[Cost]:
    """Alternates; `requests` make a round."""
    app = create_app(Config(database=str(database)), writes_here=True)
    async with app.lifespan():
        passbook_ = app.state["passbook"]
        measures, writer = passbook_.measures, passbook_.writer
        handler = app._create_asgi_handler()
        tracings = {
            "metrics": None,
            "traces 1 %": Tracing(TracerProvider(sampler=ParentBasedTraceIdRatio(0.01))),
            "traces all": Tracing(TracerProvider()),
        }
        variants: dict[str, Any] = {"bare": (handler, lambda _batch, _writes: None)}
        for name, tracing in tracings.items():
            variants[name] = (
                observation.observed(handler, measures, tracing, access_log=False),
                partial(observation.watch_batch, measures, tracing),
            )
        costs = []
        for kind in ("empty", "deposit"):
            found: dict[str, list[float]] = {name: [] for name in variants}
            for number in range(rounds + 1):
                for name, (asgi, watch) in variants.items():
                    app.asgi_handler, writer._watch = asgi, watch
                    spent = await round_of(app, kind, key, f"{name}-{number}".replace(" ", ""), requests)
                    if number:  # the first round warms up
                        found[name].append(spent)
            for name, spent in found.items():
                ratios = [one / base for one, base in zip(spent, found["bare"], strict=True)]
                costs.append(Cost(kind=kind, variant=name, us=spread(spent), ratio=spread(ratios)))
        return costs


def main() -> None:
    """Makes a database with a key, measures, deletes it."""
    as_json = "--json" in sys.argv
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    rounds, requests = (numbers + [9, REQUESTS][len(numbers) :])[:2]
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "passbook.db"
        assert passbook("migrate", "up", "--database", str(database)).returncode == 0
        connection = sqlite.connect_writer(database, busy_timeout_ms=5000, checkpoints=False)
        key = api_keys.create(
            connection,
            name="bench",
            scopes=ROLES["admin"],
            actor="bench",
            now=stored(system_clock()),
            random_bytes=os.urandom(RANDOM_BYTES),
        )
        connection.close()
        costs = asyncio.run(run(database, key, rounds, requests))
    if as_json:
        print(msgspec.json.encode(costs).decode())
        return
    for cost in costs:
        print(
            f"{cost.kind:8} {cost.variant:10} least {cost.us.least:6.1f} µs, median {cost.us.median:6.1f} µs"
            f"  {cost.ratio.median:.3f} ({cost.ratio.least:.3f}–{cost.ratio.most:.3f})"
        )


if __name__ == "__main__":
    main()
