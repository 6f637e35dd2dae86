"""The real application on a port of the loopback interface, in a thread of this process, at a time that the test sets.

A process of its own would do for the answers, but not for the clock, for asking the sweeper, and for breaking the
service on purpose.
"""

import asyncio
import http.client
import json
import os
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import uvicorn

from service.app import create_app
from service.config import Config
from service.connections import Bounds, Connections
from service.http_protocol import BoundedHttp
from service.ledger.access import RANDOM_BYTES, ROLES
from service.ledger.audit_logs import DEPOSIT_TRANSACTION
from service.ledger.idempotency import Answer as Written
from service.ledger.transactions import Direction
from service.repository import api_keys
from service.repository.unit_of_work import Context, Operation, UnitOfWork, ok
from service.repository.users import find_or_open
from service.storage import transactions
from service.storage.sqlite import Connection
from tests import earlier
from tests.repository.house import make_database, writing

CALLERS = ("stateful-one", "stateful-two")
TIMEOUT_S = 30
T = TypeVar("T")


@dataclass
class Clock:
    """What the service takes for the present instant."""

    now: datetime = datetime(2026, 1, 19, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@dataclass(frozen=True)
class Answer:
    """What came back; the names of headers are in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, which is JSON."""
        return json.loads(self.body)


class ServiceFailed(Exception):
    """An answer of 5xx. It is no answer to compare: it tells that the service is broken, not what is wrong with it."""


class Served:
    """One application that serves. Lifetime: of `served`. Asked from one thread."""

    def __init__(self, path: Path, **settings: int) -> None:
        self.path = path
        self.clock = Clock()
        self.failed = False
        """Whether a request since the last `begin` was answered with 5xx."""
        self.may_fail = False
        """Whether an answer of 5xx is one to look at; else it raises ServiceFailed."""
        self._keys = {name: _make_key(path, name) for name in CALLERS}
        # Nothing expires by itself: a test sweeps.
        config = Config(database=str(path), expiry_interval_s=86_400, **settings)  # type: ignore[arg-type]
        # In this process, so that a test can break the code that writes.
        self._app = create_app(config, self.clock, writes_here=True)
        measures = self._app.state["measures"]
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._app,
                http=partial(  # type: ignore[arg-type]
                    BoundedHttp,
                    connections=Connections(Bounds(), measures),
                    on_refused=measures.refusals.add,
                ),
                loop="uvloop",
                lifespan="off",
                ws="none",
                access_log=False,
                log_config=None,
                server_header=False,
            )
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="served", daemon=True)
        self._connection = http.client.HTTPConnection(*self._listener.getsockname(), timeout=TIMEOUT_S)

    def start(self) -> None:
        """Returns when requests are taken."""
        self._thread.start()
        assert self._ready.wait(TIMEOUT_S), "the application does not serve"
        if self._failed is not None:
            raise self._failed

    def stop(self) -> None:
        """Returns when the database is closed."""
        self._connection.close()
        self._server.should_exit = True
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()
        if self._failed is not None:
            raise self._failed

    def post(self, caller: str, key: str, path: str, body: str, request_id: str) -> Answer:
        """A write by the API key of that name."""
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": key,
            "X-Request-ID": request_id,
            "User-Agent": user_agent_of(request_id),
        }
        return self._ask("POST", caller, path, body.encode(), headers)

    def get(self, path: str) -> Answer:
        """A read."""
        return self.ask("GET", path)

    def ask(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        *,
        caller: str = CALLERS[0],
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Any request, with the API key of that name and no other header than it needs and those given."""
        return self._ask(method, caller, target, body, headers or {})

    @contextmanager
    def another_connection(self) -> Iterator[Callable[..., Answer]]:
        """`ask` over a connection of its own, for a thread of its own."""
        with closing(http.client.HTTPConnection(*self._listener.getsockname(), timeout=TIMEOUT_S)) as connection:

            def ask(method: str, target: str, body: bytes, *, headers: Mapping[str, str]) -> Answer:
                return self._ask(method, CALLERS[0], target, body, headers, connection)

            yield ask

    def use_another_key_of(self, caller: str) -> None:
        """From here on the caller of that name asks with a new API key."""
        self._keys[caller] = _make_key(self.path, caller)

    def key_prefix_of(self, caller: str) -> str:
        """The public start of the caller's API key."""
        return self._keys[caller].rpartition("_")[0]

    def sweep(self) -> tuple[int, int]:
        """Lets expire what is due now: how many deposits, how many purchases."""
        swept = self._call(self._app.state["sweeper"].sweep(self.clock.now))
        return swept.deposits, swept.purchases

    def begin(self, balances: Mapping[str, int]) -> int:
        """Puts ten days behind everything that was, and makes users who have these balances already.

        A balance near the limit would take thousands of requests. Returns the id of the newest audit row.
        """
        self.failed = False
        self.clock.now = self.clock.now.replace(microsecond=0) + timedelta(days=10)
        self.sweep()
        context = Context(actor="stateful-seed", request_id=None, ip_address=None, user_agent=None)
        writer = self._app.state["passbook"].writer
        self._call(writer.submit(_SEED, _Seed(balances=dict(balances)), 0, request=None, context=context))
        return int(self.rows("SELECT MAX(id) FROM audit_logs")[0][0])

    def forget_all_names(self) -> None:
        """Takes every learned name away: else those of earlier examples would count in the next one."""
        known = [item["id"] for item in self.get("/v1/learned-names?limit=1000").json()["items"]]
        statuses = [
            self.ask("DELETE", f"/v1/learned-names/{one}", headers={"Idempotency-Key": f"forget-{one}"}).status
            for one in known
        ]
        assert statuses == [200] * len(known)

    def reverse_as_before(self, transaction_id: int) -> None:
        """Takes a transaction back as a Passbook did that asked nobody who stands on it."""
        context = Context(actor=CALLERS[0], request_id=None, ip_address=None, user_agent=None)
        writer = self._app.state["passbook"].writer
        self._call(writer.submit(_EARLIER, _Seed(balances={}), transaction_id, request=None, context=context))

    def rows(self, sql: str, *parameters: object) -> list[Any]:
        """What one of the service's readers sees: another SQLite in the process would break the locks of this one."""
        return self._call(self._app.state["passbook"].readers.read(_fetch, sql, parameters))

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(TIMEOUT_S)

    def _ask(
        self,
        method: str,
        caller: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        connection: http.client.HTTPConnection | None = None,
    ) -> Answer:
        connection = connection or self._connection
        connection.request(method, path, body, {"Authorization": f"Bearer {self._keys[caller]}", **headers})
        answer = connection.getresponse()
        content = answer.read()
        if answer.status >= 500 and not self.may_fail:
            self.failed = True
            raise ServiceFailed(f"{method} {path} was answered {answer.status} {content!r}")
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, content)

    def _run(self) -> None:
        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            async with self._app.lifespan():
                serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))
                while not (self._server.started or serving.done()):
                    await asyncio.sleep(0.01)
                self._ready.set()
                await serving

        try:
            with asyncio.Runner(loop_factory=self._server.config.get_loop_factory()) as runner:
                runner.run(serve())
        except BaseException as error:
            self._failed = error
        finally:
            self._ready.set()


