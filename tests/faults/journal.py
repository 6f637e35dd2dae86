"""The oracle of the fault tests: a load client that writes down what it asked and what it was told, and the check.

The client never trusts its memory: each request is on disk (fsync) before it is sent, each answer when it has come.
After any fault `check` holds the journal against the database:

- a 2xx is in the database exactly once, with its audit row and its stored answer;
- a stored refusal (4xx) has its audit row `<operation>_failed`, its stored answer, and no other effect;
- anything else (5xx, reset, no answer) is unknown: no effect or one, and the replayed key gives one stable answer;
- the database holds nothing that the journal does not know;
- an answer that came before another request was sent is earlier in the audit log;
- every answer has the receipt of its audit row, the same with every replay, and the audit log is the one it is of;
- `tests.ledger_check.broken_invariants` is empty.

What a request did is found by its X-Request-ID in the audit log, which shares nothing with the stored answers.
"""

import asyncio
import json
import os
import random
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from service.ledger.audit_chain import read_receipt
from service.storage import sqlite as sqlite_engine
from service.storage.audit_verification import ChainCheck
from tests.faults.wire import Connection, NoAnswer, Request
from tests.ledger_check import broken_invariants
from tests.live import Client, LiveService

_DONE = {
    "announce": "deposit_announced",
    "confirm": "deposit_confirmed",
    "cancel": "deposit_cancelled",
    "debit": "balance_debited",
}
_REFUSED = {
    "announce": "deposit_announce_failed",
    "confirm": "deposit_confirm_failed",
    "cancel": "deposit_cancel_failed",
    "debit": "debit_failed",
}
T = TypeVar("T")
_USERS = [f"77{n:02d}" for n in range(8)]
_NOBODY = "404404"


@dataclass
class Attempt:
    """One sending of a request; status and answer are None while no whole answer has come."""

    request_id: str
    sent_ns: int
    received_ns: int | None = None
    status: int | None = None
    answer: bytes | None = None
    replayed: bool = False
    receipt: str | None = None

    @property
    def known(self) -> bool:
        """Whether the answer says what the key stands for: a 5xx, a 429 and the 401 of a revoked API key do not."""
        return self.status is not None and self.status < 500 and self.status not in {401, 429}


@dataclass
class Entry:
    """All that was done under one Idempotency-Key."""

    key: str
    kind: str
    path: str
    body: str
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def answers(self) -> set[tuple[int, bytes]]:
        """The different answers that say something; more than one is a broken promise."""
        return {(a.status, a.answer) for a in self.attempts if a.known}  # type: ignore[misc]


class Journal:
    """Entries by key, each line of the file synced before the next step is taken. `load` reads them back."""

    def __init__(self, path: Path) -> None:
        self.entries: dict[str, Entry] = {}
        self.answered = 0
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._told: list[tuple[int, asyncio.Event]] = []

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator["Journal"]:
        """A journal that goes on after what the file holds, closed at the end of the block."""
        journal = cls(path)
        try:
            journal._load()
            yield journal
        finally:
            os.close(journal._file)

    def sends(self, entry: Entry) -> Attempt:
        """Puts on record that `entry` is about to be sent."""
        attempt = Attempt(f"{entry.key}.{len(entry.attempts)}", time.monotonic_ns())
        self.entries.setdefault(entry.key, entry).attempts.append(attempt)
        self._write({"sends": entry.key, "kind": entry.kind, "path": entry.path, "body": entry.body,
                     "request_id": attempt.request_id, "at": attempt.sent_ns})  # fmt: skip
        return attempt

    def hears(
        self,
        entry: Entry,
        attempt: Attempt,
        status: int,
        answer: bytes,
        *,
        replayed: bool,
        receipt: str | None = None,
    ) -> None:
        """Puts the answer on record."""
        attempt.received_ns = time.monotonic_ns()
        attempt.status, attempt.answer, attempt.replayed, attempt.receipt = status, answer, replayed, receipt
        self._write({"hears": entry.key, "request_id": attempt.request_id, "at": attempt.received_ns,
                     "status": status, "answer": answer.decode(), "replayed": replayed,
                     "receipt": receipt})  # fmt: skip
        self.answered += 1
        for count, event in self._told:
            if self.answered >= count:
                event.set()

    def after(self, count: int) -> asyncio.Event:
        """Set when `count` more answers have come."""
        event = asyncio.Event()
        self._told.append((self.answered + count, event))
        return event

    def _write(self, line: dict[str, Any]) -> None:
        os.write(self._file, json.dumps(line, ensure_ascii=False).encode() + b"\n")
        os.fdatasync(self._file)

    def _load(self) -> None:
        for text in self._path.read_text("utf-8").splitlines():
            line = json.loads(text)
            if "sends" in line:
                entry = Entry(line["sends"], line["kind"], line["path"], line["body"])
                entry = self.entries.setdefault(entry.key, entry)
                entry.attempts.append(Attempt(line["request_id"], line["at"]))
            else:
                attempt = next(a for a in self.entries[line["hears"]].attempts if a.request_id == line["request_id"])
                attempt.received_ns, attempt.status = line["at"], line["status"]
                attempt.answer, attempt.replayed = line["answer"].encode(), line["replayed"]
                attempt.receipt = line["receipt"]
                self.answered += 1


