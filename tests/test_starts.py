"""How a start begins: never an empty ledger where one was; one sentence where it fails; nothing for others to read."""

import contextlib
import inspect
import os
import re
import shutil
import socket
import sqlite3
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from service.cli import main
from tests.faults.disks import small_disk
from tests.ledger_check import broken_invariants
from tests.live import CHECKOUT, LiveService, passbook
from tests.some import some

_NAMES = ("passbook.db", "passbook.db-wal", "passbook.db-shm")


def _serve(database: Path, *arguments: str, env: dict[str, str] | None = None) -> str:
    """What a start that fails says: one sentence, exit code 1."""
    done = passbook("serve", "--port", "0", "--database", str(database), *arguments, env=env)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def _run_once(service: LiveService) -> None:
    """A ledger with money, a key, a last checkpoint and a backup."""
    client = service.start().client()
    client.credit("1", 100)
    client.get("/v1/audit-logs/checkpoint").raise_for_status()
    assert passbook("backup", "--database", str(service.database)).returncode == 0


def _remove_all_but(service: LiveService, kept: str) -> None:
    folder = service.database.parent
    for path in folder.iterdir():
        if path.name == kept:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize(
    "kept", ["passbook.db.audit-key", "passbook.db.audit-key.checkpoint", "passbook.db-wal", "backups"]
)
def test_a_start_makes_no_ledger_where_one_was(own_service: LiveService, kept: str, *, empty: bool) -> None:
    """Of the files beside it one is enough; check says the same, migrate too, and no file is made."""
    _run_once(own_service)
    own_service.kill()
    _remove_all_but(own_service, kept)
    if empty:
        own_service.database.touch()
    said = _serve(own_service.database)
    assert "something is left of an earlier one" in said
    assert kept in said
    assert "passbook restore FILE" in said
    assert "passbook serve --new" in said
    checked = passbook("check", "--port", "0", "--database", str(own_service.database))
    assert (checked.returncode, "something is left of an earlier one" in checked.stdout) == (1, True)
    migrated = passbook("migrate", "up", "--database", str(own_service.database))
    assert (migrated.returncode, "something is left of an earlier one" in migrated.stderr) == (1, True)
    assert own_service.database.exists() is empty
    assert not empty or own_service.database.stat().st_size == 0


def test_a_lost_ledger_is_restored_as_the_refusal_says(own_service: LiveService) -> None:
    """The money is there again."""
    _run_once(own_service)
    assert own_service.stop() == 0
    own_service.database.unlink()
    assert "backups/passbook-" in _serve(own_service.database)
    (backup,) = (own_service.database.parent / "backups").iterdir()
    assert passbook("restore", str(backup), "--database", str(own_service.database)).returncode == 0
    own_service.start()
    assert own_service.client().get("/v1/users/1/balance").json()["balance"] == 100


def test_a_new_ledger_is_begun_on_purpose_and_keeps_what_is_left(own_service: LiveService, tmp_path: Path) -> None:
    """--new gives the log, the key and the checkpoint other names, makes a key, and is refused where a ledger is."""
    _run_once(own_service)
    own_service.kill()
    own_service.database.unlink()
    log, key = (own_service.database.with_name(f"passbook.db{end}").read_bytes() for end in ("-wal", ".audit-key"))
    new = LiveService(own_service.database, arguments=("--new",))
    new.start()
    try:
        assert new.client().get("/v1/audit-logs").json()["items"][0]["action"] == "api_key_created"
        assert new.said.count("Put aside: ") == 4
        (kept_log,) = tmp_path.glob("passbook.db-wal.before-new-*")
        (kept_key,) = tmp_path.glob("passbook.db.audit-key.before-new-*")
        assert (kept_log.read_bytes(), kept_key.read_bytes()) == (log, key)
        assert (tmp_path / "passbook.db.audit-key").read_bytes() != key
    finally:
        assert new.stop() == 0
    assert "is there: --new begins a ledger only where there is none" in _serve(new.database, "--new")
    again = LiveService(new.database, admin_key=new.admin_key).start()
    assert again.stop() == 0
    assert broken_invariants(new.database) == []


def test_another_ledger_in_the_folder_is_in_nobodys_way(own_service: LiveService) -> None:
    """Its backups are its own."""
    _run_once(own_service)
    other = LiveService(own_service.database.with_name("other.db")).start()
    assert other.stop() == 0


def _rubbish(database: Path) -> None:
    database.write_bytes(b"no database" * 500)


def _folder(database: Path) -> None:
    database.mkdir()


