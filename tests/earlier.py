"""What a Passbook did that did not yet ask where the price of a held name is: it is left in databases of that time."""

import contextlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from unittest.mock import patch

from service.ledger.domain_purchases import DomainPurchaseComplete
from service.ledger.idempotency import Answer
from service.ledger.timestamps import stored, system_clock
from service.ledger.transactions import TransactionReverse
from service.repository import domain_purchases, transactions
from service.repository.unit_of_work import UnitOfWork, audited
from service.storage import sqlite
from service.storage.sqlite import Connection


def reverse(work: UnitOfWork, transaction_id: int) -> Answer:
    """Takes a transaction back, whoever stands on it."""
    with _without_guards(work.tx), patch.object(transactions, "check_money_may_move", lambda *_, **__: None):
        return transactions.REVERSE.run(work, TransactionReverse(), transaction_id)


def complete(work: UnitOfWork, purchase_id: int) -> Answer:
    """Registers a held name, wherever its price is."""
    with _without_guards(work.tx), patch.object(domain_purchases, "check_paid", lambda _, last: last):
        return domain_purchases.COMPLETE.run(work, DomainPurchaseComplete(), purchase_id)


@contextlib.contextmanager
def at_work(database: Path, *, now: datetime | None = None) -> Iterator[UnitOfWork]:
    """A unit of work on a database that nobody serves, sealed and committed at the end."""
    with (
        contextlib.closing(sqlite.connect_writer(database, busy_timeout_ms=5000, checkpoints=True)) as connection,
        audited(connection, actor="earlier", now=stored(now or system_clock())) as work,
    ):
        yield work


@contextlib.contextmanager
def _without_guards(tx: Connection) -> Iterator[None]:
    guards = tx.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
        " AND name IN ('deposit_transactions_keep_payments', 'user_domains_keep_their_price')"
    ).fetchall()
    for name, _ in guards:
        tx.execute(f"DROP TRIGGER {name}")
    yield
    for _, sql in guards:
        tx.execute(sql)
