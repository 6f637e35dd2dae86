"""The bot's words: each type has its direction, a rejected deposit never counted, a name without a status is owned."""

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from service.ledger.deposits import DepositFilter
from service.ledger.transactions import Direction
from service.storage import deposits, import_words, sqlite
from service.storage.import_findings import Findings
from service.storage.importer import ImportFailed, ImportReport, import_database
from tests.ledger_check import broken_invariants
from tests.storage.test_importer import (
    ACCOUNT,
    MIGRATIONS,
    SCHEMA,
    USER,
    archived,
    export,
    moved,
    only,
    read,
    take_over,
    take_over_text,
)

SEED = Path(__file__).parents[1] / "migrations" / "seed_bot.sql"
"""The bot's database rebuilt from what its public history tells; the rows are made up."""


def take_over_with(folder: Path, text: str, types: Mapping[str, Direction]) -> ImportReport:
    """The import of an export that says `text`, to p.db, listing in list.ndjson; it must be sound."""
    report = import_database(
        export(folder, text),
        folder / "p.db",
        MIGRATIONS,
        lambda _: None,
        types=types,
        findings=Findings(folder / "list.ndjson"),
    )
    assert broken_invariants(folder / "p.db") == []
    return report


def listed(folder: Path) -> list[dict[str, object]]:
    """The lines of list.ndjson."""
    return [json.loads(line) for line in (folder / "list.ndjson").read_text("utf-8").splitlines()]


def test_the_real_database_comes_over_whole(tmp_path: Path) -> None:
    """Not a row is lost, no balance differs, nothing is made up, and every value without a column is archived."""
    with closing(sqlite3.connect(tmp_path / "bot.sqlite")) as bot:
        bot.executescript(SEED.read_text("utf-8"))
        bot.commit()
    report = take_over(SEED, tmp_path / "p.db")
    assert broken_invariants(tmp_path / "p.db") == []
    for table in ("users", "deposit_transactions", "bank_notifications"):
        count = f"SELECT COUNT(*) FROM {table}"
        assert read(tmp_path / "p.db", count) == read(tmp_path / "bot.sqlite", count)
    columns = "id, user_id, type, amount, status, depositor_name, description, confirmed_at, created_at"
    rows = f"SELECT {columns} FROM deposit_transactions ORDER BY id"
    assert read(tmp_path / "p.db", rows) == read(tmp_path / "bot.sqlite", rows) != []
    balances = "SELECT user_id, balance FROM user_deposits WHERE user_id < 3 ORDER BY user_id"
    assert read(tmp_path / "p.db", balances) == read(tmp_path / "bot.sqlite", balances) == [(1, 39000), (2, 0)]
    assert (report.opening_entries, report.unknown_statuses, report.unknown_types) == (0, {}, [])
    domain = read(tmp_path / "p.db", "SELECT domain, status, price, registered_at FROM user_domains")
    assert domain == [("example.com", "registered", None, "2026-01-17 03:40:01")]
    assert report.domains_registered == 1
    assert ("user_deposits", 1, {"updated_at": "2026-01-20 00:00:00", "version": 4}) in archived(tmp_path)


def test_a_rejected_deposit_is_listed_and_never_counts(tmp_path: Path) -> None:
    """It has its own status and its place in the list of that status; nobody can say that it means something else."""
    take_over(SEED, tmp_path / "p.db")
    with closing(sqlite.connect_reader(tmp_path / "p.db", busy_timeout_ms=0)) as tx:
        found = deposits.list_newest(tx, DepositFilter(status="rejected"), before_id=2**53, limit=9).items
    assert [(one.id, one.telegram_id, one.amount, one.status) for one in found] == [(3, "123456", 5000, "rejected")]


@pytest.mark.parametrize(
    ("word", "told", "direction", "kept"),
    [
        ("withdrawal", {}, "debit", "withdrawal"),
        ("refund", {}, "credit", "refund"),
        ("출금", {}, "debit", "출금"),
        ("환불", {}, "credit", "환불"),
        ("입금", {}, "credit", "deposit"),
        ("도메인 '구매'", {"도메인 '구매'": Direction.DEBIT}, "debit", "도메인 '구매'"),
        ("선물", {"선물": Direction.CREDIT}, "credit", "선물"),
    ],
)
def test_every_type_has_its_direction(
    tmp_path: Path, word: str, told: dict[str, Direction], direction: str, kept: str
) -> None:
    """The balance is the sum of the history, so that no opening entry is needed; amounts stay as they are."""
    balance = 8000 if direction == "credit" else 2000
    text = SCHEMA + USER + ACCOUNT.replace("5000", str(balance)) + moved(1)
    text += moved(2, "3000", kind=word.replace("'", "''"))
    report = take_over_with(tmp_path, text, told)
    assert (report.opening_entries, report.unknown_types) == (0, []), report.openings
    rows = read(tmp_path / "p.db", "SELECT type, direction, amount FROM deposit_transactions WHERE id = 2")
    assert rows == [(kept, direction, 3000)]
    known_to_003 = word in {"withdrawal", "refund"}
    counted = "deposit" if word == "입금" else direction
    assert report.types_told == ({} if known_to_003 else {word: f"{counted} (1)"})
    assert [line["details"] for line in listed(tmp_path) if line["kind"] == "type_told"] == (
        [] if known_to_003 else [{"type": word, "counted_as": counted, "rows": 1}]
    )


