"""Backup and restore: what they make, what they refuse, and that a refusal changes nothing. (Faults: tests/faults.)"""

import contextlib
import errno
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from service.cli import main
from service.ledger.timestamps import system_clock
from service.storage import copies, lock, sqlite
from service.storage.backups import back_up
from tests.contents import contents
from tests.ledger_check import broken_invariants
from tests.live import CHECKOUT, PASSBOOK, LiveService, passbook
from tests.some import some
from tests.storage.broken import by_hand, make_sound
from tests.storage.test_importer import MIGRATIONS, make_bots_file, only, read

BROKEN = "UPDATE user_deposits SET balance = balance + 1 WHERE user_id = 900"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound database with one of everything; not to be changed."""
    database = tmp_path_factory.mktemp("sound") / "passbook.db"
    make_sound(database)
    return database


@pytest.fixture
def sound(made: Path, tmp_path: Path) -> Path:
    """A copy of it, alone in its folder."""
    (tmp_path / "data").mkdir()
    return Path(shutil.copy(made, tmp_path / "data" / "passbook.db"))


@pytest.fixture
def copy(sound: Path, tmp_path: Path) -> Path:
    """A backup of it."""
    done = run("backup", "--to", tmp_path / "copy.db", "--database", sound)
    assert done.exit_code == 0, done.stderr
    return tmp_path / "copy.db"


def run(*arguments: object) -> Result:
    """`passbook …` in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refusal(ran: Result) -> str:
    """The one sentence of a command that failed."""
    assert (ran.exit_code, ran.stdout) == (1, "")
    *steps, sentence = ran.stderr.splitlines()
    assert [step for step in steps if not step.endswith(" …")] == []
    assert sentence.startswith("Error: ")
    return sentence


def everything(folder: Path) -> dict[str, bytes]:
    """Name -> bytes of what is below `folder`, but for SQLite's index of a log and lock files."""
    passing = ("-shm", ".lock")
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(passing)
        and not (path.name.endswith("-wal") and path.stat().st_size == 0)
    }  # fmt: skip


def test_a_backup_is_one_plain_file_with_all_that_the_database_holds(sound: Path) -> None:
    """In backups/ beside the database, named by the moment, readable by its owner alone, equal in every row."""
    ran = run("backup", "--database", sound)
    assert ran.exit_code == 0, ran.stderr
    (made,) = (sound.parent / "backups").iterdir()
    assert re.fullmatch(r"passbook-\d{8}T\d{6}Z\.db", made.name)
    assert made.stat().st_mode & 0o777 == 0o600
    assert made.read_bytes()[18:20] == b"\x01\x01", "not in WAL mode"
    assert contents(made) == contents(sound)
    assert only(made.parent, made.name)
    (users, transactions, rows, head) = read(
        made,
        "SELECT (SELECT COUNT(*) FROM users), (SELECT COUNT(*) FROM deposit_transactions), COUNT(*), MAX(id)"
        " FROM audit_logs",
    )[0]
    for told in (
        f"Backed up {sound} to {made}",
        f"size: {made.stat().st_size:,} bytes",
        f"users: {users}",
        f"transactions: {transactions}",
        f"audit rows: {rows}, the last is {head}",
        "It adds up.",
    ):
        assert told in ran.stdout, told
    assert ran.stderr.splitlines() == ["copying …", "proving …", "putting it in place …"]


def test_the_command_that_backup_prints_restores(sound: Path) -> None:
    """What was written after the backup is gone after it, and is in the file that the restore kept."""
    before = contents(sound)
    ran = run("backup", "--database", sound)
    by_hand(sound, "INSERT INTO users (telegram_id) VALUES ('901')")
    after = contents(sound)
    command = shlex.split(ran.stdout.splitlines()[-1].partition(": ")[2])
    assert command[:2] == ["passbook", "restore"]
    done = run(*command[1:])
    assert done.exit_code == 0, done.stderr
    assert contents(sound) == before
    kept = Path(re.search(r"What was there is kept: (\S+)", done.stdout)[1])  # type: ignore[index]
    assert contents(kept) == after
    assert f"Next: passbook serve --database {sound}" in done.stdout


