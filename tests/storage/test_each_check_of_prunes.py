"""Every check of an archive of pruned rows refuses something that no other one does; nothing else may let rows go."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.ledger.notes import Checkpoint, make_signing_key
from service.storage import audit_chain, audit_exports, audit_prunes, sqlite
from service.storage.audit_prunes import Archived, Prefix, PruneFailed
from service.storage.checkpoints import Contradiction, Signer
from service.storage.sqlite import Connection
from tests.removed_checks import checks_of
from tests.repository.house import make_database
from tests.storage.test_audit_verification import append, prune
from tests.storage.test_each_check_of_the_log import Change, by_hand, needless

ROWS, PRUNED, ARCHIVED = 300, 10, 280
NOTHING = by_hand()
KEY = make_signing_key("log", bytes(32))


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Connection]]:
    """Two logs without triggers: whole, and one of which rows are archived already."""
    folder = tmp_path_factory.mktemp("logs")
    with contextlib.ExitStack() as stack:
        found = {}
        for name in ("whole", "pruned"):
            path = make_database(folder / f"{name}.db")
            with contextlib.closing(sqlite.connect_writer(path, busy_timeout_ms=0, checkpoints=True)) as connection:
                append(connection, ROWS)
            if name == "pruned":
                prune(path, PRUNED)
            connection = sqlite.connect_writer(path, busy_timeout_ms=0, checkpoints=True)
            found[name] = stack.enter_context(contextlib.closing(connection))
            for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                connection.execute(f"DROP TRIGGER {trigger}")
        yield found


def lines_of(connection: Connection, first: int, size: int) -> list[bytes]:
    """An archive of the leaves from `first` to before `size`."""
    return [*audit_exports.lines(connection, first, size, lambda *_: None, step="x")]


def refused(connection: Connection, change: Change, attempt: Callable[[], object]) -> bool:
    """Whether `attempt` is refused in words after the change, which is then undone."""
    connection.execute("BEGIN")
    try:
        change(connection)
        attempt()
    except (PruneFailed, Contradiction):
        return True
    finally:
        connection.execute("ROLLBACK")
    return False


def forgeries(logs: dict[str, Connection], folder: Path) -> dict[str, Callable[[], bool]]:
    """Archives, logs and checkpoints that must let no row go."""
    whole, pruned = logs["whole"], logs["pruned"]
    honest, later = lines_of(whole, 0, ARCHIVED), lines_of(pruned, PRUNED, ARCHIVED)
    leaf = audit_chain.find_leaf(pruned, PRUNED)
    assert leaf is not None
    archives = {
        "a row edited": (whole, NOTHING, [*honest[:100], honest[100].replace(b'"bot"', b'"ops"'), *honest[101:]]),
        "rows left out": (whole, NOTHING, [*honest[:100], *honest[101:]]),
        "another leaf before it": (pruned, NOTHING, [later[0].replace(leaf.hex().encode(), b"11" * 32), *later[1:]]),
        "no row": (pruned, NOTHING, later[:1]),
        "another leaf in the log": (
            whole, by_hand("UPDATE audit_leaves SET hash = zeroblob(32) WHERE leaf_index = 3"), honest,
        ),
        "another node in the log": (whole, by_hand("UPDATE audit_nodes SET hash = zeroblob(32)"), honest),
        "a row that was never sealed": (whole, by_hand("INSERT INTO audit_logs (id, action) VALUES (-5, 'a')"), honest),
    }  # fmt: skip
    found: dict[str, Callable[[], bool]] = {}
    for number, (name, (connection, change, lines)) in enumerate(archives.items()):
        file = folder / f"{number}.ndjson"
        file.write_bytes(b"".join(lines))
        found[name] = _verified(connection, change, file)
    unsealed = by_hand(f"INSERT INTO audit_logs (id, action, created_at) VALUES ({ROWS + 1}, 'a', '2020-01-01')")
    found["the last row was never sealed"] = lambda: refused(
        whole, unsealed, lambda: audit_prunes.find_prefix(whole, before="2030-01-01 00:00:00")
    )
    prefix = Prefix(first_index=0, size=5, through_id=5, created_at_min=None, created_at_max=None)
    roots = {"another root than was signed": bytes(32), "a tree that is none": audit_chain.root_of(whole, 5)}
    no_tree = by_hand("UPDATE audit_tree SET frontier = zeroblob(length(frontier))")
    signed = Checkpoint("log", 8, audit_chain.root_of(whole, 8))

    def signs(root: bytes, last: Checkpoint | None) -> str:
        signer = Signer(folder / "key", KEY, last, "", made=False)
        return audit_prunes.sign_checkpoint(whole, signer, Archived(prefix=prefix, root=root, sha256=bytes(32)))

    for name, root in roots.items():
        last, change = (signed, NOTHING) if root == bytes(32) else (None, no_tree)
        found[name] = _attempt(whole, change, lambda root=root, last=last: signs(root, last))  # type: ignore[misc]
    assert not refused(whole, NOTHING, lambda: signs(roots["a tree that is none"], signed))
    (folder / "taken.checkpoint").write_text("another one")
    found["another checkpoint has its name"] = lambda: refused(
        whole, NOTHING, lambda: audit_prunes.write_checkpoint(folder / "taken", "a note")
    )
    return found


def _attempt(connection: Connection, change: Change, attempt: Callable[[], object]) -> Callable[[], bool]:
    return lambda: refused(connection, change, attempt)


def _verified(connection: Connection, change: Change, file: Path) -> Callable[[], bool]:
    return _attempt(connection, change, lambda: audit_prunes.verify_archive(connection, file, lambda *_: None))


def test_an_honest_archive_is_taken(logs: dict[str, Connection], tmp_path: Path) -> None:
    """Of the oldest rows, and of those that come after an archive; else nothing would be proved below."""
    for name, first in (("whole", 0), ("pruned", PRUNED)):
        file = tmp_path / name
        file.write_bytes(b"".join(lines_of(logs[name], first, ARCHIVED)))
        found = audit_prunes.verify_archive(logs[name], file, lambda *_: None)
        assert (found.prefix.first_index, found.prefix.size) == (first, ARCHIVED)


def test_each_check_of_a_prune_is_needed(logs: dict[str, Connection], tmp_path: Path) -> None:
    """Of what is read back, of the rows that go, and of what is signed."""
    checks = checks_of(audit_prunes)
    repeated = {
        "verify_archive: _verify(connection, verifier, rows, file)": "then the archive counts as one of no rows"
    }
    assert needless(checks, forgeries(logs, tmp_path), repeated) == set()
    assert len(checks) >= 10
