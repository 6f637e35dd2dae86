"""Every way that we know of to edit the database behind Passbook's back, and what finds it.

`python -m tests.audit.tamperings` writes docs/audit-log/tamperings.md anew.
"""

import contextlib
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from msgspec import Struct

from service import resources
from service.ledger.audit_chain import read_receipt
from service.ledger.notes import Checkpoint, open_checkpoint, read_signing_key
from service.ledger.timestamps import stored, system_clock
from service.storage import migrator, sqlite
from service.storage.audit_verification import ChainCheck
from service.storage.integrity import Proof
from tests.live import CHECKOUT, Client, LiveService, passbook
from tests.storage.broken import by_hand
from tests.storage.test_audit_verification import seal_anew

TABLE = Path(__file__).with_name("tamperings.toml")
PAGE = CHECKOUT / "docs" / "audit-log" / "tamperings.md"
MIGRATIONS = migrator.load(resources.folder("migrations"))
BOT = """
INSERT INTO users (id, telegram_id, username) VALUES (1, '11', 'old'), (2, '12', NULL);
INSERT INTO user_deposits (user_id, balance) VALUES (1, 700), (2, 0);
INSERT INTO deposit_transactions (id, user_id, type, amount, status, depositor_name, confirmed_at) VALUES
  (1, 1, 'deposit', 700, 'confirmed', '김철수', '2026-01-02 00:00:00'),
  (2, 2, 'deposit', 900, 'cancelled', '이영희', NULL);
INSERT INTO bank_notifications (id, bank_name, depositor_name, amount, matched_transaction_id) VALUES
  (1, '은행', '김철수', 700, 1);
INSERT INTO user_domains (id, user_id, domain, status, price) VALUES (1, 1, 'old.kr', 'active', 500);
ALTER TABLE users ADD COLUMN note TEXT;
UPDATE users SET note = 'a regular' WHERE id = 1;
"""
"""What the bot had, and a column that the ledger has none for."""


@dataclass
class World:
    """A database that the service has written to in every way, stopped; what others keep of it; ids by name."""

    database: Path
    names: dict[str, int]
    receipts: dict[int, bytes] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None


def make_world(folder: Path) -> World:
    """An import, then a request of each kind over HTTP, each key's commands, and a checkpoint of all of it."""
    bots = folder / "bots.sqlite"
    with contextlib.closing(sqlite3.connect(bots)) as connection:
        connection.executescript(MIGRATIONS[0].up + BOT)
    database = folder / "p.db"
    _run("import", str(bots), "--database", str(database))
    service = LiveService(database).start()
    try:
        receipts, note = _use(service)
    finally:
        assert service.stop() == 0, service.said
    key = read_signing_key(Path(f"{database}.audit-key").read_text("utf-8").strip())
    world = World(database, {}, receipts, open_checkpoint(note, [key.verifier]))
    _settle(database)
    with contextlib.closing(sqlite3.connect(database)) as connection:
        world.names = {name: connection.execute(sql).fetchone()[0] for name, sql in _NAMES.items()}
    return world


def make_thinned_world(whole: World, folder: Path) -> World:
    """The same, with one user erased and then the oldest rows archived and removed."""
    database = Path(shutil.copy(whole.database, folder / "p.db"))
    shutil.copy(f"{whole.database}.audit-key", f"{database}.audit-key")
    _run("users", "erase", "300", "--force", "--yes", "--database", str(database))
    with contextlib.closing(sqlite3.connect(database)) as connection:
        (before,) = connection.execute(
            "SELECT created_at FROM audit_logs WHERE action = 'transaction_reversed' ORDER BY id LIMIT 1"
        ).fetchone()
    _run(
        *("audit", "prune", "--before", before.replace(" ", "T") + "Z", "--archive", str(folder / "archive.ndjson")),
        *("--yes", "--database", str(database)),
    )
    _settle(database)
    return World(database, whole.names)