def test_a_backup_into_a_folder_has_the_name_of_its_moment(sound: Path, tmp_path: Path) -> None:
    """--to takes a folder too."""
    assert run("backup", "--to", tmp_path, "--database", sound).exit_code == 0
    assert len(list(tmp_path.glob("passbook-*Z.db"))) == 1


def test_writes_between_two_steps_of_a_copy_are_not_in_it_and_do_not_prolong_it(sound: Path, tmp_path: Path) -> None:
    """Another connection commits after every step: the copy is the first moment's, in as many steps as it has."""
    by_hand(
        sound,
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)"
        " INSERT INTO audit_logs (action, details) SELECT 'padding', hex(randomblob(500)) FROM n;",
    )
    before = contents(sound)
    ((pages,),) = read(sound, "SELECT page_count FROM pragma_page_count")
    writer = sqlite.connect_writer(sound, busy_timeout_ms=0, checkpoints=True)
    reader = sqlite.connect_reader(sound, busy_timeout_ms=0)
    steps = []

    def write(step: str, done: int, total: int) -> None:
        if step == "copying":
            steps.append((done, total))
            assert len(steps) < 100
            writer.execute("INSERT INTO users (telegram_id) VALUES (?)", (f"8{len(steps)}",))

    with contextlib.closing(writer), contextlib.closing(reader):
        made = back_up(reader, tmp_path / "copy.db", MIGRATIONS, system_clock, write, prove=False)
    assert len(steps) == -(-int(pages) // 256)  # type: ignore[call-overload]
    assert len(steps) > 3
    assert contents(made.path) == before
    assert len(contents(sound)) >= len(before) + len(steps)


@pytest.mark.parametrize("arguments", [(), ("--no-proof",)])
def test_a_signal_during_the_check_ends_it_in_one_sentence(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """SIGTERM within a statement of SQLite's is heard before the statement is done; no file is left."""
    connect = sqlite.connect_reader

    def signalled(path: Path, **named: int) -> sqlite.Connection:
        if path != sound:  # the copy is about to be checked
            os.kill(os.getpid(), signal.SIGTERM)
        return connect(path, **named)

    monkeypatch.setattr(copies, "_LOOKS", 10)
    monkeypatch.setattr(sqlite, "connect_reader", signalled)
    said = refusal(run("backup", "--to", tmp_path / "copy.db", *arguments, "--database", sound))
    assert said == "Error: Stopped; nothing was made."
    assert only(tmp_path, "data")


def test_a_disk_without_hard_links_takes_backups_too(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on exFAT, where a link is refused; a name that is taken still is not overwritten."""

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refused)
    made = run("backup", "--to", tmp_path / "copy.db", "--database", sound)
    assert made.exit_code == 0, made.stderr
    assert "is there already" in refusal(run("backup", "--to", tmp_path / "copy.db", "--database", sound))
    assert contents(tmp_path / "copy.db") == contents(sound)
    assert only(tmp_path, "data", "copy.db")


def test_backups_at_the_same_time_do_not_disturb_each_other(sound: Path, tmp_path: Path) -> None:
    """Each has a temporary file of its own and takes no other's for a leftover; of two with one name one is refused."""
    names = ["a.db", "b.db", "c.db", "c.db"]
    running = [
        subprocess.Popen(
            [*PASSBOOK, "backup", "--to", str(tmp_path / name), "--database", str(sound)],
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for name in names
    ]
    codes = [process.wait(60) for process in running]
    assert codes[:2] == [0, 0]
    assert sorted(codes[2:]) == [0, 1]
    assert only(tmp_path, "data", *names)
    assert all(contents(tmp_path / name) == contents(sound) for name in names)


def test_a_backup_of_a_killed_service_has_what_only_the_log_holds(own_service: LiveService, tmp_path: Path) -> None:
    """The database was never checkpointed; the copy is whole, and is made without folding the log into it."""
    own_service.start()
    own_service.client().credit("1", 100)
    own_service.kill()
    before = everything(tmp_path)
    assert before["passbook.db-wal"]
    done = run("backup", "--to", tmp_path / "copy.db", "--database", own_service.database)
    assert done.exit_code == 0, done.stderr
    made = everything(tmp_path)
    made.pop("copy.db")
    assert made == before
    assert read(tmp_path / "copy.db", "SELECT balance FROM user_deposits") == [(100,)]


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("data/passbook.db", "is there already"),
        ("taken.db", "is there already"),
        ("logged.db", "logged.db-wal is there already"),
        ("nowhere/copy.db", "There is no folder"),
        ("data/passbook.db-wal", "SQLite gives to its own files"),
    ],
)
def test_a_backup_overwrites_nothing_and_makes_no_folder(sound: Path, tmp_path: Path, to: str, said: str) -> None:
    """One sentence, and every file is as it was."""
    (tmp_path / "taken.db").write_bytes(b"mine")
    (tmp_path / "logged.db-wal").write_bytes(b"of an earlier one")
    before = everything(tmp_path)
    assert said in refusal(run("backup", "--to", tmp_path / to, "--database", sound))
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "There is no database"), (b"", "database is empty"), (b"text, and not a little of it " * 99, "not a data")],
)
def test_a_backup_of_no_database_is_refused(tmp_path: Path, content: bytes | None, said: str) -> None:
    """Missing, empty or something else: no file."""
    database = tmp_path / "p.db"
    if content is not None:
        database.write_bytes(content)
    assert said in refusal(run("backup", "--to", tmp_path / "copy.db", "--database", database))
    assert only(tmp_path, "p.db")


