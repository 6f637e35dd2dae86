"""An erasure takes a user's names out of every column, index, page and log, and leaves everybody else's as it is.

The cases are made of the schema: each text column either holds something of the user before the erasure, put there by
the takeover or the API, or it is listed with the reason why it cannot. A new column without a case fails.
"""

import contextlib
import itertools
import json
import shutil
import sqlite3
import struct
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.ledger_check import broken_invariants
from tests.live import Client, LiveService, passbook
from tests.some import some
from tests.storage.broken import named_by_integrity
from tests.storage.test_importer import MIGRATIONS, take_over

USER, NEW_USER, OTHER = "8675309123", "8675300000", "5551234567"
USER_ID = 1
NAMES = {USER: "각별한이름", NEW_USER: "각별한이름", OTHER: "평범한이웃"}
"""What is personal of each: every text about them has it. The first was taken over and the second came by the API."""
PAGE = 4096
LONG = 3000
"""How often a name stands in a text that takes pages of its own: these fall free when it goes."""
RESOURCES = {
    "user": USER_ID,
    "user_deposits": USER_ID,
    "deposit_transaction": USER_ID,
    "user_domains": USER_ID,
    "bank_notification": USER_ID,
}
"""Rows of the user by which an audit row is known; those of the other have the same ids as the other."""
ACTIONS = ("deposit_announced", "deposit_confirmed", "user_created", "balance_corrected", "login", "note", "x_failed")

HOLDS = {
    "audit_logs.details",
    "audit_logs.telegram_id",
    "bank_messages.depositor_name",
    "bank_messages.note",
    "bank_messages.raw_message",
    "bank_notification_events.depositor_name",
    "bank_notification_events.raw_message",
    "bank_notifications.depositor_name",
    "bank_notifications.match_name",
    "bank_notifications.raw_message",
    "deposit_transactions.depositor_name",
    "deposit_transactions.description",
    "deposit_transactions.match_name",
    "idempotency_answers.body",
    "idempotency_answers.location",
    "idempotency_answers.request",
    "import_archive.column_values",
    "learned_names.match_name",
    "learned_names.printed_name",
    "users.telegram_id",
    "users.username",
}
"""Columns that hold something of the user before the erasure."""
KEPT = {
    "api_keys": "of callers",
    "audit_erasures": "hashes",
    "audit_leaves": "hashes; the salt goes with what it hid",
    "audit_logs.action": "a word of the ledger or of a caller",
    "audit_logs.actor": "a caller",
    "audit_logs.created_at": "a time",
    "audit_logs.ip_address": "of the caller",
    "audit_logs.key_prefix": "of the caller",
    "audit_logs.outcome": "one of two words",
    "audit_logs.request_id": "made by the service",
    "audit_logs.resource_type": "a word of the ledger or of a caller",
    "audit_logs.user_agent": "of the caller",
    "audit_nodes": "hashes and times",
    "audit_pruned_steps": "words of the ledger",
    "audit_prunes": "hashes, times and names of files",
    "audit_tree": "hashes",
    "balance_change_references": "of callers; docs/operating.md says so",
    "bank_messages.account": "the operator's, masked",
    "bank_messages.bank_name": "the bank's",
    "bank_messages.created_at": "a time",
    "bank_messages.kind": "one of four words",
    "bank_messages.raw_sha256": "a hash of the text; docs/bank-messages.md says so",
    "bank_messages.received_by": "a caller",
    "bank_messages.settled_at": "a time",
    "bank_messages.settled_by": "a caller",
    "bank_messages.status": "one of four words",
    "bank_messages.transaction_time": "a time",
    "bank_notification_events.account": "the operator's, masked",
    "bank_notification_events.actor": "a caller",
    "bank_notification_events.bank_name": "the bank's",
    "bank_notification_events.created_at": "a time",
    "bank_notification_events.kind": "one of five words",
    "bank_notification_events.note": "of dismissed lines, which no user has",
    "bank_notification_events.transaction_time": "a time",
    "bank_notifications.account": "the operator's, masked",
    "bank_notifications.bank_name": "the bank's",
    "bank_notifications.closed_as": "one of two words",
    "bank_notifications.bank_transaction_id": "the bank's; docs/operating.md says so",
    "bank_notifications.created_at": "a time",
    "bank_notifications.match_method": "one of two words",
    "bank_notifications.matched_at": "a time",
    "bank_notifications.matched_by": "a caller",
    "bank_notifications.status": "one of three words",
    "bank_notifications.transaction_time": "a time",
    "deposit_transactions.confirmed_at": "a time",
    "deposit_transactions.created_at": "a time",
    "deposit_transactions.direction": "one of two words",
    "deposit_transactions.reference": "of callers; docs/operating.md says so",
    "deposit_transactions.status": "a word of the ledger",
    "deposit_transactions.type": "a word of the ledger",
    "idempotency_answers.actor": "a caller",
    "idempotency_answers.created_at": "a time",
    "idempotency_answers.idempotency_key": "of callers; docs/operating.md says so",
    "learned_names.created_at": "a time",
    "learned_names.learned_by": "a caller",
    "idempotency_answers.operation": "a path, which never names a user",
    "import_archive.imported_at": "a time",
    "import_archive.source_table": "a table",
    "schema_migrations": "of the program",
    "user_deposits.created_at": "a time",
    "user_domains": "names of domains, words and times; docs/operating.md says so",
    "user_erasures": "times and who erased",
    "users.created_at": "a time",
}
"""Tables and columns of text that hold nothing of a person, and why."""
NEW_ROWS = {"audit_logs", "audit_leaves", "audit_erasures", "user_erasures"}
"""Tables to which an erasure adds rows."""


