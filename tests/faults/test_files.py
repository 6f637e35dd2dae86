"""The files of a running service are removed, replaced, cut and linked: no write is answered that would be lost."""

import contextlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from service.storage import sqlite as engine
from tests.ledger_check import broken_invariants
from tests.live import Client, LiveService, passbook
from tests.printed import stands
from tests.some import some
from tests.waiting import until

BODY = {"telegram_id": "5001", "amount": 10, "depositor_name": "홍길동"}


def _deposits(database: Path) -> int:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return int(connection.execute("SELECT COUNT(*) FROM deposit_transactions").fetchone()[0])


def _write(client: httpx.Client, number: int) -> httpx.Response:
    headers = {"Idempotency-Key": f"w-{number}"}
    return client.post("/v1/deposits", json=BODY, headers=headers)


def _refused(service: LiveService, named: str) -> None:
    """The next write is refused by a sentence that names the file, the one after it too, and readyz says the same."""
    client = service.client()
    first = _write(client, 1000)
    assert (first.status_code, first.json()["code"]) == (503, "writes_stopped"), first.text
    assert named in first.json()["detail"]
    again = _write(client, 1001)
    assert (again.status_code, again.json()["code"]) == (503, "writes_stopped")
    assert named in again.json()["detail"]
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["code"]) == (503, "not_ready")
    assert named in ready.json()["detail"]


def _remove_log(database: Path) -> None:
    database.with_name(f"{database.name}-wal").unlink()


def _replace_log(database: Path) -> None:
    log = database.with_name(f"{database.name}-wal")
    shutil.copy(log, log.with_name("copy"))
    log.with_name("copy").replace(log)


def _remove_index(database: Path) -> None:
    database.with_name(f"{database.name}-shm").unlink()


def _remove_both(database: Path) -> None:
    _remove_log(database)
    _remove_index(database)


@pytest.mark.parametrize(
    ("act", "named"),
    [
        (_remove_log, "passbook.db-wal"),
        (_replace_log, "passbook.db-wal"),
        (_remove_index, "passbook.db-shm"),
        (_remove_both, "passbook.db-wal"),
    ],
)
def test_nothing_that_was_answered_is_lost_with_the_log(
    own_service: LiveService, act: Callable[[Path], None], named: str
) -> None:
    """Its name is gone, not its content: that is brought into the database, writes stop, and a kill takes nothing."""
    own_service.start()
    client = own_service.client()
    assert [_write(client, number).status_code for number in range(25)] == [201] * 25
    act(own_service.database)
    assert client.get("/readyz").status_code == 503
    _refused(own_service, named)
    own_service.kill()
    for suffix in ("-wal", "-shm"):
        own_service.database.with_name(f"passbook.db{suffix}").unlink(missing_ok=True)
    assert _deposits(own_service.database) == 25
    own_service.start()
    assert _write(own_service.client(), 1000).status_code == 201
    assert own_service.stop() == 0
    assert broken_invariants(own_service.database) == []


def _remove(database: Path, _other: Path) -> None:
    database.unlink()


def _move_over(database: Path, other: Path) -> None:
    other.replace(database)


def _leave_a_link(database: Path, _other: Path) -> None:
    database.rename(database.with_name("moved.db"))
    database.symlink_to("moved.db")


def _move_folder(database: Path, _other: Path) -> None:
    database.parent.rename(database.parent.with_name("moved"))


@pytest.mark.parametrize("act", [_remove, _move_over, _leave_a_link, _move_folder])
def test_a_database_that_lost_its_name_takes_no_write(tmp_path: Path, act: Callable[[Path, Path], None]) -> None:
    """And what was answered can be saved from the descriptor that the refusal names."""
    folder = tmp_path / "data"
    folder.mkdir()
    service = LiveService(folder / "passbook.db").start()
    try:
        client = service.client()
        assert passbook("backup", "--to", str(folder / "other.db"), "--database", str(service.database)).returncode == 0
        assert [_write(client, number).status_code for number in range(25)] == [201] * 25
        act(service.database, folder / "other.db")
        assert client.get("/readyz").status_code == 503
        _refused(service, "passbook.db")
        detail = _write(client, 1002).json()["detail"]
        still_open = Path(detail.partition("still open as ")[2].partition(":")[0])
        shutil.copy(still_open, tmp_path / "rescued.db")
    finally:
        service.kill()
    assert _deposits(tmp_path / "rescued.db") == 25
    assert broken_invariants(tmp_path / "rescued.db") == []


