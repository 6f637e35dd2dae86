"""Every check that a witness makes of its files refuses something that no other one does."""

from collections.abc import Callable
from pathlib import Path

from service.cli import audit_witness
from service.ledger import notes
from service.ledger.audit_chain import EMPTY_ROOT
from service.ledger.notes import Checkpoint, NoteError, make_signing_key
from service.ledger.witness import LogMisbehaved
from tests.removed_checks import checks_of
from tests.storage.test_each_check_of_the_log import needless

KEY, OTHER = make_signing_key("log", bytes(32)), make_signing_key("log", b"x" * 32)
NOTE = notes.sign(Checkpoint("log", 0, EMPTY_ROOT).text(), KEY).encode()
FUNCTIONS = ("_opened", "_accept")


def accepted(folder: Path, *, key: str | None, trust_first: bool, note: bytes = NOTE) -> str:
    """What a witness whose files are in `folder` says of a checkpoint that is given as a file."""
    (folder.parent / "offered").write_bytes(note)
    state = audit_witness._opened(folder, key, None, trust_first=trust_first)
    return audit_witness._accept(state, audit_witness._files(folder.parent / "offered", None))


def is_refused(attempt: Callable[[], str]) -> bool:
    """Whether it is, in words, or nothing new is accepted."""
    try:
        return not attempt().startswith("Accepted")
    except (NoteError, LogMisbehaved):
        return True


def forgeries(folder: Path) -> dict[str, Callable[[], bool]]:
    """What a witness must not accept; each has a folder of its own, which it makes anew."""
    numbers = iter(range(10**6))

    def fresh() -> Path:
        made = folder / str(next(numbers)) / "state"
        made.mkdir(parents=True)
        return made

    def used() -> Path:
        made = fresh()
        assert accepted(made, key=KEY.verifier.text(), trust_first=True).startswith("Accepted: 0 rows")
        return made

    def shown(attempt: Callable[[], str]) -> Callable[[], bool]:
        return lambda: is_refused(attempt)

    vkey, other = KEY.verifier.text(), OTHER.verifier.text()
    forged = notes.sign(Checkpoint("log", 0, EMPTY_ROOT).text(), OTHER).encode()
    grown = notes.sign(Checkpoint("log", 5, bytes(32)).text(), KEY).encode()
    assert accepted(used(), key=vkey, trust_first=False, note=grown).startswith("Accepted: 5 rows, 0 before")
    return {
        "no key is kept": shown(lambda: accepted(fresh(), key=None, trust_first=True)),
        "another key is kept": shown(lambda: accepted(used(), key=other, trust_first=True, note=grown)),
        "the first checkpoint, unasked": shown(lambda: accepted(fresh(), key=vkey, trust_first=False)),
        "the same checkpoint again": shown(lambda: accepted(used(), key=None, trust_first=False)),
        "another key's checkpoint": shown(lambda: accepted(fresh(), key=vkey, trust_first=True, note=forged)),
    }


def test_each_check_of_a_witness_of_its_files_is_needed(tmp_path: Path) -> None:
    """Of the key that it keeps, and of what it accepted before."""
    checks = checks_of(audit_witness, *FUNCTIONS)
    assert needless(checks, forgeries(tmp_path), {}) == set()
    assert len(checks) >= 4