def _newer(database: Path) -> None:
    with contextlib.closing(sqlite3.connect(database)) as hand, hand:
        hand.execute("INSERT INTO schema_migrations (version, name, checksum) VALUES (900, 'x', 'x')")


def _older(database: Path) -> None:
    for path in database.parent.iterdir():
        path.unlink()
    assert passbook("migrate", "up", "--to", "1", "--database", str(database)).returncode == 0


def _lost_key(database: Path) -> None:
    database.with_name("passbook.db.audit-key").unlink()


def _bad_key(database: Path) -> None:
    database.with_name("passbook.db.audit-key").write_text("no key")


def _pipe(database: Path) -> None:
    os.mkfifo(database, 0o644)


def _key_is_a_folder(database: Path) -> None:
    database.with_name("passbook.db.audit-key").mkdir()


def _bad_checkpoint(database: Path) -> None:
    database.with_name("passbook.db.audit-key.checkpoint").write_text("no checkpoint")


def _folder_is_a_file(database: Path) -> None:
    shutil.rmtree(database.parent)
    database.parent.write_text("")


def _cut(database: Path) -> None:
    os.truncate(database, 5000)


def _zeros(database: Path) -> None:
    with database.open("r+b") as file:
        file.write(bytes(file.seek(0, 2)))
        file.seek(0)
        file.write(bytes(8192))


def _extra_trigger(database: Path) -> None:
    with contextlib.closing(sqlite3.connect(database)) as hand, hand:
        hand.execute("CREATE TRIGGER _cf_mine AFTER INSERT ON users BEGIN SELECT 1; END")


def _extra_index(database: Path) -> None:
    with contextlib.closing(sqlite3.connect(database)) as hand, hand:
        hand.execute("CREATE UNIQUE INDEX mine ON users(username)")


def _no_index(database: Path) -> None:
    with contextlib.closing(sqlite3.connect(database)) as hand, hand:
        hand.execute("DROP INDEX idx_transactions_reverses")


def _extra_column(database: Path) -> None:
    with contextlib.closing(sqlite3.connect(database)) as hand, hand:
        hand.execute("ALTER TABLE users ADD COLUMN mine TEXT")


def _view_for_table(database: Path) -> None:
    with contextlib.closing(sqlite3.connect(database)) as hand, hand:
        hand.execute("PRAGMA legacy_alter_table = ON")
        hand.execute("ALTER TABLE import_archive RENAME TO kept")
        hand.execute("CREATE VIEW import_archive AS SELECT * FROM kept")


