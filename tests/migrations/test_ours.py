"""Our own migrations on the real wrangler: the same files, the same schema as by our migrator."""

import sqlite3
from pathlib import Path

from service import resources
from service.storage import migrator
from tests.migrations.d1 import LocalD1, succeeded
from tests.some import some

MIGRATIONS = migrator.load(resources.folder("migrations"))


def _schema(d1: LocalD1) -> dict[str, str]:
    connection = sqlite3.connect(d1.database_file)
    try:
        return migrator.schema_of(connection)
    finally:
        connection.close()


def _stages() -> list[dict[str, str]]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    stages = []
    for migration in MIGRATIONS:
        for statement in migrator.statements(migration.up):
            connection.execute(statement)
        stages.append(migrator.schema_of(connection))
    connection.close()
    return stages


def test_every_migration_and_rollback_runs_on_wrangler(tmp_path: Path, node_modules: Path) -> None:
    """Up one by one and down again one by one, each file by `wrangler d1 execute --file`: every stage as expected."""
    d1 = LocalD1.create(tmp_path / "d1", node_modules)
    stages = _stages()
    folder = Path("migrations")
    for migration in some(MIGRATIONS):
        succeeded(d1.execute_file(folder / f"{migration.name}.sql"))
        assert _schema(d1) == stages[migration.version], migration.name
    refused = d1.execute_command("INSERT INTO user_deposits (user_id, balance) VALUES (999, 1000)")
    assert "an account opens once" in refused.stdout + refused.stderr
    for migration in some(reversed(MIGRATIONS[1:])):
        succeeded(d1.execute_file(folder / f"{migration.version:03d}_rollback.sql"))
        assert _schema(d1) == stages[migration.version - 1], migration.name


def test_unfinished_rollback_order_is_refused(tmp_path: Path, node_modules: Path) -> None:
    """001 cannot be rolled back under later migrations: it says so and changes nothing."""
    d1 = LocalD1.create(tmp_path / "d1", node_modules)
    for migration in MIGRATIONS[:3]:
        succeeded(d1.execute_file(Path("migrations") / f"{migration.name}.sql"))
    before = _schema(d1)
    refused = d1.execute_file(Path("migrations/001_rollback.sql"))
    assert refused.returncode != 0
    assert "stopped" in refused.stdout + refused.stderr
    assert _schema(d1) == before