def test_a_deposit_in_the_bots_word_is_one(tmp_path: Path) -> None:
    """One that waits can be confirmed, as what has Passbook's word; the bot's word is in the archive."""
    take_over_text(tmp_path, SCHEMA + USER + ACCOUNT + moved(1) + moved(2, "700", kind="입금", status="pending"))
    with closing(sqlite.connect_reader(tmp_path / "p.db", busy_timeout_ms=0)) as tx:
        found = deposits.find(tx, 2)
    assert found is not None
    assert (found.status, found.amount) == ("pending", 700)
    assert archived(tmp_path) == [("deposit_transactions", 2, {"type": "입금"})]


def test_a_negative_amount_leaves_whatever_is_said_of_its_type(tmp_path: Path) -> None:
    """A sign says more than a word."""
    text = SCHEMA + USER + ACCOUNT.replace("5000", "4000") + moved(1) + moved(2, "-1000", kind="adjustment")
    report = take_over_with(tmp_path, text, {"adjustment": Direction.CREDIT})
    assert report.opening_entries == 0
    assert read(tmp_path / "p.db", "SELECT direction, amount FROM deposit_transactions WHERE id = 2") == [
        ("debit", 1000)
    ]


def test_debits_of_told_types_count_against_the_bound(tmp_path: Path) -> None:
    """What came in adds up to the most and is spent by a type that is told: it is taken, not refused."""
    most = str(2**53 - 1)
    text = SCHEMA + USER + ACCOUNT.replace("5000", "0") + moved(1, most) + moved(2, most, kind="hosting")
    assert take_over_with(tmp_path, text, {"hosting": Direction.DEBIT}).opening_entries == 0


def test_type_that_no_row_has_is_a_typing_error(tmp_path: Path) -> None:
    """Nothing is made."""
    with pytest.raises(ImportFailed, match="No transaction has the type 'hostnig' that --type names"):
        take_over_with(tmp_path, SCHEMA + USER + ACCOUNT + moved(1), {"hostnig": Direction.DEBIT})
    assert only(tmp_path, "d1.sql", "p.db.lock")


def test_the_report_lists_every_user_and_value_that_the_terminal_counts(tmp_path: Path) -> None:
    """Users whom the API cannot name, times and numbers spelled anew, and types that nothing says anything of."""
    text = SCHEMA + USER + ACCOUNT + moved(1, "5000.0", when="'2026-01-01T00:00:00Z'") + moved(2, "0", kind="gift")
    for number, telegram_id in ((2, "-100200300"), (3, "tg:77"), (4, "0042")):
        text += USER.replace("(1,'111'", f"({number},'{telegram_id}'")
    report = take_over_with(tmp_path, text, {})
    lines = listed(tmp_path)
    unreachable = [(line["row"], line["value"]) for line in lines if line["kind"] == "unreachable_user"]
    assert unreachable == [(2, "-100200300"), (3, "tg:77")]
    assert report.unreachable_users == 2
    counted = {
        kind: len([1 for line in lines if line["kind"] == kind]) for kind in sorted({str(x["kind"]) for x in lines})
    }
    assert counted == {
        "padded_telegram_id": report.padded_users,
        "time_respelled": report.times_respelled,
        "unknown_type": len(report.unknown_types),
        "unreachable_user": report.unreachable_users,
    }
    assert min(counted.values()) > 0


def test_003_is_taught_and_its_record_is_the_same() -> None:
    """The import runs more words than the file has; what goes on record is the file."""
    taught = import_words.taught(MIGRATIONS, {"it's": Direction.DEBIT, "gift": Direction.CREDIT})
    assert "type IN ('it''s', '출금')" in taught[3].up
    assert [(one.version, one.name, one.checksum, one.down) for one in taught] == [
        (one.version, one.name, one.checksum, one.down) for one in MIGRATIONS
    ]
    assert [one.up for one in taught if one.version != 3] == [one.up for one in MIGRATIONS if one.version != 3]
