"""The generated bot database is what its summary says, also after a trip through the export."""

import sqlite3
from pathlib import Path

from tests.migrations.d1 import TABLES, LocalD1, build_bot_database
from tests.some import some


def test_bot_database_and_its_export_hold_what_the_summary_says(tmp_path: Path, node_modules: Path) -> None:
    """Counts, balances, names and texts read back from the export by another SQLite equal the summary and the D1."""
    d1 = LocalD1.create(tmp_path / "d1", node_modules)
    bot = build_bot_database(d1, users=300, seed=1)
    with sqlite3.connect(":memory:", isolation_level=None) as copy:
        copy.executescript(bot.export.read_text(encoding="utf-8"))
        for table in some(TABLES):
            rows = copy.execute(f"SELECT * FROM {table} ORDER BY id").fetchall()
            assert len(rows) == bot.row_counts[table]
            assert rows == d1.read(f"SELECT * FROM {table} ORDER BY id")
        assert dict(copy.execute("SELECT user_id, balance FROM user_deposits")) == bot.balances
        assert dict(copy.execute("SELECT id, username FROM users")) == bot.usernames
        counts = copy.execute("SELECT type, status, COUNT(*) FROM deposit_transactions GROUP BY type, status")
        assert {(kind, status): count for kind, status, count in counts} == bot.transaction_counts
        assert copy.execute("SELECT id, user_id, balance FROM user_deposits WHERE balance < 0").fetchall() == [
            bot.negative_account
        ]
        assert copy.execute(
            "SELECT id, depositor_name FROM deposit_transactions WHERE length(depositor_name) > 50"
        ).fetchall() == [bot.long_name]
        assert copy.execute("SELECT id FROM users WHERE id NOT IN (SELECT user_id FROM user_deposits)").fetchall() == [
            (bot.user_id_without_account,)
        ]
        texts = copy.execute("SELECT id, raw_message FROM bank_notifications WHERE instr(raw_message, char(10)) > 0")
        assert dict(texts) == bot.texts_with_newline
        sums = copy.execute(
            "SELECT user_id, SUM(iif(type = 'deposit', amount, -amount)) FROM deposit_transactions"
            " WHERE status = 'confirmed' GROUP BY user_id"
        )
        assert dict(sums) == {user_id: total for user_id, total in bot.history_sums.items() if total}
    copy.close()
    assert 1 in bot.mismatched_user_ids
    assert 5 < len(bot.mismatched_user_ids) < 40
    assert sum(bot.row_counts.values()) > 2500
