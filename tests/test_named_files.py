"""What gets a name is on the disk first, private and whole: backups, archives, keys, checkpoints, exports, databases.

Each case runs under `Disk`. It runs once as it is, once for each place that syncs, with that place deaf, and once for
each call, with that call failing. A function of service/ that names or syncs a file and that no case reaches fails the
last test.
"""

import ast
import contextlib
import itertools
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.cli import main, serve
from service.cli.common import KNOWN_ERRORS
from service.config import Config
from service.ledger.audit_chain import consistency_proof, root_at
from service.ledger.notes import COSIGNATURE, Checkpoint, base64_hashes, make_signing_key, sign
from service.storage import migrator, sqlite
from service.storage.checkpoints import Contradiction, KeyUnusable, Signer
from tests.audit.vectors import node_of
from tests.ledger.test_audit_chain import leaves_of
from tests.named_files import SERVICE, SYNCS, Disk, Place, files_below
from tests.storage.test_audit_verification import append
from tests.storage.test_importer import MIGRATIONS, make_bots_file

PASSING = (".lock", "lock", ".turn", ".retention", "-wal", "-shm", ".retention.lock")
"""How the names end of files whose content nobody needs after a power cut: locks, and what SQLite syncs itself."""
KEY = make_signing_key("log", bytes(32))
WITNESS = make_signing_key("w", bytes(range(32)), algorithm=COSIGNATURE)
LEAVES = leaves_of(9)


@dataclass(frozen=True)
class Case:
    """A command that gives names. prepare: what lies in the folder before. run: does it there; its exit code.

    gives: how the names match that it gives. writes: of files that it writes under their names. moves: names that it
    takes away. in_place: databases that SQLite writes. code: the exit code.
    """

    prepare: Callable[[Path], object]
    run: Callable[[Path], tuple[int, str]]
    gives: tuple[str, ...]
    writes: tuple[str, ...] = ()
    moves: tuple[str, ...] = ()
    in_place: tuple[str, ...] = ("p.db",)
    code: int = 0


@dataclass(frozen=True)
class Ran:
    """A run of a case. said: its output. before, after: what lay in the folder."""

    disk: Disk
    code: int
    said: str
    before: dict[str, bytes]
    after: dict[str, bytes]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sealed database with the key of its log; not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    _make(folder / "p.db")
    return folder


def _make(path: Path) -> None:
    with contextlib.closing(sqlite.connect_writer(path, busy_timeout_ms=0, checkpoints=True)) as connection:
        migrator.up(connection, MIGRATIONS, lambda _: None)
        append(connection, 12)
        signer = Signer.open(path.with_name("p.db.audit-key"), origin="log")
        signer.sign(signer.check(connection))


def _cli(*arguments: str) -> Callable[[Path], tuple[int, str]]:
    """`passbook …` in this process; FOLDER stands for the folder."""

    def run(folder: Path) -> tuple[int, str]:
        ran = CliRunner().invoke(main, [one.replace("FOLDER", str(folder)) for one in arguments])
        if ran.exception is not None and not isinstance(ran.exception, SystemExit):
            raise ran.exception
        return ran.exit_code, ran.output

    return run


def _sign(folder: Path) -> tuple[int, str]:
    with contextlib.closing(sqlite.connect_reader(folder / "p.db", busy_timeout_ms=0)) as connection:
        try:
            signer = Signer.open(folder / "keys" / "key", origin="log")
            signer.sign(signer.check(connection))
        except (OSError, KeyUnusable, Contradiction) as error:
            return 1, str(error)
    return 0, ""


def _sign_on(folder: Path) -> tuple[int, str]:
    try:
        with contextlib.closing(sqlite.connect_reader(folder / "p.db", busy_timeout_ms=0)) as connection:
            signer = Signer.open(folder / "p.db.audit-key")
            signer.sign(signer.check(connection))
    except (OSError, KeyUnusable, Contradiction) as error:
        return 1, str(error)
    return 0, ""


def _grow(folder: Path) -> None:
    with contextlib.closing(sqlite.connect_writer(folder / "p.db", busy_timeout_ms=0, checkpoints=True)) as connection:
        append(connection, 3)


def _earlier(folder: Path) -> None:
    shutil.copy(folder / "p.db", folder / "q.db")
    _grow(folder)


def _new_ledger(new: bool) -> Callable[[Path], tuple[int, str]]:
    def run(folder: Path) -> tuple[int, str]:
        try:
            serve._prepare(Config(database=str(folder / "data" / "p.db")), new=new)
        except (*KNOWN_ERRORS, OSError, sqlite.DatabaseError) as error:
            return 1, str(error)
        return 0, ""

    return run


