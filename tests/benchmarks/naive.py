"""What one would write first: FastAPI, SQLAlchemy's async session on aiosqlite, a commit for each request.

It answers POST /v1/deposits and POST /v1/debits as Passbook does, from the same tables: it looks up the
Idempotency-Key, writes the transaction, the audit row and the answer, with synchronous=FULL, and says 2xx after the
commit. It has no chain over its audit log. A debit reads the balance, subtracts and writes it back: two at once lose
one of them, which is counted afterwards and not mended here.

Usage, with the peers' Python: python -m tests.benchmarks.naive DATABASE KEY   (prints "ready URL")
"""

import hashlib
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import ForeignKey, UniqueConstraint, event, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

USERS = 200
FIRST_USER = 1_000_000
BALANCE = 1_000_000_000

engine = create_async_engine(f"sqlite+aiosqlite:///{sys.argv[1]}", connect_args={"timeout": 30})
sessions = async_sessionmaker(engine, expire_on_commit=False)


@event.listens_for(engine.sync_engine, "connect")
def _settings(connection: Any, _record: Any) -> None:
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


class Base(DeclarativeBase):
    pass


class ApiKey(Base):
    __tablename__ = "api_keys"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    key_hash: Mapped[bytes] = mapped_column(unique=True)


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    telegram_id: Mapped[str] = mapped_column(unique=True)


class Account(Base):
    __tablename__ = "user_deposits"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), unique=True)
    balance: Mapped[int]
    version: Mapped[int] = mapped_column(default=0)


class Transaction(Base):
    __tablename__ = "deposit_transactions"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    type: Mapped[str]
    direction: Mapped[str]
    amount: Mapped[int]
    status: Mapped[str]
    depositor_name: Mapped[str | None]
    description: Mapped[str | None]
    created_at: Mapped[str]
    confirmed_at: Mapped[str | None]
    balance_before: Mapped[int | None]
    balance_after: Mapped[int | None]
    version: Mapped[int | None]


class AuditLog(Base):
    __tablename__ = "audit_logs"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(index=True)
    telegram_id: Mapped[str] = mapped_column(index=True)
    action: Mapped[str] = mapped_column(index=True)
    resource_type: Mapped[str]
    resource_id: Mapped[int]
    details: Mapped[str]
    ip_address: Mapped[str | None]
    user_agent: Mapped[str | None]
    created_at: Mapped[str]
    actor: Mapped[str]