def test_a_ledger_that_does_not_add_up_is_copied_only_without_the_proof(sound: Path, tmp_path: Path) -> None:
    """The failed check is named and no file is left; --no-proof copies it as it is, and restores it too."""
    by_hand(sound, BROKEN)
    to = tmp_path / "copy.db"
    assert "does not add up: balances (1)" in refusal(run("backup", "--to", to, "--database", sound))
    assert only(tmp_path, "data")
    made = run("backup", "--to", to, "--no-proof", "--database", sound)
    assert (made.exit_code, "Not proved." in made.stdout) == (0, True)
    assert contents(to) == contents(sound)
    other = tmp_path / "other.db"
    assert "does not add up: balances (1)" in refusal(run("restore", to, "--database", other))
    assert not other.exists()
    assert run("restore", to, "--no-proof", "--database", other).exit_code == 0
    assert contents(other) == contents(sound)


def test_a_damaged_page_is_found_with_and_without_the_proof(sound: Path, tmp_path: Path) -> None:
    """The pages are copied as they are; SQLite's own check of the copy finds it."""
    ((page, size),) = read(sound, "SELECT MAX(rootpage), (SELECT page_size FROM pragma_page_size) FROM sqlite_master")
    with sound.open("r+b") as file:
        file.seek((page - 1) * size + 3)  # type: ignore[operator]
        file.write(b"\xff\xff")
    for arguments in ((), ("--no-proof",)):
        refusal(run("backup", "--to", tmp_path / "copy.db", *arguments, "--database", sound))
        assert only(tmp_path, "data")


def test_an_earlier_schema_is_copied_restored_and_sent_to_migrate_up(tmp_path: Path) -> None:
    """A backup before a migration: it cannot be proved, which is said, and the next step is the migration."""
    database, to, other = tmp_path / "p.db", tmp_path / "copy.db", tmp_path / "other.db"
    assert run("migrate", "up", "--to", "5", "--database", database).exit_code == 0
    made = run("backup", "--to", to, "--database", database)
    assert (made.exit_code, "of this program's migrations behind" in made.stdout) == (0, True)
    done = run("restore", to, "--database", other)
    assert done.exit_code == 0, done.stderr
    assert f"Next: passbook migrate up --database {other}" in done.stdout
    assert contents(other) == contents(database)
    assert run("migrate", "up", "--database", other).exit_code == 0


def test_the_bots_own_database_is_copied_too(tmp_path: Path) -> None:
    """The baseline has no audit log; that is no reason to refuse a copy before the first migration."""
    bots = make_bots_file(tmp_path / "bots.db")
    made = run("backup", "--to", tmp_path / "copy.db", "--database", bots)
    assert (made.exit_code, "audit rows: 0, the last is none" in made.stdout) == (0, True), made.stderr