DELETED_ROWS = {"learned_names"}
"""Tables from which an erasure takes the user's rows away."""


def spellings(name: str) -> list[bytes]:
    """How a name may stand in a file: composed, decomposed, and escaped as JSON does in either case."""
    found = []
    for form in ("NFC", "NFD"):
        text = unicodedata.normalize(form, name)
        escaped = json.dumps(text)[1:-1]
        found += [text.encode(), escaped.encode(), escaped.replace("\\u", "").upper().encode()]
        found.append("".join(f"\\u{unit.upper()}" for unit in escaped.split("\\u")[1:]).encode() or text.encode())
        found += [text.encode("utf-16-le"), text.encode("utf-16-be")]
    return found


def spaced(name: str) -> str:
    """The same name as another message of the bank may print it."""
    return f"{name[:2]} {name[2:]}"


SECRETS = [*spellings(NAMES[USER]), *spellings(spaced(NAMES[USER])), USER.encode(), NEW_USER.encode()]


def holds_secret(value: object) -> bool:
    """Whether a value of SQLite has something of the user."""
    data = value if isinstance(value, bytes) else str(value).encode()
    return any(secret in data for secret in SECRETS)


def texts(name: str) -> Iterator[str]:
    """Details with `name` in every shape: members, lists, escapes, decomposed, long, no JSON at all."""
    yield json.dumps({"depositor_name": name, "amount": 5}, ensure_ascii=False)
    yield json.dumps({"amount": [1, {"note": name}], "status": {"who": name}})
    yield json.dumps({"reference": "r", "by": name}, ensure_ascii=False)
    yield json.dumps([name], ensure_ascii=False)
    yield json.dumps(unicodedata.normalize("NFD", name), ensure_ascii=False)
    yield f"{name} wrote a word"
    yield json.dumps({"note": name * LONG}, ensure_ascii=False)


def bots_file(path: Path) -> Path:
    """The bot's database after 001: one who goes and one who stays, in every column and every shape of audit rows."""
    connection = sqlite3.connect(path)
    connection.executescript(MIGRATIONS[0].up + MIGRATIONS[1].up)
    for table in ("users", "user_deposits", "deposit_transactions", "bank_notifications", "user_domains", "audit_logs"):
        connection.execute(f"ALTER TABLE {table} ADD COLUMN memo TEXT")
    for number, telegram_id in enumerate((USER, OTHER), 1):
        name = NAMES[telegram_id]
        decomposed = unicodedata.normalize("NFD", name)
        inserts: list[tuple[str, dict[str, object]]] = [
            ("users", {"id": number, "telegram_id": telegram_id, "username": name}),
            ("user_deposits", {"id": number, "user_id": number, "balance": 5000}),
            ("deposit_transactions", {"id": number, "user_id": number, "type": "deposit", "amount": 5000,
                                      "status": "confirmed", "depositor_name": name, "description": f"from {name}"}),
            ("deposit_transactions", {"id": number + 10, "user_id": number, "type": "deposit", "amount": 7,
                                      "status": "pending", "depositor_name": decomposed}),
            ("bank_notifications", {"id": number, "depositor_name": name, "amount": 5000,
                                    "raw_message": f"<{name * LONG}>",
                                    "matched_transaction_id": number, "bank_name": "bank"}),
            ("user_domains", {"id": number_of("user_domains", number), "user_id": number,
                              "domain": f"d{number}.kr", "price": 1}),
        ]  # fmt: skip
        for table, row in inserts:
            insert(connection, table, {**row, "memo": f"memo of {name * LONG}"})
        for row in audit_rows(number, telegram_id):
            insert(connection, "audit_logs", row)
    # Nobody knows whose these are.
    insert(
        connection, "bank_notifications", {"id": 9, "depositor_name": "아무개", "amount": 3, "raw_message": "아무개"}
    )
    insert(connection, "audit_logs", {"action": "note", "details": '{"name":"아무개"}'})
    connection.commit()
    connection.close()
    return path