def _run(*arguments: str) -> str:
    done = passbook(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _settle(database: Path) -> None:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")  # one file, to be copied


def _use(service: LiveService) -> tuple[dict[int, bytes], str]:
    receipts: dict[int, bytes] = {}
    client = service.client()

    def write(path: str, body: object = None, *, by: Client = client, status: int = 201) -> dict[str, object]:
        answer = by.write(path, body)
        assert answer.status_code == status, answer.text
        if "Passbook-Receipt" in answer.headers:
            receipts.update([read_receipt(answer.headers["Passbook-Receipt"])])
        found: dict[str, object] = answer.json()
        return found

    def announced(telegram_id: str, amount: int, name: str) -> object:
        body = {"telegram_id": telegram_id, "amount": amount, "depositor_name": name}
        return write("/v1/deposits", body)["id"]

    def credited(telegram_id: str, amount: int) -> object:
        deposit = announced(telegram_id, amount, "홍길동")
        write(f"/v1/deposits/{deposit}/confirm", {}, status=200)
        return deposit

    def received(number: int, amount: int, name: str) -> object:
        body = {"bank_transaction_id": f"bank-{number}", "amount": amount, "depositor_name": name, "bank_name": "은행"}
        now = stored(system_clock()).replace(" ", "T") + "Z"
        return write("/v1/bank-notifications", {**body, "occurred_at": now, "raw_message": "입금"})["id"]

    credited("100", 10_000)
    write("/v1/debits", {"telegram_id": "100", "amount": 3000, "reason": "a fee", "reference": "order-1"})
    changes = [{"telegram_id": "100", "amount": 40, "reason": "a gift", "reference": f"gift-{n}"} for n in (1, 2)]
    write("/v1/balance-changes", {"changes": changes}, status=200)
    write("/v1/debits", {"telegram_id": "100", "amount": 10**9, "reason": "too much"}, status=409)
    credited("200", 50_000)
    for name, hold, verb in (("a", False, ""), ("b", True, "complete"), ("c", True, "release"), ("d", True, "")):
        body = {"telegram_id": "200", "domain": f"{name}.kr", "price": 1000, "hold": hold}
        bought = write("/v1/domain-purchases", body)["id"]
        if verb:
            write(f"/v1/domain-purchases/{bought}/{verb}", {}, status=200)
    write(f"/v1/transactions/{credited('300', 700)}/reverse", {"note": "a mistake"})
    write("/v1/users", {"telegram_id": "400", "username": "kim"})
    write("/v1/users", {"telegram_id": "400", "username": "lee"}, status=200)
    announced("400", 600, "대기")
    write(f"/v1/deposits/{announced('400', 601, '취소')}/cancel", {"note": "no money"}, status=200)
    announced("400", 602, "자동")
    received(1, 602, "자동")
    by_hand_matched = announced("400", 603, "수동")
    line = received(2, 603, "다른이름")
    write(f"/v1/bank-notifications/{line}/match", {"deposit_id": by_hand_matched, "remember": True}, status=200)
    received(3, 999, "모름")
    event = {"action": "basket_filled", "resource_type": "basket", "telegram_id": "100", "details": {"items": 3}}
    write("/v1/audit-logs", event)
    revoked = service.make_key("--role", "bot", "--name", "gone").rpartition("_")[0]
    _run("keys", "revoke", revoked, "--database", str(service.database))
    key = service.make_key("--role", "admin", "--name", "bot")
    _run("keys", "scopes", key.rpartition("_")[0], "--role", "bot", "--database", str(service.database))
    bot = service.client(key)
    write("/v1/deposits", {"telegram_id": "100", "amount": 77, "depositor_name": "홍길동"}, by=bot)
    texts = (
        "안녕하세요",
        "하나,01/16,12:39\n427******27104\n출금5원\n홍길동",
        "하나,01/16,12:39\n427******27104\n입금취소5원\n홍길동",
    )
    unreadable, *_ = [write("/v1/bank-notifications", {"raw_message": text}, status=202)["id"] for text in texts]
    write(f"/v1/bank-messages/{unreadable}/settle", {"note": "a greeting"}, status=200)
    _settle_lines(write, received)
    write("/v1/audit-logs", {**event, "action": "basket_emptied"})
    checkpoint = client.get("/v1/audit-logs/checkpoint")
    assert checkpoint.status_code == 200, checkpoint.text
    return receipts, checkpoint.text


def _settle_lines(write: Callable[..., dict[str, object]], received: Callable[[int, int, str], object]) -> None:
    """Lines with an event of each kind: one told better and dismissed, one reopened, one freed, one cancelled."""
    told = "하나,01/16,12:40\n427******27104\n입금{}원\n홍길동"
    line = write("/v1/bank-notifications", {"raw_message": told.format(6)})["id"]
    write("/v1/bank-notifications", {"raw_message": told.format(6) + "\n잔액106원"}, status=200)
    write(f"/v1/bank-notifications/{line}/dismiss", {"note": "interest"}, status=200)
    line = received(4, 604, "모름")
    write(f"/v1/bank-notifications/{line}/dismiss", {"note": "a loan"}, status=200)
    write(f"/v1/bank-notifications/{line}/reopen", {"note": "none"}, status=200)
    line = received(5, 605, "모름")
    matched = write(f"/v1/bank-notifications/{line}/match", {"telegram_id": "400"}, status=200)
    write(f"/v1/transactions/{matched['matched_deposit_id']}/reverse", {"note": "of another"})
    write("/v1/bank-notifications", {"raw_message": told.format(7)})
    write("/v1/bank-notifications", {"raw_message": told.format(7).replace("입금", "입금취소")}, status=202)


def _movement(telegram_id: str, version: int) -> str:
    return (
        "SELECT t.id FROM deposit_transactions AS t JOIN users AS u ON u.id = t.user_id"
        f" WHERE u.telegram_id = '{telegram_id}' AND t.version = {version}"
    )


def _answer(operation: str) -> str:
    return f"SELECT MIN(id) FROM idempotency_answers WHERE operation = '{operation}'"


def _row(action: str) -> str:
    return f"SELECT MIN(id) FROM audit_logs WHERE action = '{action}'"


_NAMES = {
    "user": "SELECT id FROM users WHERE telegram_id = '100'",
    "other": "SELECT id FROM users WHERE telegram_id = '200'",
    "renamed": "SELECT id FROM users WHERE telegram_id = '400'",
    "erased": "SELECT id FROM users WHERE telegram_id = '300'",
    "credit": _movement("100", 1),
    "debit": _movement("100", 2),
    "change": _movement("100", 3),
    "reversal": _movement("300", 2),
    "payment": "SELECT transaction_id FROM user_domains WHERE ascii_name = 'a.kr'",
    "waiting": "SELECT id FROM deposit_transactions WHERE depositor_name = '대기'",
    "cancelled": "SELECT id FROM deposit_transactions WHERE depositor_name = '취소'",
    "registered": "SELECT id FROM user_domains WHERE ascii_name = 'a.kr'",
    "held": "SELECT id FROM user_domains WHERE ascii_name = 'd.kr'",
    "released": "SELECT id FROM user_domains WHERE ascii_name = 'c.kr'",
    "matched": "SELECT id FROM bank_notifications WHERE bank_transaction_id = 'bank-1'",
    "by_hand": "SELECT id FROM bank_notifications WHERE bank_transaction_id = 'bank-2'",
    "open": "SELECT id FROM bank_notifications WHERE bank_transaction_id = 'bank-3'",
    "told": "SELECT id FROM bank_notification_events WHERE kind = 'told'",
    "dismissed": "SELECT MIN(id) FROM bank_notification_events WHERE kind = 'dismissed'",
    "freed": "SELECT id FROM bank_notification_events WHERE kind = 'freed'",
    "taken_back": "SELECT id FROM bank_notification_events WHERE kind = 'cancelled'",
    "bot_key": "SELECT id FROM api_keys WHERE name = 'bot'",
    "admin_key": "SELECT MIN(id) FROM api_keys",
    "gone_key": "SELECT id FROM api_keys WHERE name = 'gone'",
    "debit_answer": _answer("POST /v1/debits"),
    "event_answer": _answer("POST /v1/audit-logs"),
    "refusal": "SELECT id FROM idempotency_answers WHERE status = 409",
    "last_answer": "SELECT MAX(id) FROM idempotency_answers",
    "first_answer": "SELECT MIN(id) FROM idempotency_answers",
    "debit_row": _row("balance_debited"),
    "last_row": "SELECT MAX(id) FROM audit_logs",
    "leaf": "SELECT leaf_index FROM audit_leaves WHERE audit_log_id = (" + _row("balance_debited") + ")",
    "reference": "SELECT MIN(rowid) FROM balance_change_references",
}


def rows(database: Path, sql: str) -> list[tuple[object, ...]]:
    """Rows of a query by a connection of its own."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return connection.execute(sql).fetchall()


class Tampering(Struct, frozen=True, forbid_unknown_fields=True):
    """`sql` with {names} of ids; `by` the command that finds it, and words that it says.

    thinned: in the database with erased and archived rows. anew: from which row on all leaves are hashed again after
    the edit, as one can who knows the format and has no key.
    """

    table: str
    what: str
    sql: str
    by: str
    said: str = ""
    thinned: bool = False
    anew: str | None = None


def found_by(
    database: Path, *, checkpoint: Checkpoint | None = None, receipts: Mapping[int, bytes] | None = None
) -> dict[str, list[str]]:
    """What `passbook integrity` and `passbook audit verify` say of a database, by the code that they run."""
    said: dict[str, list[str]] = {"integrity": [], "audit verify": []}
    with contextlib.closing(sqlite.connect_reader(database, busy_timeout_ms=5000)) as connection:
        proof = Proof(MIGRATIONS, system_clock)
        proof.run(connection)
        report = proof.report()
        if report.reason is not None:
            said["integrity"].append(report.reason)
        for check in report.checks:
            said["integrity"] += [f"{check.name}: {example.said}" for example in check.examples]
        chain = ChainCheck(connection, checkpoints=[checkpoint] if checkpoint else [], receipts=receipts or {})
        for _ in chain.chunks():
            pass
        said["audit verify"] += [fault.said for fault in chain.faults]
    return said


def tamper(world: World, tampering: Tampering, copy: Path) -> Path:
    """A copy of the world's database after the edit, its triggers as they were."""
    database = Path(shutil.copy(world.database, copy))
    by_hand(
        database,
        "PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON;" + tampering.sql.format(**world.names),
    )
    if tampering.anew is not None:
        with contextlib.closing(sqlite3.connect(database)) as hand:
            triggers = hand.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
            for name, _ in triggers:
                hand.execute(f"DROP TRIGGER {name}")
            seal_anew(hand, world.names[tampering.anew] - 1)
            for _, sql in triggers:
                hand.execute(sql)
            hand.commit()
    return database


NOTHING, INTEGRITY, VERIFY = "nothing", "integrity", "audit verify"
CHECKPOINT = "checkpoint"
TAMPERINGS = tuple(msgspec.toml.decode(TABLE.read_text("utf-8"), type=dict[str, list[Tampering]])["edit"])
UNSEEN = {
    ("audit_erasures", "one of an archived row edited"): "The archive holds the commitment; nothing reads this one.",
    ("schema_migrations", "applied_at edited"): "When a migration ran is kept nowhere else.",
    ("sqlite_sequence", "set forward"): "It leaves a gap in the ids; no id is given out twice.",
    ("idempotency_answers", "idempotency_key of an event's edited"): (
        "A caller's row holds no digest. The event could be posted again with its old key; it moves nothing."
    ),
    ("idempotency_answers", "every id doubled"): "Their order is compared; nothing names their numbers.",
    ("users", "a user of the bot's renamed"): "A name changes with requests, and nothing goes by it.",
    ("user_deposits", "two accounts change ids"): "Nothing names an account by its id.",
    ("user_erasures", "one under way put in"): ("A killed erasure leaves the same, and nothing is erased by it."),
    ("sqlite_master", "a table or a view of no migration put in"): "Nothing of Passbook reads it.",
    ("sqlite_stat1", "statistics put in"): "SQLite chooses indexes by them; answers are the same.",
    ("balance_change_references", "rowid edited"): "Nothing names it.",
    ("(the header)", "user_version or application_id set"): "Nothing reads them.",
}
"""What nothing finds, and why it does no harm."""
BEGIN = "## The table\n"


def rendered() -> str:
    """The page."""
    lines = [BEGIN, "| # | table | what a hand did | found by | in these words |", "|---|---|---|---|---|"]
    for number, each in enumerate((each for each in TAMPERINGS if each.by != NOTHING), start=1):
        found = "`audit verify` with a checkpoint, or with receipts" if each.by == CHECKPOINT else f"`{each.by}`"
        lines.append(f"| {number} | `{each.table}` | {each.what} | {found} | {each.said} |")
    lines += ["", "## What nothing finds", "", "| table | what a hand did | why it does no harm |", "|---|---|---|"]
    for each in TAMPERINGS:
        if each.by == NOTHING:
            lines.append(f"| `{each.table}` | {each.what} | {UNSEEN[each.table, each.what]} |")
    return PAGE.read_text("utf-8").partition(BEGIN)[0] + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(rendered(), "utf-8")
