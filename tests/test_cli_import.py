"""`passbook import`: what it says of what came over, and what --status takes."""

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from service.cli import main
from service.cli.imports import _say
from service.storage import sqlite
from service.storage.import_findings import EXAMPLES_MAX
from service.storage.importer import ImportReport

NOTHING = ImportReport(
    tables={},
    left_aside=[],
    archived=[],
    balances_rejected=0,
    names_truncated=0,
    opening_entries=0,
    openings=[],
    accounts_removed=0,
    times_respelled=0,
    numbers_retyped=0,
    values_mended=0,
    statuses_mapped={},
    unknown_statuses={},
    unreachable_users=0,
    unreachable_examples=[],
    padded_users=0,
    padded_examples=[],
    types_told={},
    unknown_types=[],
    domains_registered=0,
    by_order=[],
    doubts=[],
)
IN_LOG = "Each of these, but for times and types, is in the audit log with the old value."
SAID = {
    "left_aside": (["recipes (7)", "trigger t"], "  left aside: recipes (7), trigger t"),
    "archived": (["users.mood (3)"], "  unknown columns, kept in import_archive: users.mood (3)"),
    "balances_rejected": (1_001, f"  negative balances rejected: 1,001\n{IN_LOG}"),
    "names_truncated": (1_002, f"  long depositor names cut: 1,002\n{IN_LOG}"),
    "accounts_removed": (1_003, f"  accounts without a user removed: 1,003\n{IN_LOG}"),
    "opening_entries": (1_004, f"  balances that needed an opening entry: 1,004\n    … and 984 more\n{IN_LOG}"),
    "openings": (["user 1: a", "user 2: b"], "    user 1: a\n    user 2: b"),
    "values_mended": (1_005, f"  values mended: 1,005\n{IN_LOG}"),
    "times_respelled": (1_006, "  times spelled anew: 1,006"),
    "numbers_retyped": (1_007, "  numbers of another type: 1,007"),
    "statuses_mapped": ({"done": 1_008}, "  status 'done' mapped: 1,008 transactions"),
    "unknown_statuses": (
        {"to do": 1_009},
        "  unknown status 'to do': 1,009 transactions, kept as they are and counted as no money (where they were, the"
        " balance needed an opening entry; else say what it means: import anew with --status 'to do'=MEANING)",
    ),
    "unreachable_users": (1_010, "  unreachable users: 1,010 (no telegram_id of digits: , …)"),
    "padded_users": (
        1_011,
        "  users whose telegram_id begins with 0: 1,011 (, …); they stay reachable, and no new user gets such an id",
    ),
    "unknown_types": (
        ["gift (2)"],
        "  unknown transaction types, counted as credits: gift (2); where one is money that left, import anew with"
        " --type NAME=debit",
    ),
    "types_told": ({"출금": "debit (2)"}, "  type '출금' counted as debit (2)"),
    "domains_registered": (1_012, "  domain names without a status, taken as registered: 1,012"),
    "by_order": (["users", "x"], "  taken in the baseline's order of columns, as the export names none: users, x"),
    "doubts": (["It ends early."], "  Warning: It ends early."),
}  # fmt: skip
"""Of each member of the report: a value, and the lines that it changes."""
SAID_ONLY_IF_THERE = {
    *("openings", "statuses_mapped", "unknown_statuses", "unreachable_users", "padded_users"),
    *("types_told", "unknown_types", "domains_registered", "by_order", "doubts"),
}
"""Members of which nothing is said where there are none."""
SAID_WITH_OTHERS = {"tables", "unreachable_examples", "padded_examples"}


def _lines(report: ImportReport, capsys: pytest.CaptureFixture[str]) -> list[str]:
    _say(report)
    return capsys.readouterr().out.splitlines()


def test_every_member_of_the_report_has_a_line() -> None:
    """But for the examples, which stand beside their number, and the tables, which are told as one sum."""
    assert {field.name for field in msgspec.structs.fields(ImportReport)} == SAID.keys() | SAID_WITH_OTHERS