class Load:
    """Clients that announce, confirm, cancel, debit (some too much) and replay, until nobody answers them any more."""

    def __init__(self, journal: Journal, *, url: str, api_key: str, seed: int, clients: int, name: str) -> None:
        self._journal = journal
        self._url = url
        self._api_key = api_key
        self._randoms = [random.Random(f"{seed}.{name}.{n}") for n in range(clients)]
        self._name = name
        self._deposits: list[int] = []
        self._enough = False

    def leave(self) -> None:
        """Each client ends with the answer that it waits for."""
        self._enough = True

    async def run(self, count: int | None = None) -> None:
        """Each client asks `count` times, or until `leave`, or until the service is gone or its API key is refused."""
        await asyncio.gather(*(self._client(n, count) for n in range(len(self._randoms))))

    async def _client(self, number: int, count: int | None) -> None:
        chance = self._randoms[number]
        mine: list[Entry] = []
        try:
            connection = await Connection.open(self._url)
        except NoAnswer:
            return
        turn = 0
        try:
            while not self._enough and (count is None or turn < count):
                if mine and chance.random() < 0.15:
                    entry = chance.choice(mine)
                else:
                    entry = self._new(f"{self._name}-{number}-{turn}", chance)
                    mine.append(entry)
                turn += 1
                if await self._ask(connection, entry) == 401:
                    return
        except NoAnswer:
            pass
        finally:
            await connection.close()

    async def _ask(self, connection: Connection, entry: Entry) -> int:
        attempt = self._journal.sends(entry)
        answer = await connection.ask(Request(entry.path, entry.body, entry.key, attempt.request_id), self._api_key)
        self._journal.hears(
            entry,
            attempt,
            answer.status,
            answer.body,
            replayed="idempotency-replayed" in answer.headers,
            receipt=answer.headers.get("passbook-receipt"),
        )
        if entry.kind == "announce" and answer.status == 201 and not attempt.replayed:
            self._deposits.append(answer.json()["id"])
        return answer.status

    def _new(self, key: str, chance: random.Random) -> Entry:
        kind = chance.choices(["announce", "confirm", "cancel", "debit"], [40, 25, 5, 30])[0]
        if kind in {"confirm", "cancel"} and self._deposits:
            deposit = chance.choice(self._deposits[-50:])  # settled before, now and then: a refusal
            return Entry(key, kind, f"/v1/deposits/{deposit}/{kind}", json.dumps({"note": key}))
        user = chance.choice(_USERS)
        if kind == "debit":
            amount = chance.choice([1, 7, 100, 10**9])
            who = _NOBODY if chance.random() < 0.05 else user
            body = {"telegram_id": who, "amount": amount, "reason": "load", "reference": key}
            return Entry(key, kind, "/v1/debits", json.dumps(body))
        body = {"telegram_id": user, "amount": chance.randint(1, 1000), "depositor_name": key}
        return Entry(key, "announce", "/v1/deposits", json.dumps(body))


