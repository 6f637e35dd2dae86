"""The power goes at any system call: of the service under load from its first start on, and of commands."""

import asyncio
import contextlib
import itertools
import random
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from service import resources
from service.storage import migrator
from service.storage import sqlite as engine
from service.storage.audit_verification import ChainCheck
from tests.contents import contents
from tests.faults import tracing
from tests.faults.disk_images import CALLS, Disk, Event, events, lay
from tests.faults.journal import Entry, Journal, Load, as_told, check, check_at_rest
from tests.faults.row import Row, Run
from tests.faults.variants import OFTEN_CHECKPOINTED, UNSYNCED, Change, variant
from tests.faults.wire import Connection, NoAnswer, Request
from tests.ledger_check import broken_invariants
from tests.live import CHECKOUT, PASSBOOK, LiveService, passbook
from tests.storage.broken import make_sound
from tests.storage.test_importer import dump_of, make_bots_file

CLIENTS = 8
ASKS = 30
MODES = ("drop", "torn", "keep")
SERVED_EVERY = 120
"""Of so many images one is served again, and every unknown key replayed."""
MANY = 100
"""From so many images on every command is recorded, not the first three alone."""
CUT_ROW = 12
WITHOUT_SYNC = "synchronous=NORMAL loses what was answered"
UNSYNCED_COPY = "a backup that syncs nothing"


@dataclass(frozen=True)
class Recorded:
    """A program's run: the disk that it began with, and all that it did."""

    before: Path
    root: Path
    events: list[Event]

    def images(self, chance: random.Random, *, step: int, modes: Sequence[str]) -> Iterator[tuple[int, str, Disk]]:
        """The disk at every `step`th event and after the last; each of `modes` in turn."""
        disk = _disk(self.before, self.root)
        at = itertools.cycle(modes)
        for number, event in enumerate(self.events):
            disk.apply(event)
            if chance.randrange(step) == 0 or event is self.events[-1]:
                yield number, next(at), disk


def _disk(before: Path, root: Path) -> Disk:
    disk = Disk.of(before)
    moved = Disk(str(root))
    moved.live = {str(root) + path[len(disk.root) :]: inode for path, inode in disk.live.items()}
    moved.durable = dict(moved.live)
    return moved