def _checkpoint(folder: Path, size: int, name: str) -> None:
    text = sign(Checkpoint("log", size, root_at(size, node_of(LEAVES))).text(), KEY)
    (folder / name).write_text(text, "utf-8")


def _to_witness(folder: Path) -> None:
    _checkpoint(folder, 4, "4.checkpoint")
    _checkpoint(folder, 9, "9.checkpoint")
    _checkpoint(folder, 2, "2.checkpoint")
    proof = base64_hashes(consistency_proof(4, 9, node_of(LEAVES)))
    (folder / "proof.json").write_text(f'{{"from": 4, "to": 9, "proof": {proof}}}'.replace("'", '"'), "utf-8")
    (folder / "witness.key").write_text(WITNESS.text(), "utf-8")


def _witnessed(folder: Path) -> None:
    _to_witness(folder)
    assert _cli(*WITNESS_FIRST)(folder)[0] == 0


WITNESS_OPTIONS = ("audit", "witness", "--state", "FOLDER/state", "--cosign-key", "FOLDER/witness.key", "--checkpoint")
WITNESS_FIRST = (*WITNESS_OPTIONS, "FOLDER/4.checkpoint", "--key", KEY.verifier.text(), "--trust-first")
DATABASE = ("--database", "FOLDER/p.db")
STAMP = r"\d{8}[T_]\d{6}Z?"


def _old_bot(folder: Path) -> None:
    make_bots_file(folder / "bots.sqlite")
    (folder / "r").mkdir()


def _otherwise_old_bot(folder: Path) -> None:
    make_bots_file(folder / "bots.sqlite", extra="ALTER TABLE users ADD COLUMN language TEXT;")


def _alone(folder: Path) -> None:
    """Beside the place of a database that is gone lies its key."""
    (folder / "data").mkdir()
    for name in ("p.db.audit-key", "p.db.audit-key.checkpoint"):
        (folder / name).rename(folder / "data" / name)


def _archive_left(folder: Path) -> None:
    """An earlier run wrote the archive and was killed before it was on record."""
    assert _cli(*PRUNE)(folder)[0] == 0
    (folder / "archive" / "old.ndjson.checkpoint").unlink()
    for path in folder.glob("p.db*"):
        path.unlink()
    shutil.copytree(folder / "before", folder, dirs_exist_ok=True)


def _prunable(folder: Path) -> None:
    (folder / "archive").mkdir()


def _left(folder: Path) -> None:
    shutil.copytree(folder, folder / "before", ignore=shutil.ignore_patterns("before"))
    _prunable(folder)
    _archive_left(folder)


PRUNE = (
    *("audit", "prune", *DATABASE, "--before", "2026-01-19T12:00:10Z"),
    *("--archive", "FOLDER/archive/old.ndjson", "--yes"),
)
BACKUP = ("backup", *DATABASE, "--no-proof", "--to", "FOLDER/copy.db")

