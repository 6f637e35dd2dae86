"""What was done to a log is found in its export, and by what: the rows alone, a checkpoint, a receipt, a proof."""

import os
import pty
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from service.ledger.audit_chain import NO_LEAF, inclusion_proof, root_at
from service.ledger.notes import Checkpoint, InclusionProof, make_signing_key, sign
from tests.audit import verifiers
from tests.audit.log import export_lines, frontier_of, sealed_rows, usual_rows
from tests.audit.vectors import node_of
from tests.printed import stands
from tests.some import some

ORIGIN = "passbook.example/log"
KEY = make_signing_key(ORIGIN, bytes(32))
VKEY = KEY.verifier.text()
ROWS = usual_rows(40)
LOG = sealed_rows(ROWS, erased={7, 8})
LEAVES = [row[-1] for row in LOG]
Log = list[list[Any]]


def checkpoint_of(log: Log) -> str:
    return sign(Checkpoint(ORIGIN, len(log), frontier_of(log).root()).text(), KEY)


def receipt_of(row: Sequence[Any]) -> str:
    return f"id={row[1]}, leaf=:{b64encode(row[-1]).decode()}:"


def proof_of(index: int, size: int, extra: bytes | None = None) -> str:
    node = node_of(LEAVES)
    note = sign(Checkpoint(ORIGIN, size, root_at(size, node)).text(), KEY)
    return InclusionProof(index, tuple(inclusion_proof(index, size, node)), note, extra).text()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What others kept: checkpoints at 20 and at the end, receipts of ids 11 and 39, proofs of leaves 10 and 38."""
    folder = tmp_path_factory.mktemp("kept")
    (folder / "20.checkpoint").write_text(checkpoint_of(LOG[:20]), "utf-8")
    (folder / "40.checkpoint").write_text(checkpoint_of(LOG), "utf-8")
    (folder / "receipts.txt").write_text(f"{receipt_of(LOG[10])}\r\n\nPassbook-Receipt: {receipt_of(LOG[38])}\n")
    (folder / "10.tlog-proof").write_text(proof_of(10, 20, LEAVES[10]), "utf-8")
    (folder / "38.tlog-proof").write_text(proof_of(38, 40), "utf-8")
    return folder


def evidence(kept: Path, *names: str) -> list[str | Path]:
    options: list[str | Path] = ["--key", VKEY] if names != ("receipts.txt",) else []
    for name in names:
        option = {".txt": "--receipts", ".checkpoint": "--checkpoint", ".tlog-proof": "--proof"}[Path(name).suffix]
        options += [option, kept / name]
    return options


EVERYTHING = ("20.checkpoint", "40.checkpoint", "receipts.txt", "10.tlog-proof", "38.tlog-proof")


def test_a_sound_log_is_sound(verify: verifiers.Verifier, kept: Path, tmp_path: Path) -> None:
    """From a file or a pipe, with or without what others kept."""
    export = b"".join(export_lines(LOG))
    file = tmp_path / "log.ndjson"
    file.write_bytes(export)
    root = b64encode(frontier_of(LOG).root()).decode()
    code, said = verify(file)
    assert (code, f"40 rows fit together. Of 40 leaves the root is {root}" in said) == (0, True)
    assert "No checkpoint was compared" in said
    code, said = verify("-", *evidence(kept, *EVERYTHING), given=export)
    assert code == 0, said
    assert said.count("ok: ") == 6
    assert "No checkpoint" not in said
    code, said = verify(*evidence(kept, "20.checkpoint"), "--quiet", given=export)
    assert (code, said.count("ok: ")) == (0, 0)
    assert "The last 20 rows are newer than the newest checkpoint" in said


def edited(at: int) -> list[list[Any]]:
    rows = [[*row] for row in ROWS]
    rows[at][2] = 999_999
    return rows


def rewritten(log: Log, at: int) -> Log:
    """The first rows as they were, then one more edited and all later leaves made anew."""
    return [*log[:at], *sealed_rows(edited(at), {7, 8})[at:]]


def regrown(count: int) -> Log:
    """`count` rows as they were, then other ones."""
    rows = [*ROWS[:count], *([row[0], 99, *row[2:]] for row in ROWS[count:])]
    return sealed_rows(rows, {7, 8})


def edit_only(at: int, column: int, value: Any) -> Log:
    log = [[*row] for row in LOG]
    log[at][column] = value
    return log


def edit_and_reseal(at: int) -> Log:
    return [*LOG[:at], sealed_rows(edited(at), {7, 8})[at], *LOG[at + 1 :]]


def renumbered(log: Log) -> Log:
    return [[index, *row[1:]] for index, row in enumerate(log)]


def swapped(log: Log, one: int, other: int) -> Log:
    out = [*log]
    out[one], out[other] = log[other], log[one]
    return out


# By what each is found: a = the rows alone, c = the newest checkpoint, o = the older one (of 20 rows), R = the receipts
# of ids 11 and 39, p = the proof of leaf 10, P = that of leaf 38.
TAMPERINGS: dict[str, tuple[Callable[[], Log], str, str]] = {
    "edit": (lambda: edit_only(12, 3, 5), "a", "row id 13 (leaf 12"),
    "edit of the details": (lambda: edit_only(12, 7, "{}"), "a", "row id 13 (leaf 12"),
    "edit of a telegram id": (lambda: edit_only(12, 6, "1"), "a", "row id 13 (leaf 12"),
    "edit of a salt": (lambda: edit_only(12, 15, bytes(16)), "a", "row id 13 (leaf 12"),
    "edit of an erased row": (lambda: edit_only(7, 7, "{}"), "a", "row id 8 (leaf 7"),
    "a name in an erased row": (lambda: edit_only(7, 6, "1"), "a", "row id 8 (leaf 7"),
    "another commitment": (lambda: edit_only(7, 17, bytes(32)), "a", "row id 8 (leaf 7"),
    "edit and a leaf made anew": (lambda: edit_and_reseal(12), "a", "row id 14 (leaf 13"),
    "edit of the last row and its leaf": (lambda: edit_and_reseal(39), "c", "the first 40 rows are not those of"),
    "delete": (lambda: LOG[:12] + LOG[13:], "a", "row id 14 (leaf 13"),
    "delete and number anew": (lambda: renumbered(LOG[:12] + LOG[13:]), "a", "row id 14 (leaf 12"),
    "delete the first": (lambda: LOG[1:], "a", "row id 2 (leaf 1"),
    "delete the first and number anew": (lambda: renumbered(LOG[1:]), "a", "row id 2 (leaf 0"),
    "insert": (lambda: renumbered([*LOG[:12], LOG[30], *LOG[12:]]), "a", "row id 31 (leaf 12"),
    "double": (lambda: renumbered([*LOG[:13], LOG[12], *LOG[13:]]), "a", "row id 13 (leaf 13"),
    "swap": (lambda: swapped(LOG, 12, 13), "a", "row id 14 (leaf 13"),
    "swap and number anew": (lambda: renumbered(swapped(LOG, 12, 13)), "a", "row id 14 (leaf 12"),
    "truncate": (lambda: LOG[:30], "cRP", "the end is missing"),
    "truncate by one": (lambda: LOG[:39], "c", "the end is missing"),
    "empty": (list, "coRpP", "the end is missing"),
    "rewrite from an early row on": (lambda: rewritten(LOG, 5), "coRpP", "the first 40 rows are not those of"),
    "rewrite from a late row on": (lambda: rewritten(LOG, 25), "cRP", "those up to 20 are"),
    "truncate and grow again": (lambda: regrown(30), "cRP", "the first 40 rows are not those of"),
    "an older backup": (lambda: LOG[:25], "cRP", "the end is missing"),
    "an older backup, and on": (lambda: regrown(25), "cRP", "the first 40 rows are not those of"),
    "everything made anew": (lambda: regrown(0), "coRpP", "the first 40 rows are not those of"),
}
PIECES = {
    "c": "40.checkpoint",
    "o": "20.checkpoint",
    "R": "receipts.txt",
    "p": "10.tlog-proof",
    "P": "38.tlog-proof",
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampering_is_found_by_what_is_said_to_find_it(verify: verifiers.Verifier, kept: Path, name: str) -> None:
    """By exactly what the threat model names, and by nothing less."""
    tamper, found_by, words = TAMPERINGS[name]
    export = b"".join(export_lines(tamper()))
    code, said = verify("-", given=export)
    if found_by == "a":
        assert (code, f"TAMPERED: {words}" in said) == (1, True), said
        return
    assert code == 0, said
    code, said = verify("-", *evidence(kept, *EVERYTHING), given=export)
    assert (code, words in said) == (1, True), said
    for file in some(PIECES[piece] for piece in found_by):
        code, said = verify("-", *evidence(kept, file), given=export)
        assert code == 1, (file, said)
    others = [file for piece, file in PIECES.items() if piece not in found_by]
    code, said = verify("-", *evidence(kept, *others), given=export)
    assert code == 0, said


def test_erasing_personal_values_is_not_tampering(verify: verifiers.Verifier, kept: Path) -> None:
    """By design: the leaf stays, and what is left is still proved."""
    erased = sealed_rows(ROWS, set(range(0, 40, 3)) | {7, 8})
    assert [row[-1] for row in erased] == LEAVES
    code, said = verify("-", *evidence(kept, *EVERYTHING), given=b"".join(export_lines(erased)))
    assert code == 0, said


def test_a_log_without_its_oldest_rows_is_checked_from_there_on(verify: verifiers.Verifier, kept: Path) -> None:
    """Against the newest checkpoint; what lies before it cannot be told, and that is said."""
    export = b"".join(export_lines(LOG, 15))
    code, said = verify("-", *evidence(kept, "20.checkpoint", "40.checkpoint", "38.tlog-proof"), given=export)
    assert code == 0, said
    assert stands("25 rows fit together. Of 40 leaves", said)
    code, said = verify("-", *evidence(kept, "10.tlog-proof", "receipts.txt"), given=export)
    assert code == 2, said
    assert "UNKNOWN: row id 11, of which" in said
    assert "UNKNOWN: leaf 10, which" in said
    code, said = verify("-", *evidence(kept, "20.checkpoint"), given=b"".join(export_lines(LOG, 30)))
    assert code == 2
    assert "is of the first 20 rows; this export begins after 30." in said
    for tampered in (
        export.replace(LEAVES[14].hex().encode(), b"11" * 32),
        export.replace(frontier_of(LOG[:15]).roots[0].hex().encode(), b"11" * 32),
    ):
        code, said = verify("-", *evidence(kept, "40.checkpoint"), given=tampered)
        assert code == 1, said


def test_a_proof_holds_without_the_log(verify: verifiers.Verifier, kept: Path) -> None:
    """It says which leaf it is of; with it a receipt is proved."""
    code, said = verify(*evidence(kept, "10.tlog-proof"))
    assert (code, "leaf 10 is in the log of 20 rows that was signed" in said) == (0, True)
    code, said = verify(*evidence(kept, "38.tlog-proof"))
    assert (code, "does not say which leaf it is of" in said) == (2, True)
    code, said = verify(*evidence(kept, "10.tlog-proof", "receipts.txt"))
    assert (code, "the receipt of row id 11 in" in said, stands("no proof is of the leaf of row id 39", said)) == (
        2,
        True,
        True,
    )


@pytest.mark.parametrize(
    ("option", "content", "code", "words"),
    [
        ("--checkpoint", checkpoint_of(LOG).replace("40", "41"), 2, f"the signature of {ORIGIN} is wrong"),
        ("--checkpoint", "", 2, "a note is a text"),
        ("--checkpoint", sign(Checkpoint(ORIGIN, 40, NO_LEAF).text(), KEY), 1, "the first 40 rows are not those of"),
        ("--checkpoint", sign(Checkpoint("x", 40, NO_LEAF).text(), KEY), 2, "whose checkpoint it is, has not signed"),
        ("--proof", proof_of(10, 20, LEAVES[11]), 1, "it is of another leaf"),
        ("--proof", proof_of(10, 20).replace("index 10", "index 11"), 1, "does not lead to the root that was signed"),
        ("--proof", proof_of(10, 20).replace("index 10", "index 20"), 1, "leaf 20 is not in a tree of 20"),
        ("--proof", "c2sp.org/tlog-proof@v1\n", 2, "the checkpoint is missing"),
        ("--receipts", "id=11, leaf=:AAAA:\n", 2, "the leaf is not 32 bytes"),
        ("--receipts", receipt_of(LOG[10]).replace("11", "12"), 1, "row id 12: the receipt in"),
        ("--receipts", receipt_of(LOG[10]).replace("11", "999"), 1, "row id 999 is missing"),
        ("--key", None, 2, "a key is <name>"),
    ],
)
def test_what_others_kept_must_itself_hold(
    verify: verifiers.Verifier, tmp_path: Path, option: str, content: str | None, code: int, words: str
) -> None:
    """A file that is not signed or not readable is no evidence either way: 2. One that contradicts the log: 1."""
    file = tmp_path / "file"
    file.write_text(content or "", "utf-8")
    found = verify("-", "--key", VKEY, option, file if content is not None else "x", given=b"".join(export_lines(LOG)))
    assert (found[0], words in found[1]) == (code, True), found


def test_a_checkpoint_without_a_key_says_nothing(verify: verifiers.Verifier, kept: Path) -> None:
    """A usage error."""
    code, said = verify("-", "--checkpoint", kept / "40.checkpoint", given=b"".join(export_lines(LOG)))
    assert (code, "says nothing without --key" in said) == (2, True)


EXPORT = b"".join(export_lines(LOG))
LINES = export_lines(LOG)


@pytest.mark.parametrize(
    ("export", "words"),
    [
        (b"", "the export is empty"),
        (EXPORT[:-1], "line 41: the line does not end in a line feed: the file was cut"),
        (EXPORT[:-50], "line 41: the line does not end in a line feed: the file was cut"),
        (EXPORT + b"\n", "line 42: the line is not one JSON object"),
        (EXPORT.replace(b"\n", b"\r\n"), "line 1: the line is not one JSON object"),
        (b"\xef\xbb\xbf" + EXPORT, "line 1: the line is not one JSON object"),
        (b"".join(LINES[1:]), "line 1: this is no sealed export"),
        (LINES[0] * 2, 'line 2: "leaf_index" is missing|line 2: "action" is missing'),
        (EXPORT.replace(b'"id":5,', b'"id":5,"id":5,'), "line 6: a member is there twice"),
        (EXPORT.replace(b'"id":5,', b'"id":5,"\\u0069d":5,'), "line 6: a member is there twice"),
        (EXPORT.replace(b'"id":5,', b'"id":5,"x\\ud800":5,'), "line 6: "),
        (EXPORT.replace(b'"id":5,', b'"id":5.0,'), "line 6: "),
        (EXPORT.replace(b"bot", b"\xff"), "line 2: the line is not"),
        (EXPORT.decode().encode("utf-16"), "line 1: the line"),
        (b"\x1f\x8b" + bytes(100), "line 1: the line"),
    ],
)
def test_an_export_that_is_not_in_the_format_is_unreadable(
    verify: verifiers.Verifier, export: bytes, words: str
) -> None:
    """Exit code 2 and the line; it may be damaged or made by another program."""
    code, said = verify("-", given=export)
    assert code == 2, said
    assert any(word in said for word in words.split("|")), said


def test_what_cannot_be_opened_or_was_asked_wrongly_is_2(verify: verifiers.Verifier, tmp_path: Path) -> None:
    """Never the exit code of a log that was tampered with."""
    for arguments in (
        ["/nowhere"],
        ["--nothing"],
        ["a", "b"],
        ["--vectors", "/nowhere"],
        ["-", "--receipts", "/nowhere"],
        ["--key"],
        [tmp_path],
    ):
        assert verify(*arguments, given=EXPORT)[0] == 2, arguments
    assert verify("--help")[0] == 0


@pytest.mark.parametrize("name", ["verify.py", "verify.mjs"])
def test_progress_is_shown_where_there_is_a_terminal(name: str, tmp_path: Path) -> None:
    """On standard error; what was found stays alone on standard output."""
    file = tmp_path / "log.ndjson"
    file.write_bytes(EXPORT)
    ours, theirs = pty.openpty()
    command = [sys.executable] if name == "verify.py" else ["node"]
    done = subprocess.run(
        [*command, verifiers.FOLDER / name, file],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={"PATH": verifiers.PATH},
        timeout=60,
        check=False,
    )
    os.close(theirs)
    seen = os.read(ours, 1000)
    os.close(ours)
    assert (done.returncode, b"\x1b[K" in seen, b"\x1b" in done.stdout) == (0, True, False)