def number_of(table: str, user_id: int) -> int:
    """The id of the user's row: in one table that of the other user, for an id is of a row in its own table alone."""
    return 3 - user_id if table == "user_domains" else user_id


def audit_rows(user_id: int, telegram_id: str) -> Iterator[dict[str, object]]:
    """Known by the telegram id, by the user's id, by a row of the user's, or by more than one of them."""
    actions = itertools.cycle(ACTIONS)
    resources = [(None, None), *((kind, number_of(kind, user_id)) for kind in RESOURCES)]
    for telegram, user, (kind, resource_id) in itertools.product((telegram_id, None), (user_id, None), resources):
        if telegram is None and user is None and kind is None:
            continue
        for details in texts(NAMES[telegram_id]):
            yield {
                "telegram_id": telegram,
                "user_id": user,
                "action": next(actions),
                "resource_type": kind,
                "resource_id": resource_id,
                "details": details,
                "memo": f"memo of {NAMES[telegram_id]}" if user else None,
            }


def answers_without_an_audit_row(user_id: int, name: str) -> Iterator[dict[str, object]]:
    """Refusals from before 012, known as the user's by the row in their path alone: the names are in their requests."""
    for kind, table in (
        ("deposits", "deposit_transactions"),
        ("transactions", "deposit_transactions"),
        ("bank-notifications", "bank_notifications"),
        ("domain-purchases", "user_domains"),
    ):
        yield {
            "actor": "bot",
            "idempotency_key": f"{kind}-{user_id}",
            "operation": f"POST /v1/{kind}/{number_of(table, user_id)}/refused",
            "request": json.dumps({"note": name}, ensure_ascii=False),
            "status": 409,
            "body": b"{}",
            "created_at": "2026-01-01 00:00:00",
        }


def insert(connection: sqlite3.Connection, table: str, row: dict[str, object]) -> None:
    places = ", ".join("?" * len(row))
    connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})", [*row.values()])