CASES = {
    "backup": Case(lambda _: None, _cli(*BACKUP), (r"copy\.db",)),
    "backup in its own folder": Case(
        lambda _: None, _cli("backup", *DATABASE, "--no-proof"), (rf"backups/passbook-{STAMP}\.db",)
    ),
    "restore": Case(
        lambda _: None, _cli("restore", "--no-proof", "FOLDER/p.db", "--database", "FOLDER/a/b/q.db"), (r"a/b/q\.db",)
    ),
    "restore over an old one": Case(
        _earlier,
        _cli("restore", "--no-proof", "FOLDER/p.db", "--database", "FOLDER/q.db", "--replace"),
        (r"q\.db", rf"q\.db\.before-restore-{STAMP}"),
        in_place=("q.db",),
    ),
    "prune": Case(_prunable, _cli(*PRUNE), (r"archive/old\.ndjson", r"archive/old\.ndjson\.checkpoint")),
    "prune whose archive is there": Case(_left, _cli(*PRUNE), (r"archive/old\.ndjson\.checkpoint",)),
    "key and first checkpoint": Case(lambda _: None, _sign, (r"keys/key", r"keys/key\.checkpoint")),
    "next checkpoint": Case(_grow, _sign_on, (r"p\.db\.audit-key\.checkpoint",)),
    "export": Case(lambda _: None, _cli("export", *DATABASE, "FOLDER/out.sql"), (r"out\.sql",)),
    "export of the log": Case(
        lambda _: None, _cli("audit", "export", *DATABASE, "--sealed", "--output", "FOLDER/log"), (r"log",)
    ),
    "import": Case(
        _old_bot,
        _cli("import", "--database", "FOLDER/a/q.db", "--report", "FOLDER/r/report", "FOLDER/bots.sqlite"),
        (r"a/q\.db",),
        writes=(r"r/report",),
    ),
    "new ledger": Case(lambda _: None, _new_ledger(new=False), (r"data/p\.db",)),
    "new ledger beside an old key": Case(
        _alone,
        _new_ledger(new=True),
        (r"data/p\.db", *(rf"data/p\.db\.audit-key{end}\.before-new-{STAMP}" for end in ("", r"\.checkpoint"))),
        moves=("data/p.db.audit-key", "data/p.db.audit-key.checkpoint"),
    ),
    "copy before a migration": Case(
        lambda _: None, _cli("migrate", "down", *DATABASE, "--yes"), (rf"p\.db\.before-rollback-{STAMP}",)
    ),
    "database made by migrate": Case(
        lambda _: None, _cli("migrate", "up", "--database", "FOLDER/new/q.db"), (), writes=(r"new/q\.db",)
    ),
    "tables of a D1 to be adapted": Case(
        _otherwise_old_bot, _cli("migrate", "adapt", "FOLDER/bots.sqlite", "FOLDER/fit.sql"), (r"fit\.sql",)
    ),
    "first words of a witness": Case(
        _to_witness,
        _cli(*WITNESS_FIRST),
        (r"state/verifier-key", r"state/latest\.checkpoint"),
        writes=(r"state/accepted\.ndjson",),
    ),
    "next words of a witness": Case(
        _witnessed,
        _cli(*WITNESS_OPTIONS, "FOLDER/9.checkpoint", "--consistency", "FOLDER/proof.json"),
        (r"state/latest\.checkpoint",),
        writes=(r"state/accepted\.ndjson",),
    ),
    "what a witness refused": Case(
        _witnessed,
        _cli(*WITNESS_OPTIONS, "FOLDER/2.checkpoint"),
        (),
        writes=(r"state/refused\.ndjson",),
        code=1,
    ),
}


@pytest.fixture(params=CASES)
def prepared(request: pytest.FixtureRequest, made: Path, tmp_path: Path) -> tuple[Case, Callable[..., Ran]]:
    """Each case, and a function that runs it anew in the folder as it was prepared."""
    case, folder, kept = CASES[request.param], tmp_path / "f", tmp_path / "kept"
    shutil.copytree(made, folder)
    case.prepare(folder)
    folder.rename(kept)

    def run(**options: int) -> Ran:
        if folder.exists():
            shutil.rmtree(folder)
        shutil.copytree(kept, folder)
        with Disk(folder, PASSING, **options) as disk:  # type: ignore[arg-type]
            code, said = case.run(folder)
        return Ran(disk, code, said, contents(kept), contents(folder))

    return case, run


