"""passbook audit verify, as a script reads it: what it is compared with, and the exit code of every outcome."""

import contextlib
import json
import shutil
import sqlite3
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.cli import main
from service.ledger import notes
from service.ledger.audit_chain import NO_LEAF
from service.ledger.notes import Checkpoint, make_signing_key
from service.storage import audit_chain, sqlite
from service.storage.checkpoints import Signer, last_file_of
from tests.repository.house import make_database, writing
from tests.some import some
from tests.storage.test_audit_verification import append, by_hand, receipt, seal_anew

ROWS = 30
SOUND, TAMPERED, CANNOT_BE_CHECKED = 0, 1, 2


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a log that the service has signed: p.db, its key and its last checkpoint. Not to be changed."""
    folder = tmp_path_factory.mktemp("signed")
    with writing(make_database(folder / "p.db")) as connection:
        append(connection, ROWS)
        signer = Signer.open(folder / "p.db.audit-key", origin="log")
        signer.sign(signer.check(connection))
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return folder


@pytest.fixture
def log(signed: Path, tmp_path: Path) -> Path:
    """A copy of its database, with key and checkpoint beside it."""
    shutil.copytree(signed, tmp_path / "log")
    return tmp_path / "log" / "p.db"


def verified(log: Path, *options: str | Path) -> tuple[int, str]:
    """Exit code and all that was said."""
    ran = CliRunner().invoke(main, ["audit", "verify", "--database", str(log), *map(str, options)])
    return ran.exit_code, ran.output


def key_of(log: Path) -> str:
    """The public half of its key."""
    return notes.read_signing_key(log.with_name("p.db.audit-key").read_text().strip()).verifier.text()


def receipt_line(audit_log_id: int, leaf: bytes) -> str:
    return f"id={audit_log_id}, leaf=:{b64encode(leaf).decode()}:"


def test_the_last_checkpoint_of_the_service_is_compared_unasked(log: Path) -> None:
    """A log that was rewritten as a whole fits together; what the service signed last finds it."""
    code, said = verified(log)
    assert (code, f"compared with the checkpoint of {ROWS} rows" in said) == (SOUND, True), said
    with by_hand(log) as hand:
        hand.execute("UPDATE audit_logs SET actor = 'nobody' WHERE id = 7")
        seal_anew(hand, 0)
    code, said = verified(log)
    assert (code, f"the first {ROWS} rows are not those that log signed" in said) == (TAMPERED, True), said
    last_file_of(log.with_name("p.db.audit-key")).unlink()
    code, said = verified(log)
    assert (code, "Only what was kept elsewhere shows" in said) == (SOUND, True), said


def test_a_log_that_lost_its_end_is_found_by_the_last_checkpoint(log: Path, tmp_path: Path) -> None:
    """Rows that were signed, and are gone without a trace in what is left."""
    shorter = make_database(tmp_path / "shorter.db")
    with writing(shorter) as connection:
        append(connection, ROWS - 1)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(shorter, log)
    code, said = verified(log)
    assert (code, "the log was cut off" in said) == (TAMPERED, True), said


def test_each_kind_of_evidence_is_compared(log: Path, tmp_path: Path) -> None:
    """A checkpoint, a file of a proof, and receipts, each alone; with the service's own key or a given one."""
    root = Checkpoint("log", ROWS, NO_LEAF)
    signer = notes.read_signing_key(log.with_name("p.db.audit-key").read_text().strip())
    forged = notes.sign(root.text(), signer)
    with contextlib.closing(sqlite.connect_reader(log, busy_timeout_ms=0)) as connection:
        node = audit_chain.nodes(connection)
        true = notes.sign(Checkpoint("log", 8, audit_chain.root_of(connection, 8)).text(), signer)
        path = tuple(notes_path(node))
    proofs = {note: notes.InclusionProof(0, path, note, None).text() for note in (forged, true)}
    files = {
        "--checkpoint": {forged: TAMPERED, true: SOUND, proofs[forged]: TAMPERED, proofs[true]: SOUND},
        "--receipts": {receipt_line(5, NO_LEAF): TAMPERED, receipt_line(5, receipt(log, 5)[5]): SOUND},
    }
    for option, texts in files.items():
        for text, wanted in some(texts.items()):
            (tmp_path / "evidence").write_text(text)
            for more in ([], ["--key", key_of(log)]):
                code, said = verified(log, option, tmp_path / "evidence", *more)
                assert code == wanted, (option, text, said)