def test_a_restore_is_equal_in_every_row_and_served(copy: Path, sound: Path, tmp_path: Path) -> None:
    """Into a new folder; the backup stays as it was; the service starts on it and writes."""
    before = copy.read_bytes()
    target = tmp_path / "new" / "deep" / "passbook.db"
    done = passbook("restore", str(copy), "--database", str(target))
    assert done.returncode == 0, done.stderr
    assert contents(target) == contents(sound)
    assert copy.read_bytes() == before
    assert target.stat().st_mode & 0o777 == 0o600
    assert only(target.parent, "passbook.db", "passbook.db.lock")
    assert passbook("integrity", "--database", str(target)).returncode == 0
    service = LiveService(target, admin_key="made before").start()
    try:
        assert service.client().get("/v1/deposits").status_code == 401
        service.client(service.make_key("--role", "admin")).credit("1", 100)
    finally:
        assert service.stop() == 0
    assert broken_invariants(target) == []


def test_a_restore_onto_a_served_database_is_refused(service: LiveService, copy: Path) -> None:
    """The service holds its lock; --replace does not help, and it serves on."""
    database = str(service.database)
    for arguments in ((), ("--replace",)):
        said = refusal(run("restore", copy, *arguments, "--database", database))
        assert "is in use by process" in said
        assert "Stop it first" in said
    service.client().credit("1", 100)
    assert only(service.database.parent, *(f"passbook.db{part}" for part in ("", "-wal", "-shm", ".lock")))


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _zeroed(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2].ljust(path.stat().st_size, b"\0"))


def _foreign(path: Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE recipes (id INTEGER)")
        other.commit()


def _newer(path: Path) -> None:
    by_hand(path, "INSERT INTO schema_migrations (version, name, checksum) VALUES (999, 'of_tomorrow', '')")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_truncated, "is cut off"),
        (lambda path: os.truncate(path, path.stat().st_size - 1), "is cut off"),
        (lambda path: os.truncate(path, path.stat().st_size - 4096), "is cut off"),
        (_zeroed, ""),
        (_foreign, "This is not the bot's database"),
        (_newer, "this program knows fewer. Update it."),
        (lambda path: by_hand(path, BROKEN), "does not add up: balances (1)"),
        (lambda path: path.write_text("INSERT INTO users VALUES (1);\n" * 99), "is no SQLite database"),
        (lambda path: path.write_bytes(b""), "is no SQLite database"),
        (Path.unlink, "There is no file"),
    ],
    ids=[
        "truncated",
        "a byte short",
        "a page short",
        "zeroed",
        "foreign",
        "newer",
        "broken",
        "text",
        "empty",
        "missing",
    ],
)
def test_what_is_no_sound_backup_is_refused_before_anything_is_touched(
    sound: Path, copy: Path, tmp_path: Path, spoil: Callable[[Path], Any], said: str
) -> None:
    """Even with --replace: one sentence, and every file is as it was, the file that was refused too."""
    spoil(copy)
    before = everything(tmp_path)
    assert said in refusal(run("restore", copy, "--replace", "--database", sound))
    assert everything(tmp_path) == before


def test_an_existing_database_is_replaced_only_on_demand(sound: Path, copy: Path, tmp_path: Path) -> None:
    """Without --replace it is refused, whatever the file there is; an empty file is no database."""
    for content in (sound.read_bytes(), b"not even a database"):
        sound.write_bytes(content)
        before = everything(tmp_path)
        assert "--replace" in refusal(run("restore", copy, "--database", sound))
        assert everything(tmp_path) == before
    sound.write_bytes(b"")
    assert run("restore", copy, "--database", sound).exit_code == 0
    assert contents(sound) == contents(copy)


def test_the_database_itself_is_no_backup_of_itself(sound: Path, tmp_path: Path) -> None:
    """By any name."""
    link = tmp_path / "link.db"
    link.symlink_to(sound)
    before = everything(tmp_path)
    for file in (sound, link):
        assert "is the database itself" in refusal(run("restore", file, "--replace", "--database", sound))
    assert everything(tmp_path) == before