def inject(run: Run) -> None:
    """Images of the service, then of each command; and the mutants."""
    run.skipped = tracing.why_not()
    if run.skipped:
        return
    _service(run.part(0.45, run.at_least), "service", [OFTEN_CHECKPOINTED])
    make_sound(run.folder / "sound" / "passbook.db")
    commands = COMMANDS if run.at_least >= MANY else COMMANDS[:3]
    for command in commands:
        _command(run.part(0.45 / len(commands), max(10, run.at_least // 10)), command)
    lost = _service(run.part(0.1, 40), "unsynced", [OFTEN_CHECKPOINTED, *UNSYNCED], lies=True)
    run.figures["images in which synchronous=NORMAL lost an answer"] = lost
    run.mutant(WITHOUT_SYNC, lost > 0)
    deaf = _command(run.part(0.05, 40), COMMANDS[1], without_syncs=True)
    run.mutant(UNSYNCED_COPY, deaf > 0)


# The service under load.


def _service(run: Run, name: str, changes: Sequence[Change], *, lies: bool = False) -> int:
    """Records one run of the service and judges its images. How many lost an answer; told to the run unless `lies`."""
    folder = run.folder / name
    (folder / "before").mkdir(parents=True)
    root = folder / "data"
    root.mkdir()
    environment = variant(folder / "variant", changes)
    live = LiveService(root / "passbook.db", environment=environment, under=tracing.recording(folder / "record", CALLS))
    live.start()
    with Journal.opened(folder / "journal") as journal:
        asyncio.run(_load(live, journal, run.seed))
        assert live.stop() == 0
    recorded = Recorded(
        folder / "before", root, events(tracing.whole(folder / "record"), _disk(folder / "before", root))
    )
    (folder / "record").unlink()
    checkpoints = sum(e.kind == "sync" and e.path.endswith(".db") for e in recorded.events)
    if not lies:
        run.count("answers on record", journal.answered)
        run.count("syncs of the log", sum(e.kind == "sync" and e.path.endswith("-wal") for e in recorded.events))
        run.count("checkpoints on record", checkpoints)
        run.must(checkpoints > 2, "the recorded run had no checkpoint: nothing was proved of them")
    lost = images = 0
    chance = run.chance(name)
    step = max(1, len(recorded.events) * len(MODES) // max(1, run.at_least) // 4)
    while run.goes_on(images):
        for number, mode, disk in recorded.images(chance, step=step, modes=MODES):
            image = folder / "image"
            shutil.rmtree(image, ignore_errors=True)
            lay(disk.image(chance, mode), image)
            heard = {e.data.decode("latin-1") for e in recorded.events[: number + 1] if e.kind == "told"}
            images += 1
            where = f"image at call {number} ({mode})"
            entries = as_told(journal.entries.values(), lambda attempt: attempt.request_id in heard)  # noqa: B023
            serve = images % SERVED_EVERY == 1
            lost += _judge_service(run, image, entries, live.admin_key, where, lies=lies, serve=serve)
            if not run.goes_on(images):
                break
    if not lies:
        run.count("images", images)
        run.count("images of the service", images)
    return lost


async def _load(live: LiveService, journal: Journal, seed: int) -> None:
    """The journal's clients, and one who asks for signed checkpoints all the while."""
    load = Load(journal, url=live.url, api_key=live.admin_key, seed=seed, clients=CLIENTS, name="power")
    connection = await Connection.open(live.url)
    clients = asyncio.create_task(load.run(count=ASKS))
    try:
        while not clients.done():
            told = await connection.ask(
                Request("/v1/audit-logs/checkpoint", "", "", "checkpoint", "GET"), live.admin_key
            )
            assert told.status in {200, 503}, told
            await asyncio.sleep(0.01)
    except NoAnswer:
        pass
    finally:
        await connection.close()
    await clients


def _judge_service(
    run: Run, image: Path, entries: dict[str, Entry], admin_key: str, where: str, *, lies: bool, serve: bool
) -> bool:
    """Whether the image lost an answer; what else is wrong is told to the run."""
    database = image / "passbook.db"
    answered = any(entry.answers for entry in entries.values())
    try:
        if database.exists():
            engine.connect_writer(database, busy_timeout_ms=0, checkpoints=True).close()
        found = check_at_rest(database, entries, actor="first-admin")
    except (engine.EngineError, engine.DatabaseError, sqlite3.Error, OSError) as error:
        if not lies:
            run.must(not answered, f"{where}: {error}")
            if serve and not answered:
                _serve_first(run, image, where)
        return answered
    if lies:
        return bool(found.lost)
    run.found(found, where)
    if serve:
        _serve_again(run, image, entries, admin_key, where)
    return bool(found.lost)


def _serve_first(run: Run, image: Path, where: str) -> None:
    """Nothing was answered yet: the service starts on what is there, or says in a sentence why it does not."""
    live = LiveService(image / "passbook.db")
    try:
        live.start()
    except AssertionError as error:
        run.count("unfinished first starts refused in a sentence")
        run.must("Traceback" not in str(error) and "Error: " in str(error), f"{where}: {error}")
    else:
        run.count("unfinished first starts begun anew")
        run.must(live.stop(code=None) == 0, f"{where}: {live.said}")
        run.broken += [f"{where}: {fault}" for fault in broken_invariants(live.database)]


def _serve_again(run: Run, image: Path, entries: dict[str, Entry], admin_key: str, where: str) -> None:
    """The service starts on the image, its first key is known, and every unknown request has one stable answer."""
    live = LiveService(image / "passbook.db", admin_key=admin_key)
    try:
        live.start()
    except AssertionError as error:
        run.broken.append(f"{where}: {error}")
        return
    with Journal.opened(image / "journal") as journal:
        journal.entries = entries
        run.found(check(live.database, journal, live, actor="first-admin", api_key=admin_key), where)
    run.count("images served again")
    live.kill()


# Commands.


@dataclass(frozen=True)
class Command:
    """A command of the command line on a folder made for it, and what must be true of each image."""

    name: str
    make: Callable[[Path, Path], None]
    """Fills a folder with what the command needs; the other one holds a sound ledger."""
    arguments: Callable[[Path], list[str]]
    done: bytes
    """What it says when it is done, and not before."""
    judge: Callable[[Path, Path, bool], list[str]]
    """(image, the folder at the end, whether the command had said that it is done) -> what is wrong."""


def _command(run: Run, command: Command, *, without_syncs: bool = False) -> int:
    """Records the command and judges images of it; the number of bad ones, told to the run unless `without_syncs`."""
    folder = run.folder / (command.name.replace(" ", "-") + ("-unsynced" if without_syncs else ""))
    root = folder / "data"
    root.mkdir(parents=True)
    command.make(root, run.folder / "sound")
    shutil.copytree(root, folder / "before")
    done = subprocess.run(
        [*tracing.recording(folder / "record", CALLS), *PASSBOOK, *command.arguments(root)],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(CHECKOUT), "PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    recorded = events(tracing.whole(folder / "record"), _disk(folder / "before", root))
    (folder / "record").unlink()
    if without_syncs:
        recorded = [event for event in recorded if event.kind != "sync"]
    chance = run.chance(command.name)
    images = bad = 0
    spoke = False
    for number, _, disk in Recorded(folder / "before", root, recorded).images(chance, step=1, modes=MODES):
        event = recorded[number]
        spoke = spoke or (event.kind == "told" and event.to == "1" and command.done in event.data)
        # Between two waits every call is like every other: the moments around each wait and name are all judged.
        if event.kind == "write" and chance.random() > (0.3 if run.goes_on(images) else 0.02):
            continue
        for each in MODES:
            image = folder / "image"
            shutil.rmtree(image, ignore_errors=True)
            lay(disk.image(chance, each), image)
            images += 1
            faults = command.judge(image, root, spoke)
            bad += bool(faults)
            if not without_syncs:
                run.broken += [f"{command.name}, call {number} ({each}): {fault}" for fault in faults[:2]]
    if not without_syncs:
        run.count("images", images)
        run.count(f"images of {command.name}", images)
        run.must(spoke, f"{command.name} never said that it is done")
    return bad


def _opened(database: Path) -> list[str]:
    """The database as the next program finds it; what is wrong with it."""
    try:
        engine.connect_writer(database, busy_timeout_ms=0, checkpoints=True).close()
        return broken_invariants(database)
    except (engine.EngineError, engine.DatabaseError, sqlite3.Error) as error:
        return [f"{database.name}: {error}"]


def _sound(root: Path, sound: Path) -> None:
    shutil.copytree(sound, root, dirs_exist_ok=True)


def _keys_made(image: Path, _: Path, spoke: bool) -> list[str]:
    database = image / "passbook.db"
    faults = _opened(database)
    if not faults and spoke:
        with contextlib.closing(sqlite3.connect(database)) as connection:
            if not connection.execute("SELECT 1 FROM api_keys WHERE name = 'made'").fetchone():
                faults.append("the key was shown and is gone")
    return faults


def _backed_up(image: Path, end: Path, spoke: bool) -> list[str]:
    copy, database = image / "copy.db", image / "passbook.db"
    faults = _opened(database)
    if copy.exists():
        faults += _opened(copy)
        if not faults and contents(copy) != contents(end / "copy.db"):
            faults.append("the copy has its name and is not whole")
    elif spoke:
        faults.append("the copy was said to be there and is not")
    return faults


def _with_copy(root: Path, sound: Path) -> None:
    _sound(root, sound)
    shutil.copy(root / "passbook.db", root / "copy.db")
    with contextlib.closing(sqlite3.connect(root / "passbook.db")) as connection:
        connection.execute("INSERT INTO users (id, telegram_id) VALUES (901, '901')")
        connection.commit()


def _restored(image: Path, _: Path, spoke: bool) -> list[str]:
    faults = _opened(image / "passbook.db")
    if faults:
        return faults
    with contextlib.closing(sqlite3.connect(image / "passbook.db")) as connection:
        old = connection.execute("SELECT 1 FROM users WHERE id = 901").fetchone()
    kept = list(image.glob("*.before-restore-*"))
    if old:
        return ["it was said to be restored and is the old one"] if spoke else []
    if not kept:
        return ["the new one is there and the old one is gone"]
    return _opened(kept[0])


def _bots_export(root: Path, _: Path) -> None:
    dump_of(make_bots_file(root / "bot.db"), root / "export.sql")
    (root / "bot.db").unlink()


def _imported(image: Path, end: Path, spoke: bool) -> list[str]:
    database = image / "passbook.db"
    if not database.exists():
        return ["it was said to be imported and is not there"] if spoke else []
    faults = _opened(database)
    if not faults and contents(database) != contents(end / "passbook.db"):
        faults.append("the database has its name and is not whole")
    return faults


def _first_rows_before(root: Path) -> str:
    with contextlib.closing(sqlite3.connect(root / "passbook.db")) as connection:
        (text,) = connection.execute("SELECT created_at FROM audit_logs WHERE id = ?", (CUT_ROW,)).fetchone()
    return str(text).replace(" ", "T") + "Z"


def _pruned(image: Path, _: Path, spoke: bool) -> list[str]:
    database, archive = image / "passbook.db", image / "archive.ndjson"
    try:
        engine.connect_writer(database, busy_timeout_ms=0, checkpoints=True).close()
    except (engine.EngineError, engine.DatabaseError) as error:
        return [str(error)]
    with contextlib.closing(sqlite3.connect(database)) as connection:
        first = connection.execute("SELECT MIN(id) FROM audit_logs").fetchone()[0]
    if first == 1:
        return [*broken_invariants(database), *(["it was said to be pruned and is not"] if spoke else [])]
    if not archive.exists() or not Path(f"{archive}.checkpoint").exists():
        return ["rows are gone and their archive is not there"]
    rows = [int(m[1]) for m in re.finditer(r'^\{[^\n]*?"id":\s*(\d+)', archive.read_text("utf-8"), re.MULTILINE)]
    if rows[: first - 1] != list(range(1, first)):
        return [f"rows below {first} are gone and the archive has {rows[:1]} … {rows[-1:]}"]
    with contextlib.closing(engine.connect_reader(database, busy_timeout_ms=0)) as connection:
        run = ChainCheck(connection, receipts={})
        for _chunk in run.chunks():
            pass
    return [fault.said for fault in run.faults]


def _told_of_a_key(root: Path, sound: Path) -> None:
    _sound(root, sound)
    made = passbook("keys", "create", "--name", "leaving", "--role", "bot", "--database", str(root / "passbook.db"))
    (root / "prefix").write_text("_".join(made.stdout.split("_")[:2]))


def _revoked(image: Path, _: Path, spoke: bool) -> list[str]:
    faults = _opened(image / "passbook.db")
    if not faults and spoke:
        with contextlib.closing(sqlite3.connect(image / "passbook.db")) as connection:
            sql = "SELECT 1 FROM api_keys WHERE name = 'leaving' AND revoked_at IS NOT NULL"
            if not connection.execute(sql).fetchone():
                faults.append("the key was said to be revoked and is not")
    return faults


ERASED = "400"


def _erased(image: Path, _: Path, spoke: bool) -> list[str]:
    """Killed before its end the erasure may be in part; what was said to be erased stays erased."""
    database = image / "passbook.db"
    faults = _opened(database)
    if not faults and spoke:
        with contextlib.closing(sqlite3.connect(database)) as connection:
            if connection.execute("SELECT 1 FROM users WHERE telegram_id = ?", (ERASED,)).fetchone():
                faults.append("the user was said to be erased and is there")
    return faults


def _exported(image: Path, end: Path, spoke: bool) -> list[str]:
    file = image / "export.sql"
    if not file.exists():
        return ["it was said to be exported and is not there"] if spoke else []
    return (
        [] if file.read_bytes() == (end / "export.sql").read_bytes() else ["the export has its name and is not whole"]
    )


def _bots_file(root: Path, _: Path) -> None:
    make_bots_file(root / "passbook.db")


def _migrated(image: Path, end: Path, spoke: bool) -> list[str]:
    """A migration is there whole or not at all, and before the first of them the copy is whole."""
    database = image / "passbook.db"
    try:
        with contextlib.closing(engine.connect_writer(database, busy_timeout_ms=0, checkpoints=True)) as connection:
            found = migrator.schema_of(connection)
    except (engine.EngineError, engine.DatabaseError) as error:
        return [str(error)]
    stages = migrator.stages(MIGRATIONS)
    if found not in stages:
        return ["a migration is there in part"]
    copies = list(image.glob("passbook.db.before-*"))
    wanted = next(iter(end.glob("passbook.db.before-*")))
    if found != stages[0] and not any(contents(copy) == contents(wanted) for copy in copies):
        return ["a migration has begun and the copy from before it is not there, or not whole"]
    return ["it was said to be migrated and is not"] if spoke and found != stages[-1] else []


MIGRATIONS = migrator.load(resources.folder("migrations"))
COMMANDS = (
    Command(
        "keys create",
        _sound,
        lambda root: ["keys", "create", "--name", "made", "--role", "bot", "--database", str(root / "passbook.db")],
        b"pbk_",
        _keys_made,
    ),
    Command(
        "backup",
        _sound,
        lambda root: ["backup", "--to", str(root / "copy.db"), "--database", str(root / "passbook.db")],
        b"It adds up.",
        _backed_up,
    ),
    Command(
        "restore",
        _with_copy,
        lambda root: ["restore", str(root / "copy.db"), "--replace", "--database", str(root / "passbook.db")],
        b"Restored ",
        _restored,
    ),
    Command(
        "import",
        _bots_export,
        lambda root: ["import", str(root / "export.sql"), "--database", str(root / "passbook.db")],
        b"Every balance equals",
        _imported,
    ),
    Command(
        "keys revoke",
        _told_of_a_key,
        lambda root: ["keys", "revoke", (root / "prefix").read_text(), "--database", str(root / "passbook.db")],
        b"evoked",
        _revoked,
    ),
    Command(
        "users erase",
        _sound,
        lambda root: ["users", "erase", ERASED, "--force", "--yes", "--database", str(root / "passbook.db")],
        b"rased",
        _erased,
    ),
    Command(
        "export",
        _sound,
        lambda root: ["export", str(root / "export.sql"), "--database", str(root / "passbook.db")],
        b"Wrote ",
        _exported,
    ),
    Command(
        "migrate up",
        _bots_file,
        lambda root: ["migrate", "up", "--database", str(root / "passbook.db")],
        b"Next: ",
        _migrated,
    ),
    Command(
        "audit prune",
        _sound,
        lambda root: [
            "audit",
            "prune",
            "--before",
            _first_rows_before(root),
            "--archive",
            str(root / "archive.ndjson"),
            "--yes",
            "--database",
            str(root / "passbook.db"),
        ],
        b"no longer in the database",
        _pruned,
    ),
)

ROW = Row(
    "power-loss",
    "power loss",
    "system calls recorded by strace; unsynced writes and names dropped, torn or kept",
    share=0.14,
    at_least=300,
    inject=inject,
    mutants=(WITHOUT_SYNC, UNSYNCED_COPY),
)