@contextmanager
def served(path: Path, **settings: int) -> Iterator[Served]:
    """An application on a new database at `path`, for the block; with these settings where they are not the usual."""
    one = Served(make_database(path), **settings)
    one.start()
    try:
        yield one
    finally:
        one.stop()


def user_agent_of(request_id: str) -> str:
    """What a write of Served.post says that it was sent with."""
    return f"a test, {request_id}"


def _make_key(path: Path, name: str) -> str:
    with writing(path) as connection:
        return api_keys.create(
            connection,
            name=name,
            scopes=ROLES["admin"],
            actor="stateful-seed",
            now="2026-01-19 12:00:00.000",
            random_bytes=os.urandom(RANDOM_BYTES),
        )


class _Seed(msgspec.Struct):
    balances: dict[str, int]


def _seed(work: UnitOfWork, command: _Seed, _target: int) -> Written:
    for telegram_id, balance in command.balances.items():
        account = find_or_open(work, telegram_id)
        transaction_id = transactions.insert_confirmed(
            work.tx,
            account,
            transaction_type="opening_credit",
            direction=Direction.CREDIT,
            amount=balance,
            balance_after=balance,
            description="seed",
            reference=None,
            now=work.now,
        )
        work.audit("balance_credited", DEPOSIT_TRANSACTION, transaction_id, account, {"amount": balance})
    return ok(command)


_SEED = Operation("seed", "user", _seed)
_EARLIER = Operation("earlier", "user", lambda work, _, transaction_id: earlier.reverse(work, transaction_id))


def _fetch(connection: Connection, sql: str, parameters: tuple[object, ...]) -> list[Any]:
    return connection.execute(sql, parameters).fetchall()