def _altered_text(database: Path) -> None:
    with contextlib.closing(sqlite3.connect(database)) as hand, hand:
        (sql,) = hand.execute("SELECT sql FROM sqlite_master WHERE name = 'users_open_account'").fetchone()
        hand.execute("DROP TRIGGER users_open_account")
        hand.execute(sql.replace("AFTER INSERT ON users", "AFTER INSERT ON users WHEN NEW.telegram_id <> 'x'"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that was served once, with its key and checkpoint."""
    service = LiveService(tmp_path_factory.mktemp("made") / "passbook.db").start()
    service.client().get("/v1/audit-logs/checkpoint").raise_for_status()
    assert service.stop() == 0
    return service.database


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_rubbish, "not a database"),
        (_cut, r"malformed|not a database|disk image"),
        (_zeros, r"malformed|not a database"),
        (_newer, "at migration 900; this program knows fewer"),
        (_older, "Run: passbook migrate up"),
        (_lost_key, "audit-key is not there, and passbook.db.audit-key.checkpoint was signed with it"),
        (_bad_key, "is no key to sign the audit log with"),
        (_bad_checkpoint, "holds no checkpoint of this key"),
        (_extra_trigger, "The trigger _cf_mine on users is of no migration"),
        (_extra_index, "The index mine on users is of no migration"),
        (_no_index, "The index idx_transactions_reverses is not there"),
        (_extra_column, "The table users is not as it was made"),
        (_view_for_table, "The table import_archive is a view"),
        (_altered_text, "The trigger users_open_account is not as it was made"),
    ],
)
def test_a_start_that_fails_says_one_sentence(
    made: Path, tmp_path: Path, spoil: Callable[[Path], None], said: str
) -> None:
    """No traceback, exit code 1; check finds the same beforehand."""
    database = tmp_path / "data" / "passbook.db"
    shutil.copytree(made.parent, database.parent)
    spoil(database)
    before = {path.name for path in database.parent.iterdir()}
    assert re.search(said, _serve(database))
    made_anew = {path.name for path in database.parent.iterdir()} - before
    assert not made_anew & {"passbook.db", "passbook.db.audit-key"}, f"a start that was refused made {made_anew}"
    checked = passbook("check", "--port", "0", "--database", str(database))
    assert (checked.returncode, bool(re.search(said, checked.stdout))) == (1, True), checked.stdout


WRITES = {
    "keys create": ("--name", "x", "--role", "bot"),
    "keys revoke": ("pbk_00000000",),
    "keys scopes": ("pbk_00000000", "--role", "bot"),
    "users erase": ("--yes", "--vacuum", "1"),
    "audit prune": ("--yes", "--before", "2020-01-01", "--archive", "unmade"),
}
"""What each command that writes beside a service is given."""


def _commands_that_write(group: click.Group, names: tuple[str, ...] = ()) -> Iterator[str]:
    """Those that open the database for writing, by the names that their code uses."""
    context = click.Context(group)
    for name in some(group.list_commands(context)):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _commands_that_write(command, (*names, name))
        elif command.callback is not None and "opened" in inspect.unwrap(command.callback).__code__.co_names:
            yield " ".join((*names, name))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_extra_trigger, "The trigger _cf_mine on users is of no migration"),
        (_no_index, "The index idx_transactions_reverses is not there"),
        (_altered_text, "The trigger users_open_account is not as it was made"),
    ],
)
def test_no_command_writes_where_the_schema_is_another(
    made: Path, tmp_path: Path, spoil: Callable[[Path], None], said: str
) -> None:
    """It refuses by name, as `serve` does, and changes no row; what only reads still answers."""
    database = tmp_path / "data" / "passbook.db"
    shutil.copytree(made.parent, database.parent)
    spoil(database)
    before = _dump(database)
    assert set(_commands_that_write(main)) == set(WRITES)
    for name, arguments in WRITES.items():
        done = CliRunner().invoke(main, [*name.split(), "--database", str(database), *arguments])
        assert (done.exit_code, said in done.stderr) == (1, True), (name, done.output)
        assert _dump(database) == before, name
    listed = CliRunner().invoke(main, ["keys", "list", "--database", str(database)])
    assert (listed.exit_code, "first-admin" in listed.stdout) == (0, True), listed.output


def _dump(database: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return list(connection.iterdump())


@pytest.mark.parametrize("spoil", [_folder, _pipe, _key_is_a_folder, _folder_is_a_file])
def test_what_is_no_file_is_no_start(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """A folder where a file is wanted, a file where a folder is."""
    database = tmp_path / "data" / "passbook.db"
    database.parent.mkdir()
    spoil(database)
    _serve(database)
    assert passbook("check", "--port", "0", "--database", str(database)).returncode == 1


def test_a_taken_port_is_one_sentence_and_makes_nothing(tmp_path: Path) -> None:
    """Neither a database nor the one key that is shown once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        assert "Cannot listen on" in _serve(tmp_path / "data" / "passbook.db", "--port", port)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_leaves_no_empty_ledger(tmp_path: Path) -> None:
    """One sentence, no file, and with space the same start succeeds."""
    with small_disk(tmp_path / "disk", "64k") as disk:
        assert "full" in _serve(disk / "passbook.db")
        assert [path.name for path in disk.iterdir()] == ["passbook.db.lock"]
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        service = LiveService(disk / "passbook.db").start()
        assert service.stop() == 0


def test_a_folder_that_cannot_be_written_to_is_one_sentence(made: Path, tmp_path: Path) -> None:
    """Read-only for everybody, as a file system can be."""
    (tmp_path / "data").mkdir()
    for source in ("data", str(made.parent)):
        target = tmp_path / "data"
        mounted = subprocess.run(["mount", "--bind", tmp_path / source, target], check=False, capture_output=True)
        if mounted.returncode != 0:
            pytest.skip("a folder can be mounted by root only, outside most containers")
        try:
            subprocess.run(["mount", "-o", "remount,bind,ro", target], check=True)
            assert "Read-only file system" in _serve(target / "passbook.db")
        finally:
            subprocess.run(["umount", target], check=True)


def test_a_database_of_wrangler_beside_tables_of_the_bot_is_served(made: Path, tmp_path: Path) -> None:
    """Other whitespace, quotes and comments, D1's own tables, and whatever the bot keeps, with its own triggers."""
    database = tmp_path / "passbook.db"
    with (
        contextlib.closing(sqlite3.connect(made)) as source,
        contextlib.closing(sqlite3.connect(database, isolation_level=None)) as target,
    ):
        source.backup(target)
        target.execute("PRAGMA writable_schema = ON")
        for name, sql in target.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall():
            other = re.sub(r"\n", "\r\n\t /* made by hand */ ", sql).replace("(", "( ", 1)
            target.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (other, name))
        target.execute("PRAGMA writable_schema = RESET")
        target.executescript(
            "CREATE TABLE _cf_KV (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;"
            "CREATE TABLE d1_migrations (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE);"
            "CREATE TABLE menus (id INTEGER PRIMARY KEY, user_id INTEGER REFERENCES users(id));"
            "CREATE INDEX idx_menus ON menus(user_id);"
            "CREATE TRIGGER menus_stay BEFORE DELETE ON menus BEGIN SELECT RAISE(ABORT, 'no'); END;"
            "CREATE VIEW rich AS SELECT * FROM user_deposits WHERE balance > 1000;"
            "ANALYZE;"
        )
    assert passbook("check", "--port", "0", "--database", str(database)).returncode == 0
    service = LiveService(database, admin_key="none").start()
    assert service.client("").get("/readyz").status_code == 200
    assert service.stop() == 0


def _modes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}


