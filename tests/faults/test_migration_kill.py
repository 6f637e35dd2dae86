"""A migration killed anywhere and started again ends as one that nobody disturbed.

Killed before and after every statement, in a forked process, and at write system calls of the whole `passbook migrate`,
by strace. A sample of the points runs with every test run. With FAULTS_SAMPLE it is every statement and so many of each
system call (`make faults`); with FAULTS=full it is all of them (`make faults-long`).
"""

import contextlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest

from service import resources
from service.storage import migrator, sqlite
from tests.faults.tracing import SYNCS
from tests.live import CHECKOUT, PASSBOOK, passbook
from tests.rows import all_rows
from tests.some import some
from tests.storage.test_importer import make_bots_file

MIGRATIONS = migrator.load(resources.folder("migrations"))
SEED = CHECKOUT / "tests" / "migrations" / "seed_bot.sql"
"""The bot's database as its public history tells of it."""
LATEST = len(MIGRATIONS) - 1
FULL = os.environ.get("FAULTS") == "full"
SYSCALLS = ("pwrite64", SYNCS, "ftruncate", "unlink", "link", "fchmod")
CHANGES_FILES = (
    r"/^(p?writev?(64|2)?|pwritev2?|f?truncate(64)?|fallocate|rename.*|link(at)?|symlink.*|unlink.*|mkdir.*|rmdir|mknod.*"
    r"|f?chmod.*|[fl]?chown.*|utime.*|futimesat|copy_file_range|sendfile.*|splice|[fl]?setxattr|[fl]?removexattr"
    r"|f(data)?sync|sync.*|msync|open.*|creat)$"
)
"""The system calls that change a file or make one, as strace chooses them."""
BESIDE = {
    "openat": "what it makes is empty, and the next call is one of those",
    "fchown": "root gives a file its owner right after its mode",
}
"""Those of them at which nothing is killed, and why."""
SAMPLE = int(os.environ.get("FAULTS_SAMPLE") or 3)
"""Kill points for each system call when not FULL; the first and the last are among them."""
EACH_STATEMENT = FULL or "FAULTS_SAMPLE" in os.environ


def state(database: Path) -> tuple[Any, ...]:
    """Schema, rows, high ids and soundness; without the moments at which rows were made by the migrations."""
    connection = sqlite3.connect(database)
    try:
        schema = connection.execute(
            "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"
        ).fetchall()
        rows = {
            table: [
                tuple(value for value in row if not re.fullmatch(r"2\d{3}-\d\d-\d\d \S+", str(value))) for row in found
            ]
            for table, found in all_rows(connection).items()
        }
        # Each run seals with salts of its own: the leaves differ, and all hashes over them.
        for table, kept in (("audit_leaves", 2), ("audit_tree", 3)):
            if table in rows:
                rows[table] = [row[:kept] for row in rows[table]]
        rows["sqlite_sequence"] = connection.execute("SELECT * FROM sqlite_sequence ORDER BY name").fetchall()
        applied = []
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'schema_migrations'").fetchone():
            applied = connection.execute("SELECT version, name, checksum FROM schema_migrations").fetchall()
        return schema, rows, applied, connection.execute("PRAGMA integrity_check").fetchall()
    finally:
        connection.close()


