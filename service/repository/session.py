"""What the operations of one database transaction read and write through.

A batch reads what it will need with a few statements, decides in Python, and writes many rows at once. What was read
ahead is at hand; what is written is gathered, and flushed before anything that an operation reads by itself, and at the
end. Ids are given here, so that an operation knows them before its rows are written.

There are two ways to protect operations from a neighbour that fails. A session that is not `careful` has no savepoints.
An operation that fails before it wrote anything is simply forgotten. One that fails after it wrote raises Spoilt, and
the whole transaction is run again with care. With care, each operation has a savepoint and is flushed within it. This
is expensive: with a savepoint around many writes, SQLite keeps a copy of each page for each level.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from msgspec import Struct

from service.ledger.access import Scope
from service.ledger.audit_logs import AuditEvent, AuditLog
from service.ledger.depositor_names import AnnouncedName, could_be_confused
from service.ledger.idempotency import Answer, Request
from service.ledger.idempotency import digest as idempotency_digest
from service.ledger.policy import Policy
from service.ledger.transactions import Direction
from service.ledger.users import Account
from service.storage import (
    api_keys,
    audit_logs,
    balance_changes,
    idempotency,
    learned_names,
    sequences,
    sqlite,
    transactions,
    users,
)
from service.storage.api_keys import Standing
from service.storage.idempotency import StoredAnswer
from service.storage.sqlite import Connection

_READ_AHEAD_MIN = 4
"""Of fewer operations each reads for itself, which takes less time."""


class Context(Struct, frozen=True, kw_only=True):
    """Who asks, from where and by which request; from the key and the connection, never from the body.

    `key_prefix` is the public start of the key, `key_id` its row and `scope` what the request needs of it; null for the
    command line and for the service's own work.
    """

    actor: str
    request_id: str | None
    ip_address: str | None
    user_agent: str | None
    key_prefix: str | None = None
    key_id: int | None = None
    scope: Scope | None = None


class Spoilt(Exception):
    """An operation failed after it had written. The transaction must be rolled back, and may be run again with care."""


class Session:
    """One open transaction. Lifetime: from BEGIN to before its COMMIT; `flush` before the audit log is sealed.

    `now` is the one instant that all of it reads as now.
    """

    def __init__(self, tx: Connection, *, now: str, policy: Policy, careful: bool = False) -> None:
        self._tx = tx
        self.now = now
        self.policy = policy
        self._careful = careful
        self._users: list[users.Row] = []
        self._transactions: list[transactions.Row] = []
        self._references: list[balance_changes.Row] = []
        self._audit_logs: list[audit_logs.Row] = []
        self._answers: list[idempotency.Row] = []
        self._announced: dict[tuple[int, str], list[AnnouncedName]] = {}
        """Names of the deposits among them, and maybe of some that were taken back, by amount and first character,
        which is empty where it tells of the amount alone."""
        self._accounts: dict[str, Account | None] = {}
        self._stored: dict[tuple[str, str], StoredAnswer | None] = {}
        self._keys: dict[int, Standing | None] = {}
        self._next_ids: sequences.NextIds | None = None
        self._next_audit_log_id = 0
        self._mark = (0, 0, 0, 0, 0)
        self._changes = 0
        """How many rows the connection had changed when the operation under way began, flushed rows left out."""

    # Operations, one after the other.

    def begin_operation(self) -> None:
        """From here on what is written is one operation's."""
        if self._careful:
            self._tx.execute("SAVEPOINT operation")
        self._mark = self._gathered()
        self._changes = self._tx.total_changes

    def undo_operation(self) -> None:
        """Takes back what the operation has written. Raises Spoilt when that takes the whole transaction."""
        if self._careful:
            self._tx.execute("ROLLBACK TO operation")
        elif self._tx.total_changes != self._changes:
            raise Spoilt
        *_, audit_logs_before, answers_before = self._mark
        self._next_audit_log_id -= len(self._audit_logs) - audit_logs_before
        for actor, idempotency_key, *_ in self._answers[answers_before:]:
            del self._stored[actor, idempotency_key]
        if self._careful or self._gathered() != self._mark:
            for rows, length in zip(self._row_lists(), self._mark, strict=True):
                del rows[length:]
            self._forget()

    def end_operation(self) -> None:
        """What the operation has written stays."""
        if self._careful:
            self.flush()
            self._tx.execute("RELEASE operation")

    def abandon_operation(self, because: Exception) -> None:
        """Takes back what the operation has written, and ends it. Raises Spoilt like `undo_operation`."""
        try:
            self.undo_operation()
        except Spoilt as spoilt:
            raise spoilt from because
        if self._careful:
            self._tx.execute("RELEASE operation")

    def flush(self) -> None:
        """Writes all that was gathered. Raises Spoilt where a row cannot be written, with care what the row raised."""
        self._flush_ledger()
        with self._flushing():
            if self._audit_logs:
                audit_logs.insert_many(self._tx, self._audit_logs)
                self._audit_logs.clear()
            if self._answers:
                idempotency.insert_many(self._tx, self._answers)
                self._answers.clear()

    # What an operation does by itself.

    @property
    def tx(self) -> Connection:
        """The transaction, to read and write with. It has all that was gathered for the ledger, not the audit rows."""
        self._flush_ledger()
        self._forget()
        return self._tx

    @property
    def reading(self) -> Connection:
        """The transaction, to read with: what was read ahead stays at hand."""
        self._flush_ledger()
        return self._tx

    def looking_for(self, *, amount: int, name: AnnouncedName) -> Connection:
        """The transaction, to look for deposits of this amount that could be confused, and for bank notifications."""
        alike = self._announced.get((amount, name.name[:1]), ())
        if any(could_be_confused(name, other) for other in alike):
            return self.reading
        # A deposit among them may be meant by a name that was learned of its user.
        if (amount, "") in self._announced and not learned_names.is_empty(self._tx):
            return self.reading
        return self._tx

    # What is read ahead.

    def read_ahead(self, asked: Sequence[tuple[str, str]], telegram_ids: Iterable[str | None]) -> None:
        """Reads the stored answers of (actor, Idempotency-Key) and the accounts of users, if it is worth it."""
        if len(asked) < _READ_AHEAD_MIN or self._careful:
            return
        by_actor: dict[str, list[str]] = {}
        for actor, idempotency_key in asked:
            by_actor.setdefault(actor, []).append(idempotency_key)
        for actor, idempotency_keys in by_actor.items():
            found = idempotency.find_many(self._tx, actor=actor, idempotency_keys=idempotency_keys)
            self._stored.update({(actor, key): found.get(key) for key in idempotency_keys})
        self.read_accounts(telegram_id for telegram_id in telegram_ids if telegram_id is not None)

    def read_accounts(self, telegram_ids: Iterable[str]) -> None:
        """Reads the accounts that are not at hand with one statement."""
        missing = [telegram_id for telegram_id in dict.fromkeys(telegram_ids) if telegram_id not in self._accounts]
        if missing:
            found = users.find_accounts(self.reading, missing)
            self._accounts.update({telegram_id: found.get(telegram_id) for telegram_id in missing})

    def account(self, telegram_id: str) -> Account | None:
        """The user with the balance as it is now, or None."""
        if telegram_id not in self._accounts:
            self._accounts[telegram_id] = users.find_account(self.reading, telegram_id)
        return self._accounts[telegram_id]

    def stored_answer(self, *, actor: str, idempotency_key: str) -> StoredAnswer | None:
        """What the key was used for, and the answer it got; None for a new key."""
        asked = (actor, idempotency_key)
        if asked not in self._stored:
            self._stored[asked] = idempotency.find(self._tx, actor=actor, idempotency_key=idempotency_key)
        return self._stored[asked]

    def standing(self, key_id: int) -> Standing | None:
        """What the API key may do now; None where there is no such key."""
        if key_id not in self._keys:
            self._keys[key_id] = api_keys.find_standing(self._tx, key_id)
        return self._keys[key_id]

    def transactions_of(self, *, actor: str, references: Sequence[str]) -> dict[str, int]:
        """The ids of the transactions that the caller posted under these references, as far as there are any."""
        return balance_changes.find_transactions(self.reading, actor=actor, references=references)

    # What is gathered.

    def open_account(self, telegram_id: str, username: str | None) -> Account:
        """Makes the user with a balance of 0."""
        ids = self._ids()
        account = Account(ids.user, telegram_id, username, self.now, 0, 0)
        ids.user += 1
        self._users.append((account.user_id, telegram_id, username, self.now))
        self._accounts[telegram_id] = account
        return account

    def post(
        self,
        account: Account,
        *,
        transaction_type: str,
        direction: Direction,
        amount: int,
        balance_after: int,
        description: str | None,
        reference: str | None,
    ) -> int:
        """Writes a transaction that moves the balance of `account` as it is now; returns its id."""
        transaction_id = self._next_transaction_id()
        self._transactions.append(
            transactions.confirmed_row(
                transaction_id,
                account,
                transaction_type=transaction_type,
                direction=direction,
                amount=amount,
                balance_after=balance_after,
                description=description,
                reference=reference,
                now=self.now,
            )
        )
        self._accounts[account.telegram_id] = Account(
            account.user_id,
            account.telegram_id,
            account.username,
            account.created_at,
            balance_after,
            account.version + 1,
        )
        return transaction_id

    def announce(self, account: Account, *, amount: int, depositor_name: str, name: AnnouncedName) -> int:
        """Writes a deposit that waits for its money; returns its id."""
        transaction_id = self._next_transaction_id()
        self._announced.setdefault((amount, name.name[:1]), []).append(name)
        self._announced.setdefault((amount, ""), [])
        self._transactions.append(
            transactions.pending_row(
                transaction_id,
                user_id=account.user_id,
                amount=amount,
                depositor_name=depositor_name,
                match_name=name.name,
                now=self.now,
            )
        )
        return transaction_id

    def take_reference(self, *, actor: str, reference: str, transaction_id: int) -> None:
        """Takes the caller's reference for the transaction."""
        self._references.append((actor, reference, transaction_id))

    def record(self, event: AuditEvent, context: Context) -> int:
        """Writes a row of the audit log; returns its id."""
        if not self._next_audit_log_id:
            self._next_audit_log_id = sequences.last_audit_log_id(self._tx) + 1
        audit_log_id = self._next_audit_log_id
        self._next_audit_log_id += 1
        self._audit_logs.append(
            audit_logs.row(
                audit_log_id,
                event,
                actor=context.actor,
                key_prefix=context.key_prefix,
                request_id=context.request_id,
                ip_address=context.ip_address,
                user_agent=context.user_agent,
                now=self.now,
            )
        )
        return audit_log_id

    def last_recorded(self) -> AuditLog:
        """The last row of the audit log that was written, as the API shows it."""
        return audit_logs.shown(self._audit_logs[-1])

    def store_answer(self, request: Request, answer: Answer, *, actor: str) -> None:
        """Stores the answer of the request for ever. The last row that the request wrote tells its digest."""
        if answer.audit_log_id is not None and self._audit_logs[-1][0] == answer.audit_log_id:
            digest = idempotency_digest(
                idempotency_key=request.idempotency_key,
                operation=request.operation,
                request=request.body,
                status=answer.status,
                location=answer.location,
                body=answer.body,
            )
            self._audit_logs[-1] = audit_logs.telling_answer(self._audit_logs[-1], digest)
        self._answers.append(idempotency.row(request, answer, actor=actor, now=self.now))
        self._stored[actor, request.idempotency_key] = StoredAnswer(
            request.operation, request.body, idempotency.replay(answer)
        )

    def _flush_ledger(self) -> None:
        gathered = (len(self._users), len(self._transactions), len(self._references))
        if not any(gathered):
            return
        before = self._tx.total_changes
        with self._flushing():
            # In this order: a row needs those that it names.
            if self._users:
                users.insert_many(self._tx, self._users)
                self._users.clear()
            if self._transactions:
                transactions.insert_many(self._tx, self._transactions)
                self._transactions.clear()
                self._announced.clear()
            if self._references:
                balance_changes.insert_many(self._tx, self._references)
                self._references.clear()
        if gathered == self._mark[:3]:  # all of it is of the operations before
            self._changes += self._tx.total_changes - before
        self._mark = (0, 0, 0, *self._mark[3:])

    @contextmanager
    def _flushing(self) -> Iterator[None]:
        """Whose row it is that cannot be written is not known without care."""
        try:
            yield
        except Exception as error:
            if self._careful or (isinstance(error, sqlite.DatabaseError) and not sqlite.is_of_statement(error)):
                raise
            raise Spoilt from error

    def _forget(self) -> None:
        """Whoever has the transaction may change what was read ahead."""
        self._accounts.clear()
        self._next_ids = None

    def _ids(self) -> sequences.NextIds:
        if self._next_ids is None:
            self._flush_ledger()
            self._next_ids = sequences.next_ids(self._tx)
        return self._next_ids

    def _next_transaction_id(self) -> int:
        ids = self._ids()
        ids.transaction += 1
        return ids.transaction - 1

    def _row_lists(self) -> tuple[list[Any], ...]:
        return self._users, self._transactions, self._references, self._audit_logs, self._answers

    def _gathered(self) -> tuple[int, int, int, int, int]:
        return (
            len(self._users),
            len(self._transactions),
            len(self._references),
            len(self._audit_logs),
            len(self._answers),
        )