def contents(folder: Path) -> dict[str, bytes]:
    """Name -> bytes of what lies below `folder` and is of use after a power cut."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in files_below(folder)
        if not path.name.endswith(PASSING)
    }


def unexplained(case: Case, names: Iterable[str]) -> list[str]:
    """The names that are none of those that the case gives."""
    return [name for name in names if not any(re.fullmatch(pattern, name) for pattern in (*case.gives, *case.writes))]


def test_what_gets_a_name_is_on_the_disk_first_and_private(prepared: tuple[Case, Callable[..., Ran]]) -> None:
    """Content before the name, in the same folder, the folder after it, mode 0600, and nothing else is left there."""
    case, run = prepared
    ran = run()
    assert ran.code == case.code, ran.said
    assert ran.disk.judge() == []
    given = {name for name in ran.after if ran.after[name] != ran.before.get(name)}
    assert unexplained(case, given - {"p.db"}) == []
    missing = [pattern for pattern in (*case.gives, *case.writes) if not any(re.fullmatch(pattern, n) for n in given)]
    assert missing == []
    by_name = {str(path.relative_to(ran.disk.folder)) for path in ran.disk.named()}
    assert [name for name in given - by_name - {"p.db"} if not any(re.fullmatch(p, name) for p in case.writes)] == []


def test_no_sync_can_be_left_out(prepared: tuple[Case, Callable[..., Ran]]) -> None:
    """The oracle of the test above finds each single sync that does nothing."""
    _, run = prepared
    disk = run().disk
    syncs = [number for number, call in enumerate(disk.calls) if call.what in SYNCS and number not in disk.idle]
    assert syncs
    missed = []
    for number in syncs:
        disk = run(deaf_at=number).disk
        if not disk.judge():
            missed.append(disk.calls[number])
    assert missed == []


def test_a_failure_at_any_call_leaves_the_old_whole_and_nothing_half(prepared: tuple[Case, Callable[..., Ran]]) -> None:
    """It is told, unless all was done; each name holds what it held, or what is on the disk; no other name is left."""
    case, run = prepared
    for number in itertools.count():
        ran = run(fail_at=number)
        call = ran.disk.failed
        if call is None:
            assert number > 0, "no call could fail"
            return
        told = f"{call} failed; exit code {ran.code}: {ran.said}"
        assert "Traceback" not in ran.said, told
        if ran.code == 0:
            # What was to be taken away may stay, and a link may give way to a rename.
            assert call.what in {"unlink", "link"}, told
        if ran.code == case.code:
            assert ran.disk.judge() == [], told
        assert not ran.disk.faults, told
        lost = [
            name for name in ran.before if name not in ran.after and not any(map(re.compile(name).match, case.gives))
        ]
        assert [name for name in lost if name not in case.moves] == [], told
        changed = {name for name in ran.after if ran.after[name] != ran.before.get(name)} - {*case.in_place}
        left = unexplained(case, changed)
        assert left == [] or call.what == "unlink", f"{left} was left: {told}"
        whole = {name for name in changed if ran.disk.folder / name in ran.disk.named()}
        in_place = [n for n in changed - {*left} - whole if not any(re.fullmatch(one, n) for one in case.writes)]
        assert in_place == [], f"they were written in place: {told}"


NO_NAME: dict[Place, str] = {
    ("storage/lock.py", "sign_as_writer"): "a lock file tells who holds it now; nobody needs it after a power cut",
    ("storage/probes.py", "_take_room"): "a file without a name",
}
"""Places that write and need no case, and why."""
WRITERS = {
    "rename", "replace", "renames", "link", "hardlink_to", "symlink", "symlink_to", "write_bytes", "write_text",
    "touch", "fsync", "fdatasync", "sync", "mkstemp", "TemporaryFile", "NamedTemporaryFile", "mkdtemp", "copyfile",
    "copy2",
    "move", "truncate", "ftruncate",
}  # fmt: skip


def _places_of(file: Path) -> Iterator[tuple[Place, str]]:
    """Each function in which a file is named, made, written or synced, and by what."""

    def walk(node: ast.AST, name: str) -> Iterator[tuple[Place, str]]:
        for child in ast.iter_child_nodes(node):
            inner = name
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = f"{name}.{child.name}" if name else child.name
            if isinstance(child, ast.Call) and _writes(child):
                yield (str(file.relative_to(SERVICE)), name), ast.unparse(child)
            yield from walk(child, inner)

    return walk(ast.parse(file.read_text("utf-8")), "")


def _writes(call: ast.Call) -> bool:
    if isinstance(call.func, ast.Name):
        mode = call.args[1] if len(call.args) > 1 else None
        return call.func.id == "open" and isinstance(mode, ast.Constant) and {*"wax+"} & {*str(mode.value)} != set()
    if not isinstance(call.func, ast.Attribute):
        return False
    name, whole = call.func.attr, ast.unparse(call)
    if name == "open":
        return "O_CREAT" in whole or any(
            isinstance(one, ast.Constant)
            and isinstance(one.value, str)
            and re.fullmatch("[rwaxbt+]*[wax+][bt+]*", one.value)
            for one in [*call.args, *(keyword.value for keyword in call.keywords)]
        )
    is_of_text = name == "replace" and (len(call.args) != 1 or call.keywords) and not whole.startswith("os.")
    return name in WRITERS and not is_of_text


def test_every_place_that_names_or_syncs_a_file_has_a_case(made: Path, tmp_path: Path) -> None:
    """By the program's own text: a new backup, key or report is not written past this file."""
    reached: set[Place] = set()
    for number, case in enumerate(CASES.values()):
        folder = tmp_path / str(number)
        shutil.copytree(made, folder)
        case.prepare(folder)
        with Disk(folder, PASSING) as disk:
            case.run(folder)
        reached.update(place for call in disk.calls for place in call.places[:2])
    wanted = {place: said for file in SERVICE.rglob("*.py") for place, said in _places_of(file)}
    assert {place: said for place, said in wanted.items() if place not in reached | {*NO_NAME}} == {}
    assert {*NO_NAME} - {*wanted} == set()
