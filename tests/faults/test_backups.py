"""Backups under load, and backup and restore killed at every step."""

import asyncio
import contextlib
import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.cli import main
from tests.contents import contents
from tests.faults.disks import fill, small_disk
from tests.faults.journal import Journal, Load, check
from tests.ledger_check import broken_invariants
from tests.live import CHECKOUT, PASSBOOK, LiveService, passbook
from tests.some import some
from tests.storage.test_importer import only, read

SEED = int(os.environ.get("FAULTS_SEED") or random.SystemRandom().randrange(2**32))
CLIENTS = 16
BACKUPS = 3
KILLS = int(os.environ.get("FAULTS_KILLS") or 4)
OVERTAKEN_MAX = 2 * CLIENTS
"""How many answers others may get while one request waits. A batch is what came while the last one was written, so
that a request that only queues is overtaken by less than two batches."""

STEPPED = """
import os, signal, sys
from service.cli import main
number, told, arguments = signal.Signals(int(sys.argv[1])), sys.argv[2], sys.argv[3:]
def count(name):
    real = getattr(os, name)
    def step(*arguments, **named):
        global left
        left -= 1
        if left == -1:
            open(told + "/signalled", "w").close()
            os.kill(os.getpid(), number)
        return real(*arguments, **named)
    setattr(os, name, step)
for line in sys.stdin:
    left = int(line)
    child = os.fork()
    if child == 0:
        for descriptor, name in ((1, "/stdout"), (2, "/stderr")):
            os.dup2(os.open(told + name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        for name in ("open", "fsync", "link", "rename", "unlink", "chmod", "mkdir", "close"):
            count(name)
        main(arguments)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""For each number on stdin a process of its own: `passbook` that gets a signal before that step with files."""


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


def _sound(path: Path) -> bool:
    """Whether `path` is a whole Passbook database, by both oracles."""
    return passbook("integrity", "--database", str(path)).returncode == 0 and broken_invariants(path) == []


def _rows(database: Path) -> dict[str, list[tuple[object, ...]]]:
    """What is only ever added to, in the order in which it was added."""
    return {
        "audit_logs": read(database, "SELECT * FROM audit_logs ORDER BY id"),
        "idempotency_answers": read(database, "SELECT * FROM idempotency_answers ORDER BY rowid"),
    }


def _under_load(
    live: LiveService, journal: Journal, work: Callable[[], Awaitable[None]], *, name: str = "load"
) -> None:
    """Awaits `work` when the clients are well under way; goes on for a while after it, then stops the service."""

    async def run() -> None:
        load = Load(journal, url=live.url, api_key=live.admin_key, seed=SEED, clients=CLIENTS, name=name)
        under_way = journal.after(10 * CLIENTS)
        clients = asyncio.create_task(load.run())
        await under_way.wait()
        await work()
        await journal.after(10 * CLIENTS).wait()
        assert await asyncio.to_thread(live.stop) == 0
        await clients

    asyncio.run(run())


def test_backups_under_load_are_exact_prefixes_and_delay_nobody(own_service: LiveService, tmp_path: Path) -> None:
    """Three in a row beside 16 clients: each has all that was answered before it, and nothing out of order.

    No request fails, and none is overtaken by more answers to others than it is without a backup.
    """
    print(f"FAULTS_SEED={SEED}")
    answered: list[set[str]] = []
    during: list[int] = []
    moments: list[int] = []

    async def back_up() -> None:
        for number in range(BACKUPS):
            answered.append({entry.key for entry in journal.entries.values() if entry.answers})
            moments.append(max(a.received_ns or 0 for e in journal.entries.values() for a in e.attempts))
            before = journal.answered
            made = await asyncio.to_thread(
                passbook, "backup", "--to", str(tmp_path / f"{number}.db"), "--database", str(own_service.database)
            )
            assert made.returncode == 0, made.stderr
            assert "It adds up." in made.stdout
            during.append(journal.answered - before)
        moments.append(max(a.received_ns or 0 for e in journal.entries.values() for a in e.attempts))

    own_service.start()
    with Journal.opened(tmp_path / "journal") as journal:
        _under_load(own_service, journal, back_up)
        final = _rows(own_service.database)
        for number, keys in enumerate(some(answered)):
            copy = tmp_path / f"{number}.db"
            assert broken_invariants(copy) == []
            found = _rows(copy)
            for table, rows in some(found.items()):
                assert rows == final[table][: len(rows)], table
            stored = {key for (key,) in read(copy, "SELECT idempotency_key FROM idempotency_answers")}
            assert keys <= stored
            # A backup that began after the load was over would have proved nothing.
            assert len(found["audit_logs"]) < len(final["audit_logs"])
        assert min(during) > CLIENTS
        waited = [
            attempt
            for entry in journal.entries.values()
            for attempt in entry.attempts
            if moments[0] <= attempt.sent_ns <= moments[-1]
        ]
        assert {a.status for a in waited} <= {200, 201, 404, 409}
        received = sorted(a.received_ns for e in journal.entries.values() for a in e.attempts if a.received_ns)
        overtaken = max(sum(a.sent_ns < moment < (a.received_ns or 0) for moment in received) for a in waited)
        print(f"answers during each backup: {during}; most overtaken: {overtaken}")
        assert overtaken <= OVERTAKEN_MAX
        own_service.start()
        found_by_journal = check(
            own_service.database, journal, own_service, actor="first-admin", api_key=own_service.admin_key
        )
        assert found_by_journal.broken == []