def notes_path(node: Callable[[int, int], bytes]) -> list[bytes]:
    """The hashes beside the way from leaf 0 to the root of 8 leaves."""
    return [node(level, 1) for level in range(3)]


def test_two_receipts_of_one_row_cannot_both_be_true(log: Path, tmp_path: Path) -> None:
    """Whichever comes first: 2, with the line. The same receipt twice is one receipt."""
    true, other = receipt_line(5, receipt(log, 5)[5]), receipt_line(5, receipt(log, 6)[6])
    file = tmp_path / "receipts"
    for lines in ([true, other], [other, true], [other, "", true], [true, true, other]):
        file.write_text("\n".join(lines))
        code, said = verified(log, "--receipts", file)
        assert (code, f"line {len(lines)}: row 5 has two different receipts" in said) == (CANNOT_BE_CHECKED, True), said
    file.write_text(f"{true}\n{true}\n")
    code, said = verified(log, "--receipts", file)
    assert (code, "1 receipts" in said) == (SOUND, True), said


def test_what_cannot_be_told_ends_with_2(log: Path, tmp_path: Path) -> None:
    """Never with the exit code of a log that is sound, or of one that was tampered with; one sentence."""
    other = make_signing_key("other", bytes(32))
    foreign, junk, empty = tmp_path / "foreign", tmp_path / "junk", tmp_path / "empty.db"
    foreign.write_text(notes.sign(Checkpoint("other", 1, NO_LEAF).text(), other))
    junk.write_text("neither this nor that\n")
    empty.write_bytes(b"")
    with contextlib.closing(sqlite3.connect(tmp_path / "foreign.db")) as connection:
        connection.execute("CREATE TABLE recipes (id INTEGER)")
    (tmp_path / "keyless").mkdir()
    keyless = Path(shutil.copy(log, tmp_path / "keyless" / "p.db"))
    cases: dict[str, tuple[Path, list[str | Path]]] = {
        "no database": (tmp_path / "nowhere.db", []),
        "an empty file": (empty, []),
        "another program's database": (tmp_path / "foreign.db", []),
        "no SQLite database": (junk, []),
        "no key": (log, ["--key", "no key"]),
        "another key": (log, ["--key", other.verifier.text(), "--checkpoint", last_file_of(Path(f"{log}.audit-key"))]),
        "a checkpoint of another log": (log, ["--checkpoint", foreign]),
        "no checkpoint": (log, ["--checkpoint", junk]),
        "no receipts": (log, ["--receipts", junk]),
        "a checkpoint and no key": (keyless, ["--checkpoint", last_file_of(Path(f"{log}.audit-key"))]),
    }
    for name, (database, options) in cases.items():
        for form in ([], ["--json"]):
            code, said = verified(database, *options, *form)
            assert (code, said.count("\n")) == (CANNOT_BE_CHECKED, 1), (name, said)
    last_file_of(Path(f"{log}.audit-key")).write_text("spoilt")
    assert verified(log)[0] == CANNOT_BE_CHECKED


def test_the_report_says_what_the_exit_code_says(log: Path) -> None:
    """As JSON: sound with 0, and not with 1."""
    code, said = verified(log, "--json")
    report = json.loads(said)
    assert (code, report["sound"], report["checkpoints"], report["faults"]) == (SOUND, True, [ROWS], [])
    with by_hand(log) as hand:
        hand.execute("UPDATE audit_logs SET actor = 'nobody' WHERE id = 7")
    code, said = verified(log, "--json")
    report = json.loads(said)
    assert (code, report["sound"], report["faults"][0]["audit_log_id"]) == (TAMPERED, False, 7)