def load_until(
    live: LiveService, journal: Journal, end: Callable[[], T], *, seed: int, clients: int, name: str, answers: int
) -> T:
    """Clients ask until `answers` have come; then `end` is called. Its result, when every client has noticed."""

    async def run() -> T:
        load = Load(journal, url=live.url, api_key=live.admin_key, seed=seed, clients=clients, name=name)
        reached = journal.after(answers)
        asked = asyncio.create_task(load.run())
        waiting = asyncio.create_task(reached.wait())
        # Whoever kills the service at a certain moment may come before the answers do.
        await asyncio.wait({asked, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        result = await asyncio.to_thread(end)
        await asked
        return result

    return asyncio.run(run())


@dataclass
class Findings:
    """What the check saw. `broken` is empty when every promise was kept."""

    done: int = 0
    refused: int = 0
    unknown: int = 0
    unknown_done: int = 0
    replays: int = 0
    receipts: int = 0
    lost: set[str] = field(default_factory=set)
    """Keys with an answer that the database does not know."""
    doubled: set[str] = field(default_factory=set)
    """Keys that the database carried out more than once."""
    broken: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Held:
    """What the database holds of the caller: stored answers, audit rows and transactions by key."""

    stored: dict[str, tuple[int, bytes]]
    audited: dict[str, list[tuple[int, str, int | None]]]
    moved: dict[str, list[tuple[int, str]]]


def check(database: Path, journal: Journal, live: LiveService, *, actor: str, api_key: str) -> Findings:
    """Holds `journal` against `database`, which `live` serves again; replays what is unknown and some that is known."""
    found = Findings()
    before = _held(database, actor)
    _check_entries(journal.entries, before, found)
    client = live.client(api_key)
    known = [entry for entry in journal.entries.values() if entry.answers]
    unknown = [entry for entry in journal.entries.values() if not entry.answers]
    found.unknown = len(unknown)
    found.unknown_done = sum(entry.key in before.stored for entry in unknown)
    for entry in [*unknown, *known[:: max(1, len(known) // 40)]]:
        for _ in range(2):
            _replay(client, journal, entry)
            found.replays += 1
    _check_entries(journal.entries, _held(database, actor), found)
    for entry in journal.entries.values():
        if not entry.answers:
            found.broken.append(f"{entry.key}: no answer even when replayed")
        elif entry.key in before.stored and before.stored[entry.key] not in entry.answers:
            found.broken.append(f"{entry.key}: the replay is not the stored answer")
    _check_the_rest(database, journal.entries, found)
    return found


def check_at_rest(database: Path, entries: Mapping[str, Entry], *, actor: str) -> Findings:
    """The same for a database that nobody serves; nothing is replayed, so that an unknown outcome stays unknown."""
    found = Findings()
    held = _held(database, actor)
    _check_entries(entries, held, found)
    unknown = [entry for entry in entries.values() if not entry.answers]
    found.unknown = len(unknown)
    found.unknown_done = sum(entry.key in held.stored for entry in unknown)
    _check_the_rest(database, entries, found)
    return found


def as_told(entries: Iterable[Entry], heard: Callable[[Attempt], bool]) -> dict[str, Entry]:
    """The entries as a client knew them that had heard of some attempts only."""
    return {
        entry.key: Entry(
            entry.key,
            entry.kind,
            entry.path,
            entry.body,
            [a if heard(a) else Attempt(a.request_id, a.sent_ns) for a in entry.attempts],
        )
        for entry in entries
    }


def _check_the_rest(database: Path, entries: Mapping[str, Entry], found: Findings) -> None:
    _check_receipts(database, entries, found)
    found.broken += broken_invariants(database)
    found.done = sum(status < 400 for entry in entries.values() for status, _ in entry.answers)
    found.refused = sum(status >= 400 for entry in entries.values() for status, _ in entry.answers)


def _check_receipts(database: Path, entries: Mapping[str, Entry], found: Findings) -> None:
    """The whole audit log computed anew, and compared with what the callers kept of it."""
    receipts: dict[int, bytes] = {}
    for entry in entries.values():
        kept = {attempt.receipt for attempt in entry.attempts if attempt.known}
        if len(kept) > 1 or None in kept:
            found.broken.append(f"{entry.key}: its answers have the receipts {kept}")
            continue
        receipts.update(read_receipt(text) for text in kept if text)
    with closing(sqlite_engine.connect_reader(database, busy_timeout_ms=5000)) as connection:
        run = ChainCheck(connection, receipts=receipts)
        for _ in run.chunks():
            pass
    found.receipts = len(receipts)
    found.broken += [f"audit log, row {fault.audit_log_id}: {fault.said}" for fault in run.faults]


def _replay(client: Client, journal: Journal, entry: Entry) -> None:
    attempt = journal.sends(entry)
    answer = client.write(entry.path, entry.body.encode(), key=entry.key, **{"X-Request-ID": attempt.request_id})
    replayed = "Idempotency-Replayed" in answer.headers
    receipt = answer.headers.get("Passbook-Receipt")
    journal.hears(entry, attempt, answer.status_code, answer.content, replayed=replayed, receipt=receipt)


def _held(database: Path, actor: str) -> _Held:
    stored: dict[str, tuple[int, bytes]] = {}
    audited: dict[str, list[tuple[int, str, int | None]]] = defaultdict(list)
    moved: dict[str, list[tuple[int, str]]] = defaultdict(list)
    with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)) as read:
        read.execute("BEGIN")
        for key, status, body in read.execute(
            "SELECT idempotency_key, status, body FROM idempotency_answers WHERE actor = ?", (actor,)
        ):
            stored[key] = (status, body)
        for row_id, action, resource_id, request_id in read.execute(
            "SELECT id, action, resource_id, request_id FROM audit_logs"
            " WHERE actor = ? AND action <> 'user_created' ORDER BY id",
            (actor,),
        ):
            audited[request_id.rpartition(".")[0]].append((row_id, action, resource_id))
        for row_id, key, status in read.execute(
            "SELECT id, COALESCE(reference, depositor_name), status FROM deposit_transactions"
        ):
            moved[key].append((row_id, status))
    return _Held(stored, audited, moved)


def _check_entries(entries: Mapping[str, Entry], held: _Held, found: Findings) -> None:
    say = found.broken.append
    for entry in entries.values():
        for fault in _faults(entry, held):
            say(f"{entry.key} ({entry.kind}): {fault}")
        if entry.answers and entry.key not in held.stored:
            found.lost.add(entry.key)
        if max(len(held.audited.get(entry.key, ())), len(held.moved.get(entry.key, ()))) > 1:
            found.doubled.add(entry.key)
    for name, keys in (("stored answers", held.stored), ("audit rows", held.audited), ("transactions", held.moved)):
        strangers = keys.keys() - entries.keys()
        if strangers:
            say(f"{name} that nobody asked for: {sorted(map(str, strangers))[:3]}")
    _check_order(entries, held, say)


def _faults(entry: Entry, held: _Held) -> Iterator[str]:
    """Everything that is wrong with one entry."""
    stored, audited = held.stored.get(entry.key), held.audited.get(entry.key, [])
    if len(entry.answers) > 1:
        yield f"{len(entry.answers)} different answers"
    for answer in entry.answers:
        if stored is None:
            yield f"answered {answer[0]} and not stored"
        elif stored != answer:
            yield f"answered {answer[0]} and stored as something else ({stored[0]})"
    if stored is None:
        if audited or entry.key in held.moved:
            yield "an effect without a stored answer"
        return
    status, body = stored
    if status < 400:
        yield from _faults_of_change(entry, json.loads(body), held)
        wanted = _DONE[entry.kind]
    else:
        if entry.key in held.moved:
            yield "refused, and a transaction is there"
        wanted = _REFUSED[entry.kind]
    if [action for _, action, _ in audited] != [wanted]:
        yield f"audited as {[action for _, action, _ in audited]}, not once as {wanted}"


def _faults_of_change(entry: Entry, answer: dict[str, Any], held: _Held) -> Iterator[str]:
    """What is wrong with the effect that `answer` tells of."""
    if (answer["audit_log_id"], answer["id"]) not in {(row, target) for row, _, target in held.audited[entry.key]}:
        yield "its answer names an audit row that is not its own"
    if entry.kind in {"announce", "debit"}:
        rows = held.moved.get(entry.key, [])
        if [row_id for row_id, _ in rows] != [answer["id"]]:
            yield f"its transactions are {rows}"
    else:
        statuses = {row_id: status for rows in held.moved.values() for row_id, status in rows}
        wanted = {"confirm": "confirmed", "cancel": "cancelled"}[entry.kind]
        if statuses.get(answer["id"]) != wanted:
            yield f"its deposit is {statuses.get(answer['id'])}"


def _check_order(entries: Mapping[str, Entry], held: _Held, say: Callable[[str], None]) -> None:
    """If A's answer came before B was sent, A is earlier in the audit log."""
    executed = []
    for entry in entries.values():
        first = next((a for a in entry.attempts if a.known and not a.replayed), None)
        if first is not None and first.received_ns is not None and len(held.audited.get(entry.key, ())) == 1:
            executed.append((first.sent_ns, first.received_ns, held.audited[entry.key][0][0], entry.key))
    by_answer = iter(sorted(executed, key=lambda e: e[1]))
    pending = next(by_answer, None)
    latest = (0, "")
    for sent_ns, _, row_id, key in sorted(executed):
        while pending is not None and pending[1] < sent_ns:
            latest = max(latest, (pending[2], pending[3]))
            pending = next(by_answer, None)
        if row_id < latest[0]:
            say(f"{key} was sent after {latest[1]} was answered and is before it in the audit log")