def test_a_replaced_database_is_kept_whole_with_what_only_its_log_held(
    own_service: LiveService, copy: Path, tmp_path: Path
) -> None:
    """After kill -9 the last writes are in the log alone; the kept file is one plain file that has them."""
    own_service.start()
    own_service.client().credit("1", 100)
    own_service.kill()
    own_service.database.chmod(0o640)
    done = run("restore", copy, "--replace", "--database", own_service.database)
    assert done.exit_code == 0, done.stderr
    (kept,) = tmp_path.glob("passbook.db.before-restore-*")
    assert read(kept, "SELECT balance FROM user_deposits") == [(100,)]
    assert broken_invariants(kept) == []
    assert contents(own_service.database) == contents(copy)
    assert own_service.database.stat().st_mode & 0o777 == 0o600
    assert only(tmp_path, "data", "copy.db", "passbook.db", "passbook.db.lock", kept.name)
    assert run("restore", kept, "--replace", "--database", own_service.database).exit_code == 0
    assert read(own_service.database, "SELECT balance FROM user_deposits") == [(100,)]


def test_the_log_of_a_lost_database_is_not_mixed_into_the_restored_one(
    own_service: LiveService, copy: Path, tmp_path: Path
) -> None:
    """The file was deleted and its -wal and -shm were not: they are gone from beside it, the log kept by a name."""
    own_service.start()
    own_service.client().credit("1", 100)
    own_service.kill()
    own_service.database.unlink()
    log = own_service.database.with_name("passbook.db-wal").read_bytes()
    done = run("restore", copy, "--database", own_service.database)
    assert done.exit_code == 0, done.stderr
    (kept,) = tmp_path.glob("passbook.db.before-restore-*")
    assert (kept.name.endswith("-wal"), kept.read_bytes()) == (True, log)
    assert only(tmp_path, "data", "copy.db", "passbook.db", "passbook.db.lock", kept.name)
    assert contents(own_service.database) == contents(copy)


def test_what_sqlite_cannot_read_is_kept_as_it_is(sound: Path, copy: Path) -> None:
    """The reason to restore: a ruined file, with a log that nobody can replay. Both are kept, byte for byte."""
    ruined = b"ruined" * 999
    log = sound.with_name("passbook.db-wal")
    sound.write_bytes(ruined)
    log.write_bytes(ruined[::-1])
    done = run("restore", copy, "--replace", "--database", sound)
    assert done.exit_code == 0, done.stderr
    kept = sorted(sound.parent.glob("passbook.db.before-restore-*"))
    assert [path.read_bytes() for path in kept] == [ruined, ruined[::-1]]
    assert all(str(path) in done.stdout for path in some(kept))
    assert contents(sound) == contents(copy)
    assert not log.exists()


def test_a_database_that_another_program_has_open_is_not_replaced(sound: Path, copy: Path, tmp_path: Path) -> None:
    """A sqlite3 shell would go on writing into a file that has lost its name."""
    with contextlib.closing(sqlite3.connect(sound)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("SELECT COUNT(*) FROM users").fetchone()
        before = everything(tmp_path)
        # A process of its own: within one, locks of two connections do not see each other.
        refused = passbook("restore", str(copy), "--replace", "--database", str(sound))
        assert (refused.returncode, refused.stdout) == (1, "")
        assert f"Error: Another program has {sound} open; close it first." in refused.stderr
        assert everything(tmp_path) == before
    assert list(tmp_path.rglob("*before-restore*")) == []


def test_a_database_is_restored_where_its_link_leads(sound: Path, copy: Path, tmp_path: Path) -> None:
    """A symbolic link stays one."""
    by_hand(sound, "INSERT INTO users (telegram_id) VALUES ('901')")
    link = tmp_path / "link.db"
    link.symlink_to(sound)
    assert run("restore", copy, "--replace", "--database", link).exit_code == 0
    assert link.is_symlink()
    assert contents(sound) == contents(copy)


def test_a_second_name_that_a_killed_restore_left_is_taken_back(sound: Path, copy: Path) -> None:
    """SQLite wants one name for a file; the next restore, even a refused one, puts that right."""
    second = sound.with_name("passbook.db.before-restore-20260101T000000Z")
    second.hardlink_to(sound)
    refusal(run("restore", copy, "--database", sound))
    assert not second.exists()
    assert sound.stat().st_nlink == 1


def test_nothing_else_rebuilds_while_a_restore_does(sound: Path, copy: Path, tmp_path: Path) -> None:
    """It takes the same lock as the service, a migration and an import."""
    with lock.exclusive(sound):
        assert "is in use by process" in refusal(run("restore", copy, "--replace", "--database", sound))