def test_a_database_that_is_written_over_in_place_takes_no_write(own_service: LiveService, tmp_path: Path) -> None:
    """`cp` keeps the inode: the header tells."""
    own_service.start()
    client = own_service.client()
    backup = tmp_path / "backup.db"
    assert passbook("backup", "--to", str(backup), "--database", str(own_service.database)).returncode == 0
    assert _write(client, 1).status_code == 201
    own_service.database.write_bytes(backup.read_bytes())
    _refused_writes(own_service, "passbook.db was written over")


def _refused_writes(service: LiveService, said: str) -> None:
    """The next two writes are refused, and readyz says so from then on."""
    client = service.client()
    for number in (1000, 1001):
        answer = _write(client, number)
        assert (answer.status_code, answer.json()["code"]) == (503, "writes_stopped"), answer.text
        assert said in answer.json()["detail"]
    assert said in client.get("/readyz").json()["detail"]


@pytest.mark.parametrize("left", [0, 40_000])
def test_a_log_that_is_cut_answers_nothing_more(own_service: LiveService, left: int) -> None:
    """No write is taken, readyz says 503, and what is missing in the log never goes into the database as zeros."""
    own_service.start()
    client = own_service.client()
    assert [_write(client, number).status_code for number in range(25)] == [201] * 25
    os.truncate(own_service.database.with_name("passbook.db-wal"), left)
    assert [_write(client, number).status_code // 100 for number in (1000, 1001)] == [5, 5]
    assert client.get("/readyz").status_code == 503
    assert own_service.stop() == 0
    with contextlib.closing(sqlite3.connect(own_service.database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def _asked(client: Client, method: str, path: str) -> httpx.Response:
    """An ordinary request of the route: what the answer is depends on the database alone."""
    path = re.sub(r"\{telegram_id\}", "5001", path)
    path = re.sub(r"\{\w+\}", "1", path)
    if method == "get":
        return client.get(path)
    if method == "post":
        return client.write(path, BODY)
    return client.request(method, path, headers={"Idempotency-Key": f"{method} {path}".replace(" ", "-")})


@pytest.mark.parametrize("broken", ["log", "database"])
def test_every_route_says_503_when_the_file_is_not_what_it_was(own_service: LiveService, broken: str) -> None:
    """Cut or overwritten: looking up the key, reading and writing meet it alike, and none calls it its own error.

    What tells operators of it goes on: /livez, and the figures that need no database.
    """
    client = own_service.start().client()
    routes = [
        (method, path)
        for path, item in client.get("/openapi.json").json()["paths"].items()
        for method in item
        if path not in {"/livez", "/metrics"}
    ]
    assert [_write(client, number).status_code for number in range(25)] == [201] * 25
    database = own_service.database
    if broken == "log":
        os.truncate(database.with_name("passbook.db-wal"), 0)
    else:
        with contextlib.closing(sqlite3.connect(database)) as hand:
            hand.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.write_bytes(bytes(database.stat().st_size))
    for method, path in some(routes):
        answer = _asked(client, method, path)
        assert answer.status_code == 503, (method, path, answer.text)
        stopped = method != "get" and answer.json()["code"] == "writes_stopped"
        assert stopped or (answer.json()["code"], answer.json()["reads"]) in {
            ("not_ready", "failed"),
            ("not_ready", "not_trusted"),
        }, (method, path, answer.text)
        assert int(answer.headers["Retry-After"]) > 0
    assert client.get("/livez").status_code == 200
    metrics = client.get("/metrics")
    assert (metrics.status_code, "passbook_writer_state" in metrics.text) == (200, True)
    assert stands('passbook_refusals_total{code="internal_error"} 0', metrics.text)
    until(lambda: client.write("/v1/deposits", BODY).json()["code"] == "writes_stopped", "writes have stopped")
    for method, path in some([route for route in routes if route[0] != "get"]):
        assert _asked(client, method, path).json()["code"] == "writes_stopped", (method, path)
    own_service.kill()
    assert "failed\nTraceback" not in own_service.said


def test_a_second_name_stops_writes(own_service: LiveService, tmp_path: Path) -> None:
    """A hard link, before the start and while it runs; without it everything goes on after a restart."""
    own_service.start()
    assert _write(own_service.client(), 1).status_code == 201
    link = tmp_path / "elsewhere.db"
    link.hardlink_to(own_service.database)
    _refused(own_service, "passbook.db has 2 names")
    second = passbook("serve", "--port", "0", "--database", str(link))
    assert (second.returncode, second.stderr.count("\n")) == (1, 1)
    assert f"in use by process {own_service.process.pid} " in second.stderr  # type: ignore[union-attr]
    assert f"under the name {own_service.database}" in second.stderr
    own_service.stop()
    for arguments in (["serve", "--port", "0"], ["check", "--port", "0"]):
        refused = passbook(*arguments, "--database", str(own_service.database))
        assert refused.returncode == 1
        assert "has 2 names" in refused.stdout + refused.stderr
    link.unlink()
    own_service.start()
    assert _write(own_service.client(), 2).status_code == 201


def test_a_file_is_locked_under_every_name_for_it(own_service: LiveService, tmp_path: Path) -> None:
    """A bind mount of the file: the lock is the inode's; it is refused by who has it and under which name."""
    own_service.start()
    other = tmp_path / "mounted.db"
    other.touch()
    mounted = subprocess.run(["mount", "--bind", own_service.database, other], check=False, capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("a file can be mounted by root only, outside most containers")
    try:
        for command in (["serve", "--port", "0"], ["migrate", "up"], ["restore", "--replace", str(tmp_path / "x.db")]):
            refused = passbook(*command, "--database", str(other))
            assert refused.returncode == 1
        refused = passbook("serve", "--port", "0", "--database", str(other))
        assert f"in use by process {own_service.process.pid} " in refused.stderr  # type: ignore[union-attr]
        assert passbook("check", "--port", "0", "--database", str(other)).returncode == 1
        assert _write(own_service.client(), 1).status_code == 201
        _no_command_opens(other, tmp_path, "is mounted by itself")
        assert own_service.stop() == 0
        refused = passbook("serve", "--port", "0", "--database", str(other))
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
        assert "is mounted by itself" in refused.stderr
    finally:
        subprocess.run(["umount", other], check=True)
    assert broken_invariants(own_service.database) == []


def _no_command_opens(other: Path, folder: Path, said: str) -> None:
    """Under its second name a database has another log, where what a command writes is lost, or lies in wait."""
    prefix = "pbk_00000000"
    for command in (
        ["keys", "create", "--name", "bot", "--role", "bot"],
        ["keys", "list"],
        ["keys", "revoke", prefix],
        ["keys", "scopes", prefix, "--role", "bot"],
        ["users", "erase", "5001", "--yes"],
        ["backup", "--to", str(folder / "backup.db")],
        ["export", str(folder / "export.sql")],
        ["integrity"],
        ["audit", "verify"],
        ["audit", "tail"],
        ["migrate", "plan"],
    ):
        refused = passbook(*command, "--database", str(other))
        assert (refused.returncode, said in refused.stderr) in {(1, True), (2, True)}, (command, refused)
    assert not any(file.exists() for file in engine.side_files(other))


def test_no_command_opens_a_database_under_a_second_name(own_service: LiveService, tmp_path: Path) -> None:
    """A hard link: nothing is made beside it, and the service is what it was once the link is gone."""
    own_service.start()
    other = tmp_path / "elsewhere.db"
    other.hardlink_to(own_service.database)
    _no_command_opens(other, tmp_path, "has 2 names")
    other.unlink()
    own_service.kill()
    own_service.start()
    assert _write(own_service.client(), 2).status_code == 201


@pytest.mark.parametrize("cut", [None, 0, 5000, "replaced"])
def test_a_start_without_the_log_of_a_killed_service_is_refused(
    own_service: LiveService, cut: int | str | None
) -> None:
    """What was answered is in the log alone: gone, cut or replaced after the kill, it is named, and nothing goes on."""
    own_service.start()
    assert _write(own_service.client(), 1).status_code == 201
    own_service.kill()
    log = own_service.database.with_name("passbook.db-wal")
    whole = log.read_bytes()
    if cut is None:
        log.unlink()
    elif isinstance(cut, int):
        os.truncate(log, cut)
    else:
        log.write_bytes(whole[:16] + bytes(8) + whole[24:])
    for command in (
        ["serve", "--port", "0"],
        ["check", "--port", "0"],
        ["migrate", "up"],
        ["migrate", "down", "--yes"],
    ):
        refused = passbook(*command, "--database", str(own_service.database))
        assert refused.returncode == 1
        assert "passbook.db-wal, which belongs to the database passbook.db," in refused.stdout + refused.stderr
        assert "Traceback" not in refused.stderr
    log.write_bytes(whole)
    own_service.start()
    assert _deposits(own_service.database) == 1


def test_a_start_goes_on_without_a_log_where_its_index_is_removed_too(own_service: LiveService) -> None:
    """As the refusal says: who removes the index decides to go on without what the log held."""
    own_service.start()
    own_service.kill()
    for suffix in ("-wal", "-shm"):
        own_service.database.with_name(f"passbook.db{suffix}").unlink()
    own_service.start()
    assert own_service.stop() == 0


def test_the_lock_leaves_sqlites_own_locks_alone(own_service: LiveService) -> None:
    """Another program cannot take the database out of WAL mode, which it could had the service lost its locks."""
    own_service.start()
    assert _write(own_service.client(), 1).status_code == 201
    assert passbook("check", "--port", "0", "--database", str(own_service.database)).returncode == 1
    script = (
        "import sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)\n"
        "try:\n    print(c.execute('PRAGMA journal_mode = DELETE').fetchone()[0])\n"
        "except sqlite3.OperationalError as e:\n    print(e)\n"
    )
    said = subprocess.run(
        ["python3", "-c", script, str(own_service.database)], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() in {"database is locked", "wal"}
    locks = Path("/proc/locks").read_text()
    inode = own_service.database.stat().st_ino
    held = [line for line in locks.splitlines() if f":{inode} " in line]
    kinds = {line.split()[1] for line in held}
    assert kinds == {"OFDLCK", "POSIX"}, locks
    assert _write(own_service.client(), 2).status_code == 201


def test_a_trigger_that_is_dropped_stops_writes(own_service: LiveService) -> None:
    """The database no longer moves the balance with the transaction: no write is answered by it, readyz says 503."""
    own_service.start()
    client = own_service.client()
    assert client.credit("1", 1000)["balance_after"] == 1000
    with contextlib.closing(sqlite3.connect(own_service.database)) as hand:
        triggers = [name for (name,) in hand.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")]
        for name in triggers:
            hand.execute(f"DROP TRIGGER {name}")
    ready = client.get("/readyz")
    assert (ready.status_code, "trigger" in ready.json()["detail"]) == (503, True)
    refused = _write(client, 1)
    assert (refused.status_code, refused.json()["code"]) == (503, "writes_stopped"), refused.text
    assert "The trigger" in refused.json()["detail"]
    assert client.get("/v1/users/1/balance").json()["balance"] == 1000
    assert own_service.stop() == 0
    for command in (["serve", "--port", "0"], ["check", "--port", "0"]):
        said = passbook(*command, "--database", str(own_service.database))
        assert said.returncode == 1
        assert (said.stdout + said.stderr).count("is not there.") == 5
        assert f"And {len(triggers) - 5} more." in said.stdout + said.stderr
    assert said.stdout.count("Traceback") == said.stderr.count("Traceback") == 0


def test_a_lost_log_is_noticed_without_a_write(own_service: LiveService) -> None:
    """A moment later all that was answered is in the database, and a kill takes nothing."""
    own_service.start()
    client = own_service.client()
    assert [_write(client, number).status_code for number in range(25)] == [201] * 25
    log = own_service.database.with_name("passbook.db-wal")
    assert log.stat().st_size > 0
    _remove_log(own_service.database)
    saved = "All that was answered is in the database file now"
    until(lambda: saved in client.get("/readyz").text, "what was answered is in the database")
    own_service.kill()
    own_service.database.with_name("passbook.db-shm").unlink()
    assert _deposits(own_service.database) == 25


def test_what_sqlite_itself_does_beside_the_service_is_no_swap(own_service: LiveService, tmp_path: Path) -> None:
    """Checkpoints of every kind, VACUUM, a backup, a key: by other programs, under load, no write is refused for it."""
    own_service.environment = {"PASSBOOK_BUSY_TIMEOUT_MS": "30000"}
    own_service.start()
    stop = threading.Event()

    def load(number: int) -> set[int]:
        client, statuses, count = own_service.client(), set(), 0
        while not stop.is_set() or count < 20:
            statuses.add(_write(client, 1_000_000 * number + count).status_code)
            count += 1
        return statuses

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(load, number) for number in range(4)]
        with contextlib.closing(engine.driver.connect(own_service.database, isolation_level=None, timeout=30)) as other:
            for _ in range(5):
                for mode in ("PASSIVE", "FULL", "RESTART", "TRUNCATE"):
                    other.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
                other.execute("VACUUM")
        assert own_service.make_key("--role", "bot")
        backup = passbook("backup", "--to", str(tmp_path / "b.db"), "--database", str(own_service.database))
        assert backup.returncode == 0, backup.stderr
        stop.set()
        assert [one.result() for one in running] == [{201}] * 4
    assert own_service.client().get("/readyz").status_code == 200
    assert own_service.stop() == 0
    assert broken_invariants(own_service.database) == []


def test_a_link_that_leads_elsewhere_takes_no_write(tmp_path: Path) -> None:
    """A service that was started through a link: what the link leads to is the database, or nothing is."""
    (tmp_path / "real").mkdir()
    (tmp_path / "other").mkdir()
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "real" / "passbook.db")
    service = LiveService(link).start()
    try:
        assert _write(service.client(), 1).status_code == 201
        shutil.copy(tmp_path / "real" / "passbook.db", tmp_path / "other" / "passbook.db")
        link.unlink()
        link.symlink_to(tmp_path / "other" / "passbook.db")
        _refused(service, "link.db was replaced by another file")
    finally:
        service.kill()
    assert _deposits(tmp_path / "real" / "passbook.db") == 1


def _cut_database(database: Path) -> None:
    os.truncate(database, 4096)


def _cut_index(database: Path) -> None:
    os.truncate(database.with_name("passbook.db-shm"), 0)


@pytest.mark.parametrize("act", [_cut_database, _cut_index])
def test_no_write_is_answered_from_a_file_that_was_cut(own_service: LiveService, act: Callable[[Path], None]) -> None:
    """The index is in memory that the file backs: touching what is gone ends a process, and the log has it all."""
    own_service.start()
    client = own_service.client()
    assert [_write(client, number).status_code for number in range(25)] == [201] * 25
    act(own_service.database)
    for number in (1000, 1001):
        with contextlib.suppress(httpx.TransportError):
            assert _write(own_service.client(), number).status_code >= 500
    assert own_service.kill() in {-signal.SIGKILL, -signal.SIGBUS}
    if act is _cut_index:
        own_service.start()
        assert _write(own_service.client(), 1000).status_code == 201
        assert own_service.stop() == 0
        assert broken_invariants(own_service.database) == []
        assert _deposits(own_service.database) == 26


def test_the_lock_says_who_has_it(own_service: LiveService) -> None:
    """The process, the command, since when, and the writing process. Check says it too."""
    own_service.start()
    process, writer = own_service.process.pid, own_service.writer_pid  # type: ignore[union-attr]
    text = own_service.database.with_name("passbook.db.lock").read_text()
    assert re.fullmatch(
        rf"pid {process}\nsince 20\S+Z\ncommand serve\nhost {re.escape(os.uname().nodename)}\nwriter {writer}\n", text
    )
    told = rf"in use by process {process} \(passbook serve, since 20\S+Z\)"
    for command in ("serve", "check"):
        refused = passbook(command, "--port", "0", "--database", str(own_service.database))
        assert refused.returncode == 1
        assert re.search(told, refused.stdout + refused.stderr)