class _Killing:
    """A connection that kills its process instead of running its Nth statement."""

    def __init__(self, connection: sqlite.Connection, *, at: int) -> None:
        self._connection = connection
        self._left = at

    def execute(self, *arguments: Any) -> Any:
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1
        return self._connection.execute(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def migrate(connection: Any, *, up: bool) -> None:
    """All the way up, or all the way down."""
    if up:
        migrator.up(connection, MIGRATIONS, lambda _: None)
    else:
        migrator.down(connection, MIGRATIONS, lambda _: None, to=0)


def open_for_work(database: Path) -> sqlite.Connection:
    """As the command line opens it; without waiting for the disk, which a killed process does not lose."""
    connection = sqlite.connect_writer(database, busy_timeout_ms=0, checkpoints=True)
    connection.execute("PRAGMA synchronous = OFF")
    return connection


def killed(database: Path, *, at: int, up: bool) -> bool:
    """Whether a process of its own was killed before its statement number `at`; False when it ended before."""
    pid = os.fork()
    if pid == 0:
        try:
            migrate(_Killing(open_for_work(database), at=at), up=up)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_killed_at_every_statement_of_an_adoption_and_run_again_is_as_undisturbed(tmp_path: Path) -> None:
    """The bot's real tables become those of 000 first: as they were or as 000 has them, with every row and archived
    value; and whatever was reached, the next run ends as one that nobody disturbed."""
    start, target = bots_own(tmp_path / "start.db", users=10), tmp_path / "killed.db"
    shutil.copy(start, target)
    connection, whole, begun = open_for_work(target), list[dict[str, str]](), list[int]()
    counting = _Killing(connection, at=10**9)

    def begins(_: str) -> None:
        whole.append(migrator.schema_of(connection))
        begun.append(10**9 - counting._left)

    assert migrator.up(counting, MIGRATIONS, begins) == LATEST  # type: ignore[arg-type]
    begins("the end")
    connection.close()
    undisturbed, adopted = state(target), 0
    points = [*range(begun[-1])]
    if not EACH_STATEMENT:  # before the bot's tables become ours, while they do, and afterwards
        points = [begun[0], *range(begun[0] + 7, begun[1] + 2, (begun[1] - begun[0]) // 4), begun[5], begun[-1] - 1]
    for point in some(points):
        for path in tmp_path.glob("killed.db*"):
            path.unlink()
        shutil.copy(start, target)
        assert killed(target, at=point, up=True)
        connection = open_for_work(target)
        reached = migrator.schema_of(connection)
        assert reached in whole, f"killed before statement {point}: a step is taken whole or not at all"
        adopted += reached != whole[0]
        migrate(connection, up=True)
        connection.close()
        assert state(target) == undisturbed, f"killed before statement {point}"
    print(f"killed at {len(points)} points")
    assert 0 < adopted < len(points), "it is killed before the bot's tables become ours, and afterwards"


def bots_own(path: Path, *, users: int) -> Path:
    """The bot's real tables, with as many users more as told, each with an account, movements, lines and a domain."""
    with contextlib.closing(sqlite3.connect(path)) as bots, bots:
        bots.executescript(SEED.read_text("utf-8"))
        numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {users})"
        when = "'2026-01-17 03:29:57'"
        for into, select in (
            ("users", f"100 + i, 90000000 + i, 'u' || i, '길동' || i, {when}, {when}"),
            ("user_deposits", f"100 + i, 100 + i, 1000, {when}, {when}, 2 + i % 5"),
            (
                "deposit_transactions",
                "100 + i, 100 + i, 'deposit', 2000, 'confirmed', '홍길동' || i, '홍길동' || substr(i, 1, 4), '입금',"
                f" {when}, {when}",
            ),
            (
                "deposit_transactions",
                f"10000000 + i, 100 + i, 'withdrawal', 1000, 'confirmed', NULL, NULL, '도메인', {when}, {when}",
            ),
            (
                "deposit_transactions",
                "20000000 + i, 100 + i, 'deposit', 5000, iif(i % 2, 'rejected', 'pending'), '가' || i, '가' || i, NULL,"
                f" NULL, {when}",
            ),
            (
                "bank_notifications",
                f"100 + i, 'KB', '홍길동' || i, '홍길동', 2000, i, {when}, '입금', iif(i % 3, 100 + i, NULL), {when}",
            ),
            ("user_domains", f"100 + i, 100 + i, 'd' || i || '.com', i % 2, {when}"),
            ("message_buffer", f"100 + i, 100 + i, '1', 'user', '안녕', {when}"),
        ):
            bots.execute(f"INSERT INTO {into} {numbers} SELECT {select} FROM n")
    return path


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_killed_at_every_statement_and_run_again_is_as_undisturbed(tmp_path: Path, up: bool) -> None:
    """All files, with rows of every kind: at each point the files before are whole, the rest has not begun."""
    start, target = make_bots_file(tmp_path / "start.db"), tmp_path / "killed.db"
    if not up:
        connection = open_for_work(start)
        migrate(connection, up=True)
        connection.close()
    shutil.copy(start, target)
    connection = open_for_work(target)
    migrate(connection, up=up)
    connection.close()
    undisturbed, whole = state(target), migrator.stages(MIGRATIONS)
    points, step = 0, 1 if EACH_STATEMENT else 11
    while True:
        for path in tmp_path.glob("killed.db*"):
            path.unlink()
        shutil.copy(start, target)
        if not killed(target, at=points * step, up=up):
            break
        connection = open_for_work(target)
        assert migrator.schema_of(connection) in whole, "a file is applied whole or not at all"
        migrate(connection, up=up)
        connection.close()
        assert state(target) == undisturbed, f"killed before statement {points * step}"
        points += 1
    print(f"killed at {points} points")
    assert points * step > sum(len(list(migrator.statements(m.up if up else m.down or ""))) for m in MIGRATIONS)


def test_migrators_that_start_at_once_are_as_one(tmp_path: Path) -> None:
    """One of them migrates; another one is refused in a sentence, or comes later and finds nothing to do."""
    alone, target = make_bots_file(tmp_path / "alone.db"), tmp_path / "bot.db"
    shutil.copy(alone, target)
    assert passbook("migrate", "up", "--database", str(alone)).returncode == 0
    started = [
        subprocess.Popen(
            [*PASSBOOK, "migrate", "up", "--database", str(target)],
            env={**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONUTF8": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    ended = [(*child.communicate(timeout=120), child.returncode) for child in started]
    assert 0 in [code for _, _, code in ended], ended
    for _, said, code in ended:
        assert code == 0 or (code == 1 and "is in use by process" in said and said.count("\n") == 1), said
    assert state(target) == state(alone)


def _under_strace(
    database: Path, syscall: str, command: tuple[str, ...], *injected: str, show_paths: bool = False
) -> int:
    """`passbook migrate …` traced; the exit code."""
    return subprocess.run(
        ["strace", "-f", "-qq", *(["-y"] if show_paths else []), "-o", str(database.parent / "trace"), "-e",
         f"trace={syscall}",
         *(part for text in injected for part in ("-e", text)), *PASSBOOK, "migrate", *command, "--database",
         str(database)],
        # Python's own files are not what is tested.
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        timeout=120,
        check=False,
    ).returncode  # fmt: skip


@pytest.fixture(scope="module")
def strace() -> None:
    """strace, and the right to trace; where a container denies it the test is skipped by name."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed (on Debian: apt-get install strace)")
    tried = subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], capture_output=True, check=False)
    if tried.returncode != 0:
        pytest.skip("this system does not let strace trace a process")


@pytest.mark.usefixtures("strace")
def test_no_other_system_call_changes_a_file_of_the_database(tmp_path: Path) -> None:
    """What a migration asks of the system about the database and what lies beside it is what it is killed at."""
    target = tmp_path / "run" / "bot.db"
    target.parent.mkdir()
    make_bots_file(target)
    assert _under_strace(target, CHANGES_FILES, ("up",), show_paths=True) == 0
    asked = {
        found[1]
        for line in (target.parent / "trace").read_text().splitlines()
        if str(target.parent) in line and (found := re.search(r"\b(\w+)\(", line))
    }
    assert asked - {*BESIDE} == {*",".join(SYSCALLS).split(",")} & asked, "is the migration killed there?"
    assert {"pwrite64", "unlink", "link", "fchmod", "openat"} <= asked


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("syscall", SYSCALLS)
def test_killed_at_write_syscalls_and_run_again_is_as_undisturbed(tmp_path: Path, syscall: str) -> None:
    """The copy, every file, the checklist: SIGKILL at the Nth call; what was copied is sound, a rerun is whole."""
    start, target = make_bots_file(tmp_path / "start.db"), tmp_path / "run" / "bot.db"

    def fresh() -> None:
        shutil.rmtree(target.parent, ignore_errors=True)
        target.parent.mkdir()
        shutil.copy(start, target)

    fresh()
    assert _under_strace(target, syscall, ("up",)) == 0
    called = re.compile(rf"\b({syscall.replace(',', '|')})\(")
    calls = len(list(filter(called.search, (target.parent / "trace").read_text().splitlines())))
    undisturbed = state(target)
    points = list(range(1, calls + 1))
    if not FULL and calls > SAMPLE:
        points = sorted({1 + (calls - 1) * number // (SAMPLE - 1) for number in range(SAMPLE)})
    print(f"{syscall}: {len(points)} of {calls} points")
    for point in some(points):
        fresh()
        code = _under_strace(target, syscall, ("up",), f"inject={syscall}:signal=SIGKILL:when={point}")
        assert code == -signal.SIGKILL, f"{syscall} {point} of {calls}"
        again = passbook("migrate", "up", "--database", str(target))
        assert again.returncode == 0, again.stderr
        assert "❌" not in again.stdout
        assert state(target) == undisturbed, f"killed at {syscall} {point} of {calls}"
        assert not list(target.parent.glob(".*")), "what is half copied is cleared away"
        assert [copy for copy in target.parent.glob("bot.db.before-*") if state(copy)[-1] != [("ok",)]] == []