def test_nothing_that_is_made_can_be_read_by_others(own_service: LiveService, tmp_path: Path) -> None:
    """Whatever the umask: all that any command makes, and the folders that it is in."""
    before = os.umask(0)
    try:
        folder = tmp_path / "made" / "deep"
        own_service.database = folder / "passbook.db"
        _run_once(own_service)
        database = str(own_service.database)
        assert set(_NAMES) < {path.name for path in folder.iterdir()}
        now = own_service.client().get("/v1/audit-logs").json()["items"][0]["created_at"]
        own_service.client().credit("1", 100)
        for command in (
            ("export", str(folder / "export.sql")),
            ("audit", "export", "--output", str(folder / "log.ndjson")),
            ("audit", "export", "--sealed", "--output", str(folder / "sealed.ndjson")),
            ("audit", "prune", "--before", now, "--archive", str(folder / "archive.ndjson"), "--yes"),
        ):
            done = passbook(*command, "--database", database)
            assert done.returncode == 0, done.stderr
        imported = folder / "new" / "imported.db"
        source = str(folder / "export.sql")
        done = passbook("import", source, "--report", str(folder / "report.ndjson"), "--database", str(imported))
        assert done.returncode == 0, done.stderr
        assert own_service.stop() == 0
        for command in (
            ("migrate", "down", "--yes", "--database", str(imported)),
            ("migrate", "up", "--database", str(imported)),
            ("restore", str(next((folder / "backups").iterdir())), "--replace", "--database", database),
        ):
            done = passbook(*command)
            assert done.returncode == 0, done.stderr
    finally:
        os.umask(before)
    found = _modes(tmp_path)
    assert len(found) > 15
    assert {name: oct(mode) for name, mode in found.items() if mode & 0o077} == {}


def test_a_start_makes_private_what_an_earlier_version_left_open(own_service: LiveService) -> None:
    """It says so, file by file; check tells beforehand. Nothing is said of what is private already."""
    _run_once(own_service)
    own_service.kill()
    folder = own_service.database.parent
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert own_service.database in files
    for path in files:
        path.chmod(0o644)
    checked = passbook("check", "--port", "0", "--database", str(own_service.database))
    assert (checked.returncode, f"{own_service.database} can be read by others" in checked.stdout) == (0, True)
    own_service.start()
    for path in some(files):
        assert f"{path} could be read by others (mode 0644); it is private now." in own_service.said, path
        assert not path.exists() or stat.S_IMODE(path.stat().st_mode) == 0o600
    assert own_service.stop() == 0
    own_service.start()
    assert "could be read" not in own_service.said


@pytest.mark.parametrize(
    ("variables", "arguments", "served"),
    [
        ({"PASSBOOK_DATABASE": "elsewhere/a.db"}, [], ["--database", ""]),
        ({}, ["DATABASE=data/b c.db"], ["--database", "data/b c.db"]),
        ({"PASSBOOK_DATABASE": "a.db"}, ["DATABASE=b.db"], ["--database", "b.db"]),
    ],
)
def test_make_serve_serves_the_database_that_it_is_told(
    variables: dict[str, str], arguments: list[str], served: list[str]
) -> None:
    """PASSBOOK_DATABASE counts as PASSBOOK_PORT does, and DATABASE= comes before it."""
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE"} | variables
    printed = subprocess.run(
        ["make", "-n", "-o", ".venv/.installed", "serve", *arguments],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (line,) = [line for line in printed.splitlines() if "passbook serve" in line]
    option, value = served
    assert line.partition("passbook serve")[2].strip() == (f'{option} "{value}"' if value else "")