@pytest.mark.parametrize("name", SAID)
def test_what_came_over_is_said(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each member changes its own lines and no other."""
    value, said = SAID[name]
    before = _lines(NOTHING, capsys)
    after = _lines(msgspec.structs.replace(NOTHING, **{name: value}), capsys)
    assert [line for line in after if line not in before] == said.splitlines()
    assert len([line for line in before if line not in after]) == (name not in SAID_ONLY_IF_THERE)


def test_examples_end_with_a_mark_where_there_are_more(capsys: pytest.CaptureFixture[str]) -> None:
    """Of users who cannot be reached and of ids that begin with 0; of openings, from one more than are shown."""
    for number, mark in ((2, ""), (3, ", …")):
        counted = msgspec.structs.replace(NOTHING, unreachable_users=number, padded_users=number)
        report = msgspec.structs.replace(counted, unreachable_examples=["a", "b"], padded_examples=["01", "02"])
        unreachable, padded = _lines(report, capsys)[-2:]
        assert unreachable == f"  unreachable users: {number} (no telegram_id of digits: a, b{mark})"
        assert padded.startswith(f"  users whose telegram_id begins with 0: {number} (01, 02{mark}); ")
    for number, more in ((EXAMPLES_MAX, []), (EXAMPLES_MAX + 1, ["    … and 1 more"])):
        lines = _lines(msgspec.structs.replace(NOTHING, opening_entries=number), capsys)
        assert [line for line in lines if "more" in line] == more


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["done"], "'done' is not WORD=STATUS with one of"),
        (["=confirmed"], "'=confirmed' is not WORD=STATUS with one of"),
        (["done=paid"], "'done=paid' is not WORD=STATUS with one of"),
        (["confirmed=pending"], "confirmed is a status of Passbook's and keeps its meaning."),
        (["done=confirmed", "done=pending"], "done is given two meanings."),
    ],
)
def test_a_status_that_cannot_be_mapped_is_refused(given: list[str], said: str, tmp_path: Path) -> None:
    """Exit code 2, before anything is read or made."""
    arguments = [part for pair in given for part in ("--status", pair)]
    refused = CliRunner().invoke(main, ["import", *arguments, "--database", str(tmp_path / "p.db"), "missing.sql"])
    assert (refused.exit_code, said in refused.output) == (2, True), refused.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["fee"], "'fee' is not NAME=debit or NAME=credit."),
        (["=debit"], "'=debit' is not NAME=debit or NAME=credit."),
        (["gift=out"], "'gift=out' is not NAME=debit or NAME=credit."),
        (["withdrawal=credit"], "withdrawal is a debit and stays one."),
        (["환불=debit"], "환불 is a credit and stays one."),
        (["gift=debit", "gift=credit"], "gift is given two directions."),
    ],
)
def test_a_type_that_cannot_be_told_is_refused(given: list[str], said: str, tmp_path: Path) -> None:
    """Exit code 2, before anything is read or made."""
    arguments = [part for pair in given for part in ("--type", pair)]
    refused = CliRunner().invoke(main, ["import", *arguments, "--database", str(tmp_path / "p.db"), "missing.sql"])
    assert (refused.exit_code, said in refused.output) == (2, True), refused.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["p.db-wal", "p.db-shm", "p.db.audit-key", "p.db.audit-key.checkpoint", "p.db.backup-20260101_000000"]
)
def test_an_import_beside_what_is_left_of_another_ledger_is_refused(tmp_path: Path, name: str) -> None:
    """One sentence that names the file, as `serve` has, and nothing made: the ledger that was there may be missed."""
    left = tmp_path / name
    left.write_bytes(sqlite.MAGIC if "backup" in name else b"what is left")
    (tmp_path / "bot.sql").write_text("CREATE TABLE users (id INTEGER PRIMARY KEY);")
    done = CliRunner().invoke(main, ["import", "--database", str(tmp_path / "p.db"), str(tmp_path / "bot.sql")])
    assert (done.exit_code, f"something is left of an earlier one ({left})" in done.output) == (1, True), done.output
    assert "passbook restore FILE" in done.output
    assert "to begin anew with this import, move them away first" in done.output
    assert {path.name for path in tmp_path.iterdir()} == {left.name, "bot.sql"}
