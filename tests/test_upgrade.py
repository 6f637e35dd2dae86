"""The database of each release is taken further by today's version, and nothing in it is lost."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from service import __version__, resources
from service.storage import migrator
from tests.live import CHECKOUT, LiveService, passbook
from tests.releases.make import restored
from tests.some import some

RELEASES = sorted((CHECKOUT / "tests/releases").glob("*.sql"))
OWN = {"schema_migrations"}
"""Tables in which a migration writes about itself."""


def _rows(database: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of each table, by column, in the order of the file."""
    with closing(sqlite3.connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        return {name: [dict(row) for row in connection.execute(f'SELECT * FROM "{name}"')] for (name,) in names}


def _lost(before: dict[str, list[dict[str, Any]]], after: dict[str, list[dict[str, Any]]]) -> list[str]:
    """The rows that are not there any more with all that they said; what is new beside them is no loss."""
    missing = []
    for table in before.keys() - OWN:
        now = after.get(table, [])
        kept = {tuple(sorted((name, repr(row[name])) for name in was)) for was in before[table][:1] for row in now}
        missing += [
            f"{table}: {was}"
            for was in before[table]
            if tuple(sorted((n, repr(v)) for n, v in was.items())) not in kept
        ]
    return missing


def test_each_release_has_its_database() -> None:
    """A version that the changelog dates is released: a database of it is kept, so that no upgrade is forgotten."""
    dated = re.findall(
        r"^## (\d+\.\d+\.\d+) – \d{4}-\d{2}-\d{2}$", (CHECKOUT / "CHANGELOG.md").read_text("utf-8"), re.M
    )
    assert {path.stem for path in RELEASES} >= {*dated, "0.1.0"}, "python -m tests.releases.make (RELEASING.md)"


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.stem)
def test_a_kept_database_has_rows_of_every_table(release: Path, tmp_path: Path) -> None:
    """An empty table would prove nothing of its migration."""
    tables = _rows(restored(release, tmp_path / "p.db"))
    assert tables["deposit_transactions"]
    assert [name for name, rows in tables.items() if not rows] == []


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.stem)
def test_the_database_of_a_release_is_upgraded_whole_and_served(release: Path, tmp_path: Path) -> None:
    """Every row is there with what it said, the proofs hold, and the service answers what the rows say."""
    live = LiveService(restored(release, tmp_path / "passbook.db"))
    before = _rows(live.database)
    version = max(row["version"] for row in before["schema_migrations"])
    latest = migrator.load(resources.folder("migrations"))[-1].version
    up = passbook("migrate", "up", "--database", str(live.database))
    assert up.returncode == 0, up.stdout + up.stderr
    after = _rows(live.database)
    assert {row["version"] for row in after["schema_migrations"]} >= {*range(version, latest + 1)}
    assert _lost(before, after) == []
    for command in (("migrate", "verify"), ("integrity",), ("audit", "verify")):
        done = passbook(*command, "--database", str(live.database))
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    live.admin_key = live.make_key("--role", "admin")
    client = live.start().client()
    assert client.get("/readyz").json()["version"] == __version__
    balances = {row["user_id"]: row["balance"] for row in before["user_deposits"]}
    held = [row for row in before["users"] if row["id"] in balances and row["telegram_id"]]
    assert len(held) > 1
    for row in some(held[:3]):
        told = client.get(f"/v1/users/{row['telegram_id']}/balance")
        assert told.status_code == 200, told.text
        assert told.json()["balance"] == balances[row["id"]]
    assert live.stop() == 0, live.said


def test_a_row_that_an_upgrade_loses_or_changes_is_named(tmp_path: Path) -> None:
    """The comparison of this file, put to the test: a new column is no loss, another value is one."""
    database = restored(RELEASES[0], tmp_path / "p.db")
    before = _rows(database)
    with closing(sqlite3.connect(database)) as hand:
        hand.execute("ALTER TABLE users ADD COLUMN added_later TEXT")
        hand.commit()
    assert _lost(before, _rows(database)) == []
    for trigger in _triggers(database):
        _by_hand(database, f"DROP TRIGGER {trigger}")
    _by_hand(database, "UPDATE users SET username = 'another' WHERE id = 1")
    _by_hand(database, "DELETE FROM learned_names")
    assert {line.partition(":")[0] for line in _lost(before, _rows(database))} == {"users", "learned_names"}


def _triggers(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")]


def _by_hand(database: Path, sql: str) -> None:
    with closing(sqlite3.connect(database)) as hand:
        hand.execute(sql)
        hand.commit()