class StoredAnswer(Base):
    __tablename__ = "idempotency_answers"
    __table_args__ = (UniqueConstraint("actor", "idempotency_key"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    actor: Mapped[str]
    idempotency_key: Mapped[str]
    status: Mapped[int]
    body: Mapped[str]
    created_at: Mapped[str]


class Deposit(BaseModel):
    telegram_id: str = Field(pattern=r"^[0-9]{1,20}$")
    amount: int = Field(ge=1, le=10**12)
    depositor_name: str = Field(min_length=1, max_length=50)


class Debit(BaseModel):
    telegram_id: str = Field(pattern=r"^[0-9]{1,20}$")
    amount: int = Field(ge=1, le=10**12)
    reason: str = Field(min_length=1, max_length=200)


class Written(BaseModel):
    id: int
    telegram_id: str
    amount: int
    depositor_name: str | None = None
    reason: str | None = None
    status: str
    created_at: str
    confirmed_at: str | None
    balance_before: int
    balance_after: int
    version: int
    audit_log_id: int


async def session_of_request() -> AsyncIterator[AsyncSession]:
    """A session for each request."""
    async with sessions() as session:
        yield session


Session = Annotated[AsyncSession, Depends(session_of_request)]


async def caller(session: Session, authorization: Annotated[str, Header()]) -> str:
    """The name of the key."""
    key_hash = hashlib.sha256(authorization.removeprefix("Bearer ").encode()).digest()
    key = await session.scalar(select(ApiKey).where(ApiKey.key_hash == key_hash))
    if key is None:
        raise HTTPException(401)
    return key.name


Caller = Annotated[str, Depends(caller)]
Key = Annotated[str, Header(alias="Idempotency-Key")]
app = FastAPI()


async def stored(session: AsyncSession, actor: str, key: str) -> Response | None:
    """The answer that the key got before."""
    found = await session.scalar(
        select(StoredAnswer).where(StoredAnswer.actor == actor, StoredAnswer.idempotency_key == key)
    )
    return Response(found.body, status_code=found.status, media_type="application/json") if found else None


async def finish(
    session: AsyncSession, request: Request, *, actor: str, key: str, action: str, row: Transaction, user: User,
    before: int, version: int,
) -> Response:  # fmt: skip
    """Audit row, stored answer, commit."""
    audit = AuditLog(
        user_id=user.id,
        telegram_id=user.telegram_id,
        action=action,
        resource_type="deposit_transaction",
        resource_id=row.id,
        details=f'{{"amount": {row.amount}}}',
        ip_address=request.client.host if request.client else None,
        user_agent=request.headers.get("user-agent"),
        created_at=row.created_at,
        actor=actor,
    )
    session.add(audit)
    await session.flush()
    body = Written(
        id=row.id,
        telegram_id=user.telegram_id,
        amount=row.amount,
        depositor_name=row.depositor_name,
        reason=row.description,
        status=row.status,
        created_at=row.created_at,
        confirmed_at=row.confirmed_at,
        balance_before=before,
        balance_after=before if row.balance_after is None else row.balance_after,
        version=version,
        audit_log_id=audit.id,
    ).model_dump_json()
    session.add(StoredAnswer(actor=actor, idempotency_key=key, status=201, body=body, created_at=row.created_at))
    await session.commit()
    return Response(body, status_code=201, media_type="application/json")


async def account_of(session: AsyncSession, telegram_id: str) -> tuple[User, Account]:
    """The user and the account."""
    found = (
        await session.execute(
            select(User, Account).join(Account, Account.user_id == User.id).where(User.telegram_id == telegram_id)
        )
    ).one_or_none()
    if found is None:
        raise HTTPException(404)
    return found[0], found[1]


@app.post("/v1/deposits")
async def announce(data: Deposit, session: Session, actor: Caller, key: Key, request: Request) -> Response:
    """A pending deposit."""
    answer = await stored(session, actor, key)
    if answer is not None:
        return answer
    user, account = await account_of(session, data.telegram_id)
    row = Transaction(
        user_id=user.id,
        type="deposit",
        direction="credit",
        amount=data.amount,
        status="pending",
        depositor_name=data.depositor_name,
        created_at=datetime.now(UTC).isoformat(),
    )
    session.add(row)
    await session.flush()
    return await finish(
        session, request, actor=actor, key=key, action="deposit_announced", row=row, user=user,
        before=account.balance, version=account.version,
    )  # fmt: skip


@app.post("/v1/debits")
async def debit(data: Debit, session: Session, actor: Caller, key: Key, request: Request) -> Response:
    """A confirmed debit, and the balance without it."""
    answer = await stored(session, actor, key)
    if answer is not None:
        return answer
    user, account = await account_of(session, data.telegram_id)
    before = account.balance
    if before < data.amount:
        raise HTTPException(409)
    account.balance = before - data.amount
    account.version += 1
    now = datetime.now(UTC).isoformat()
    row = Transaction(
        user_id=user.id,
        type="debit",
        direction="debit",
        amount=data.amount,
        status="confirmed",
        description=data.reason,
        created_at=now,
        confirmed_at=now,
        balance_before=before,
        balance_after=account.balance,
        version=account.version,
    )
    session.add(row)
    await session.flush()
    return await finish(
        session, request, actor=actor, key=key, action="balance_debited", row=row, user=user, before=before,
        version=account.version,
    )  # fmt: skip


async def make_tables(key: str) -> None:
    """Tables, users with money, the key."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with sessions() as session:
        session.add(ApiKey(name="bench", key_hash=hashlib.sha256(key.encode()).digest()))
        session.add_all(User(id=n + 1, telegram_id=str(FIRST_USER + n)) for n in range(USERS))
        await session.flush()
        session.add_all(Account(user_id=n + 1, balance=BALANCE) for n in range(USERS))
        await session.commit()


class Server(uvicorn.Server):
    """Says where it listens."""

    async def startup(self, sockets: Any = None) -> None:
        await make_tables(sys.argv[2])
        await super().startup(sockets)
        port = self.servers[0].sockets[0].getsockname()[1]
        print(f"ready http://127.0.0.1:{port}", flush=True)


if __name__ == "__main__":
    Server(uvicorn.Config(app, port=0, loop="uvloop", http="httptools", access_log=False, log_level="error")).run()