def test_a_backup_killed_under_load_leaves_nothing_half(own_service: LiveService, tmp_path: Path) -> None:
    """kill -9 at random moments: what has its final name is whole; the next backup takes the leftovers away."""
    print(f"FAULTS_SEED={SEED}")
    chance = random.Random(SEED)
    folder = tmp_path / "copies"
    folder.mkdir()
    arguments = [*PASSBOOK, "backup", "--to", str(folder), "--database", str(own_service.database)]

    def kill_some() -> None:
        for _ in range(KILLS):
            process = subprocess.Popen(
                arguments,
                env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            assert process.stderr is not None
            with process.stderr:
                if chance.random() < 0.7:  # from the first step on: before it there is only Python's own start
                    process.stderr.readline()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(chance.random() * 0.05)
                process.kill()
                assert process.wait() in {0, -signal.SIGKILL}

    own_service.start()
    with Journal.opened(tmp_path / "journal") as journal:
        _under_load(own_service, journal, lambda: asyncio.to_thread(kill_some))
        assert [path for path in folder.glob("*.db") if not _sound(path)] == []
        done = subprocess.run(arguments, env={**os.environ, "PYTHONPATH": str(CHECKOUT)}, check=False)
        assert done.returncode == 0
        assert all(re.fullmatch(r"passbook-\d{8}T\d{6}Z\.db", path.name) for path in some(folder.iterdir()))
        own_service.start()
        found = check(own_service.database, journal, own_service, actor="first-admin", api_key=own_service.admin_key)
        assert found.broken == []


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder with a database as kill -9 left it, its last writes in its log alone, and a backup from before these."""
    folder = tmp_path_factory.mktemp("killed")
    service = LiveService(folder / "data" / "passbook.db")
    service.start()
    service.client().credit("1", 100)
    copy = folder / "copy.db"
    assert passbook("backup", "--to", str(copy), "--database", str(service.database)).returncode == 0
    service.client().credit("2", 50)
    service.kill()
    return folder / "data", copy


def _at_each_step(number: signal.Signals, folder: Path, states: tuple[Path, Path], *arguments: str) -> Iterator[Ran]:
    """The command with the signal before its first step, its second, and so on to its end; on fresh files each."""
    told = folder.with_name("told")
    told.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", STEPPED, str(int(number)), str(told), *arguments],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONUTF8": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for step in itertools.count():
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(states[0], folder)
            (told / "signalled").unlink(missing_ok=True)
            process.stdin.write(f"{step}\n")
            process.stdin.flush()
            code = int(process.stdout.readline())
            yield Ran(code, (told / "stdout").read_text("utf-8"), (told / "stderr").read_text("utf-8"))
            if not (told / "signalled").exists():
                assert code == 0
                print(f"{step} steps")
                assert step >= 10
                break
        process.stdin.close()


def test_a_backup_killed_at_any_step_is_whole_or_not_there(states: tuple[Path, Path], tmp_path: Path) -> None:
    """kill -9 before each open, sync, link and unlink; and the database is as it was."""
    folder = tmp_path / "data"
    database, copy = folder / "passbook.db", folder / "copy.db"
    wanted = contents(states[0] / "passbook.db")
    seen = set()
    killed = _at_each_step(signal.SIGKILL, folder, states, "backup", "--to", str(copy), "--database", str(database))
    for _ in some(killed):
        seen.add(copy.exists())
        if copy.exists():
            assert contents(copy) == wanted
            assert not copy.with_name("copy.db-wal").exists()
        assert contents(database) == wanted
    assert seen == {False, True}
    assert _sound(copy)


def test_an_interrupted_backup_is_whole_or_leaves_nothing(states: tuple[Path, Path], tmp_path: Path) -> None:
    """SIGINT before each step: the file and exit code 0, or one sentence, exit code 1 and no file at all."""
    folder = tmp_path / "data"
    database, copy = folder / "passbook.db", folder / "copy.db"
    stopped = _at_each_step(signal.SIGINT, folder, states, "backup", "--to", str(copy), "--database", str(database))
    for number, ran in enumerate(some(stopped)):
        assert list(folder.glob(".*")) == []
        assert copy.exists() == (ran.code == 0), (number, ran.stderr)
        if ran.code != 0:
            assert (ran.code, ran.stdout) == (1, "")
            assert re.search(r"^(Error: Stopped; nothing was made\.|Aborted!)$", ran.stderr, re.MULTILINE), ran.stderr


def test_a_restore_killed_at_any_step_leaves_the_old_or_the_new_database(
    states: tuple[Path, Path], tmp_path: Path
) -> None:
    """kill -9 before each open, sync, link, rename and unlink: one of the two, whole; the old one is never lost."""
    folder = tmp_path / "data"
    database = folder / "passbook.db"
    old, new = contents(states[0] / "passbook.db"), contents(states[1])
    assert old != new
    seen = []
    options = ("--replace", "--database", str(database))
    for ran in some(_at_each_step(signal.SIGKILL, folder, states, "restore", str(states[1]), *options)):
        kept = list(folder.glob("*.before-restore-*"))
        found = contents(database)
        seen.append(found == new)
        if found != new:
            assert found == old
        else:
            assert [contents(path) for path in kept] == [old]
        if ran.code != 0:
            again = CliRunner().invoke(main, ["restore", str(states[1]), "--replace", "--database", str(database)])
            assert again.exit_code == 0, again.stderr
            assert contents(database) == new
            assert list(folder.glob(".*")) == []
            assert old in [contents(path) for path in folder.glob("*.before-restore-*")]
    assert seen == sorted(seen), "the new one, once there, stays"
    assert set(seen) == {False, True}
    assert only(folder, "passbook.db", "passbook.db.lock", kept[0].name)
    assert _sound(database)


def test_a_backup_to_a_full_disk_is_one_sentence_and_leaves_nothing(states: tuple[Path, Path], tmp_path: Path) -> None:
    """The free space is named; the filler alone is on the disk."""
    with small_disk(tmp_path / "disk", "1m") as disk:
        (disk / "filler").write_bytes(b"\0" * 900_000)
        failed = passbook("backup", "--to", str(disk / "copy.db"), "--database", str(states[0] / "passbook.db"))
        assert (failed.returncode, failed.stdout) == (1, "")
        assert re.search(
            rf"^Error: There is no space for the copy in {disk}: [\d,]+ bytes are free\.$", failed.stderr, re.M
        )
        assert "Traceback" not in failed.stderr
        assert only(disk, "filler")


def test_a_restore_on_a_full_disk_keeps_the_database(states: tuple[Path, Path], tmp_path: Path) -> None:
    """With --replace: the database is as it was, without a second name, and is served again."""
    with small_disk(tmp_path / "disk") as disk:
        shutil.copytree(states[0], disk / "data")
        database = disk / "data" / "passbook.db"
        before = contents(database)
        fill(disk / "filler")
        failed = passbook("restore", str(states[1]), "--replace", "--database", str(database))
        assert (failed.returncode, failed.stdout) == (1, "")
        assert "There is no space" in failed.stderr
        (disk / "filler").unlink()
        assert contents(database) == before
        assert only(database.parent, *(f"passbook.db{part}" for part in ("", "-wal", "-shm", ".lock")))