def use(client: Client, telegram_id: str) -> None:
    """What the API keeps of a user: answers, refusals, bank lines, events."""
    name, number = NAMES[telegram_id], [*NAMES].index(telegram_id)
    amount = 4321 + number
    now = datetime.now(UTC).isoformat()

    def write(path: str, body: dict[str, Any], *statuses: int) -> Any:
        answer = client.write(path, {"telegram_id": telegram_id, **body} if path != "/v1/bank-notifications" else body)
        assert answer.status_code in statuses, answer.text
        return answer.json()

    write("/v1/users", {"username": name}, 200, 201)
    write("/v1/deposits", {"amount": amount, "depositor_name": name}, 201)
    line = {"bank_transaction_id": f"B-{number}", "depositor_name": name, "amount": amount, "occurred_at": now}
    received = write("/v1/bank-notifications", {**line, "raw_message": f"입금 {name}"}, 201)
    assert received["status"] == "matched"
    again = {**line, "depositor_name": spaced(name), "raw_message": f"다시 {name}"}
    assert write("/v1/bank-notifications", again, 200)["repeat"]
    minute = datetime.now(ZoneInfo("Asia/Seoul"))
    text = f"하나,{minute:%m/%d,%H:%M}\n427******27104\n입금취소{amount:,}원\n{name}"
    taken_back = client.write("/v1/bank-notifications", {"raw_message": text}).json()
    assert taken_back["bank_notification_id"] == received["id"], taken_back
    text = f"{name} {number}: 입금을 확인해 주세요"
    unreadable = client.write("/v1/bank-notifications", {"raw_message": text}).json()
    told = {"note": f"of {name}", "bank_notification_id": received["id"]}
    settled = client.write(f"/v1/bank-messages/{unreadable['id']}/settle", told)
    assert settled.status_code == 200, settled.text
    printed_name = f"{name}네"
    deposit = write("/v1/deposits", {"amount": amount + 100, "depositor_name": name}, 201)
    unknown = {**line, "bank_transaction_id": f"L-{number}", "depositor_name": printed_name, "amount": amount + 100}
    unmatched = write("/v1/bank-notifications", unknown, 201)
    settled = client.write(
        f"/v1/bank-notifications/{unmatched['id']}/match", {"deposit_id": deposit["id"], "remember": True}
    ).json()
    assert settled["learned_name_id"] is not None
    write("/v1/debits", {"amount": 10**9, "reason": name}, 409)
    taken = write("/v1/debits", {"amount": 10, "reason": name}, 201)
    answer = client.write(f"/v1/transactions/{taken['id']}/reverse", {"note": name})
    assert answer.status_code == 201, answer.text
    write("/v1/audit-logs", {"action": "seen", "details": {"name": name, "more": [name]}}, 201)


@dataclass(frozen=True)
class Erased:
    """before, after: table -> rowid -> column -> value. said: what the service and the command printed."""

    database: Path
    before: dict[str, dict[int, dict[str, Any]]]
    after: dict[str, dict[int, dict[str, Any]]]
    said: str
    files: dict[str, bytes]


@pytest.fixture(scope="module")
def erased(tmp_path_factory: pytest.TempPathFactory) -> Erased:
    """A takeover, use of the API, and the erasure of two of the three users beside the running service."""
    folder = tmp_path_factory.mktemp("erased")
    database = folder / "data" / "p.db"
    take_over(bots_file(folder / "bots.sqlite"), database)
    service = LiveService(database, admin_key="").start()
    try:
        client = service.client(made_key(database))
        with contextlib.closing(sqlite3.connect(database)) as connection, connection:
            for number, telegram_id in enumerate((USER, OTHER), 1):
                for answer in answers_without_an_audit_row(number, NAMES[telegram_id]):
                    insert(connection, "idempotency_answers", answer)
        for telegram_id in NAMES:
            use(client, telegram_id)
        before = rows_of(database)
        said = ""
        for telegram_id in (USER, NEW_USER):
            ran = passbook("users", "erase", telegram_id, "--force", "--yes", "--database", str(database))
            assert ran.returncode == 0, ran.stderr
            said += ran.stdout + ran.stderr
        after = rows_of(database)
    finally:
        assert service.stop() == 0, service.said
    files = {path.name: path.read_bytes() for path in database.parent.iterdir() if path.is_file()}
    return Erased(database, before, after, service.said + said, files)


def made_key(database: Path) -> str:
    made = passbook("keys", "create", "--name", "test", "--role", "admin", "--database", str(database))
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def rows_of(database: Path) -> dict[str, dict[int, dict[str, Any]]]:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            table: {
                row["rowid_"]: {key: row[key] for key in row.keys() if key != "rowid_"}  # noqa: SIM118
                for row in connection.execute(f'SELECT rowid AS rowid_, * FROM "{table}"')
            }
            for table in tables
            if not table.startswith(("sqlite_", "_cf_"))
        }


