"""A writer, readers and a sweeper on a real database, at a time that the test sets; and short ways to ask them."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from service import resources
from service.api import problems
from service.ledger.deposits import DepositAnnounce, DepositConfirm
from service.ledger.domain_purchases import DomainPurchaseMake
from service.ledger.policy import Policy
from service.repository import deposits, domain_purchases
from service.repository.sweeper import Sweeper
from service.repository.unit_of_work import Context, Operation
from service.repository.writer import Writer
from service.storage import migrator, sqlite

USER = "3001"
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


@dataclass
class Time:
    """What the wall clock says, and the seconds that have really gone by."""

    now: datetime = datetime(2026, 1, 19, 12, tzinfo=UTC)
    ran: float = 1000.0

    def wall(self) -> datetime:
        return self.now

    def elapsed(self) -> float:
        return self.ran

    def goes_by(self, length: timedelta) -> None:
        """Time passes, and the wall clock shows it."""
        self.now += length
        self.ran += length.total_seconds()

    def jumps(self, length: timedelta) -> None:
        """Somebody sets the wall clock."""
        self.now += length


def make_database(path: Path) -> Path:
    """A database with the whole schema."""
    with writing(path) as connection:
        migrator.up(connection, migrator.load(resources.folder("migrations")), lambda _: None)
    return path


@contextmanager
def writing(path: Path) -> Iterator[Any]:
    """A connection of the service's own driver: a second SQLite in the process would break the first one's locks."""
    with closing(sqlite.connect_writer(path, busy_timeout_ms=0, checkpoints=False)) as connection:
        yield connection


@dataclass
class House:
    """What runs, and every statement that the writer's connection carried out."""

    path: Path
    time: Time
    writer: Writer
    readers: sqlite.Readers
    sweeper: Sweeper
    statements: list[str] = field(default_factory=list)

    async def do(self, operation: Operation, command: msgspec.Struct, target: int = 0) -> dict[str, Any]:
        """The answer of an operation, a refusal too."""
        context = Context(actor="test", request_id=None, ip_address=None, user_agent=None)
        answer = await self.writer.submit(operation, command, target, request=None, context=context)
        told: dict[str, Any] = msgspec.json.decode(answer.body)
        return told

    async def announce(self, amount: int = 1000, user: str = USER) -> int:
        """A pending deposit; its id."""
        command = DepositAnnounce(telegram_id=user, amount=amount, depositor_name="홍길동")
        return int((await self.do(deposits.ANNOUNCE, command))["id"])

    async def confirm(self, deposit_id: int) -> dict[str, Any]:
        """Confirms a deposit that is not late."""
        return await self.do(deposits.CONFIRM, DepositConfirm(), deposit_id)

    async def hold(self, domain: str, price: int = 1000, user: str = USER) -> int:
        """A held purchase that is paid for with new money; its id."""
        await self.confirm(await self.announce(price, user))
        command = DomainPurchaseMake(telegram_id=user, domain=domain, price=price, hold=True)
        return int((await self.do(domain_purchases.MAKE, command))["id"])

    def rows(self, sql: str) -> list[Any]:
        """What an independent reader sees."""
        with closing(sqlite.connect_reader(self.path, busy_timeout_ms=0)) as reader:
            return reader.execute(sql).fetchall()

    def statuses(self, table: str = "deposit_transactions") -> dict[int, str]:
        """The status of each row."""
        return dict(self.rows(f"SELECT id, status FROM {table}"))

    def logged(self, action: str) -> list[int]:
        """The resource ids of the audit rows of an action."""
        return [
            row[0] for row in self.rows(f"SELECT resource_id FROM audit_logs WHERE action = '{action}' ORDER BY id")
        ]

    def balance(self, user: str = USER) -> int:
        """A user's balance in won."""
        found = self.rows(
            f"SELECT balance FROM user_deposits WHERE user_id = (SELECT id FROM users WHERE telegram_id = '{user}')"
        )
        return int(found[0][0])


@asynccontextmanager
async def opened(path: Path, *, interval_s: float = 3600, policy: Policy | None = None) -> AsyncIterator[House]:
    """The writer runs, the sweeper does not: a test sweeps by itself, or runs it."""
    time = Time()
    policy = policy or Policy()
    statements: list[str] = []

    def connect() -> sqlite.Connection:
        connection = sqlite.connect_writer(path, busy_timeout_ms=0, checkpoints=True)
        connection.set_trace_callback(statements.append)
        return connection

    thread = sqlite.Thread(connect)
    await thread.open()
    try:
        writer = Writer(
            thread,
            clock=time.wall,
            policy=policy,
            render_refusal=problems.render_refusal,
            queue_max=10_000,
            queue_bytes_max=2**25,
            batch_max=256,
        )
        async with sqlite.Readers(path, count=2, busy_timeout_ms=0).opened() as readers, writer.running():
            sweeper = Sweeper(readers, writer, clock=time.wall, policy=policy, interval_s=interval_s)
            yield House(path, time, writer, readers, sweeper, statements)
    finally:
        await thread.close()