def text_columns(database: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return {
            f"{table}.{column}"
            for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            if not table.startswith(("sqlite_", "_cf_"))
            for _, column, kind, *_ in connection.execute(f'PRAGMA table_info("{table}")')
            if kind != "INTEGER"
        }


def holding(tables: dict[str, dict[int, dict[str, Any]]]) -> set[str]:
    """The columns with something of the user."""
    return {
        f"{table}.{column}"
        for table, rows in tables.items()
        for row in rows.values()
        for column, value in row.items()
        if holds_secret(value)
    }


def test_every_text_column_has_a_case(erased: Erased) -> None:
    """It held something of the user, or it is said why it holds nothing of anybody."""
    explained = {column for column in text_columns(erased.database) if {column, column.split(".")[0]} & {*KEPT}}
    assert text_columns(erased.database) - explained == HOLDS
    assert {name for name in KEPT if not any(f"{column}.".startswith(f"{name}.") for column in explained)} == set()
    assert holding(erased.before) == HOLDS


def test_nothing_of_the_user_is_left_in_any_column(erased: Erased) -> None:
    """Of audit rows known only by user_id or by a row of the user's too."""
    left = {
        f"{table} {rowid}: {row}"
        for table, rows in erased.after.items()
        for rowid, row in rows.items()
        if any(map(holds_secret, row.values()))
    }
    assert left == set()


def test_everybody_elses_data_is_byte_for_byte_whole(erased: Erased) -> None:
    """Only what held something of the user is another value now; a leaf loses its salt, an answer all that it said."""
    wrong = []
    for table, rows in some(erased.before.items()):
        if table == "audit_tree":  # it ends with the row that tells of the erasure
            continue
        now = erased.after[table]
        assert {*now} - {*rows} == set() or table in NEW_ROWS, table
        gone = {rowid for rowid in rows if rowid not in now}
        if table not in DELETED_ROWS:
            assert gone == set(), table
        else:
            assert gone == {rowid for rowid, row in rows.items() if any(map(holds_secret, row.values()))}, table
        for rowid, row in rows.items():
            for column, value in row.items() if rowid in now else ():
                if now[rowid][column] != value and not may_change(erased, table, row, column):
                    wrong.append(f"{table}.{column} of row {rowid}: {value!r} is now {now[rowid][column]!r}")
    assert wrong == []


def may_change(erased: Erased, table: str, row: dict[str, Any], column: str) -> bool:
    if table == "audit_logs" and row["action"] == "bank_message_received":  # it tells the hash of the text
        return any(map(holds_secret, erased.before["bank_messages"][row["resource_id"]].values()))
    if table == "audit_leaves":
        audited = erased.before["audit_logs"][row["audit_log_id"]]
        return column == "salt" and (
            any(map(holds_secret, audited.values())) or may_change(erased, "audit_logs", audited, "details")
        )
    if table == "idempotency_answers":
        return column in {"request", "body", "location"} and (holds_secret(row["request"]) or holds_secret(row["body"]))
    return holds_secret(row[column])


def test_no_free_page_and_no_other_file_holds_anything_of_the_user(erased: Erased) -> None:
    """Pages that fell free are overwritten, the log beside the database is empty; and nothing was printed."""
    data = erased.files[erased.database.name]
    free = free_pages(data)
    assert free
    left = sorted(number for number in free if in_bytes(data[(number - 1) * PAGE : number * PAGE]))
    assert not left, f"the user is in the free pages {left}"
    others = sorted(name for name, held in erased.files.items() if held is not data and in_bytes(held))
    assert not others, f"the user is in the bytes of {others}"
    assert NAMES[USER] not in erased.said


def test_the_file_written_anew_holds_nothing_of_the_user(erased: Erased, tmp_path: Path) -> None:
    """What earlier writes left behind the end of somebody else's long text goes with --vacuum."""
    copy = Path(shutil.copy(erased.database, tmp_path / "copy.db"))
    done = passbook("users", "erase", "--vacuum", "--database", str(copy))
    assert done.returncode == 0, done.stderr
    left = sorted(path.name for path in tmp_path.iterdir() if in_bytes(path.read_bytes()))
    assert not left, f"the user is in the bytes of {left}"


def in_bytes(data: bytes) -> bool:
    return any(secret in data for secret in SECRETS)


def free_pages(data: bytes) -> set[int]:
    """The numbers of SQLite's free pages: https://www.sqlite.org/fileformat.html, 1.5."""
    free, trunk = set(), int.from_bytes(data[32:36])
    while trunk:
        page = data[(trunk - 1) * PAGE : trunk * PAGE]
        following, count = struct.unpack(">II", page[:8])
        free |= {trunk, *struct.unpack(f">{count}I", page[8 : 8 + 4 * count])}
        trunk = following
    return free


def test_the_ledger_is_whole_after_it(erased: Erased) -> None:
    """By both proofs, and by the audit log's own."""
    assert named_by_integrity(erased.database) == {}
    assert broken_invariants(erased.database) == []
    verified = passbook("audit", "verify", "--database", str(erased.database))
    assert verified.returncode == 0, verified.stdout
