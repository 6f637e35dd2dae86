"""Signed notes, checkpoints and proofs, against the published examples and against every mangling."""

import base64
import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.ledger.notes import (
    COSIGNATURE,
    NOTE_BYTES_MAX,
    PATH_LENGTH_MAX,
    SIGNATURES_MAX,
    SIZE_MAX,
    Checkpoint,
    InclusionProof,
    NoteError,
    VerifierKey,
    base64_hashes,
    cosign,
    hashes_of_base64,
    make_signing_key,
    open_checkpoint,
    open_note,
    read_checkpoint,
    read_proof,
    read_signing_key,
    read_verifier_key,
    sign,
)
from tests.some import some

# golang.org/x/mod/sumdb/note, the examples of the package.
PETER = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
PETER_PUBLIC = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
ENOCH_PUBLIC = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETER_LINE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
ENOCH_LINE = (
    "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"
)
# c2sp.org/signed-note, an example of its text.
FOO_PUBLIC = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
FOO_NOTE = (
    "This is an example message.\n\n"
    "— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)

LOG = make_signing_key("passbook.example/log", bytes(range(32)))
WITNESS = make_signing_key("witness.example/w1", bytes(range(32, 64)), algorithm=COSIGNATURE)
CHECKPOINT = Checkpoint("passbook.example/log", 5, hashlib.sha256(b"root").digest())
CHECKPOINT_NOTE = sign(CHECKPOINT.text(), LOG)
HASHES = st.binary(min_size=32, max_size=32)
LINES = st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="\u2028\u2029\x85"), min_size=1)


def test_gos_examples_are_signed_and_read_byte_for_byte() -> None:
    """The key's two spellings, its signature, and a second one under it."""
    peter = read_signing_key(PETER)
    assert peter.text() == PETER
    assert peter.verifier == read_verifier_key(PETER_PUBLIC)
    assert peter.verifier.text() == PETER_PUBLIC
    assert sign(TEXT, peter) == f"{TEXT}\n{PETER_LINE}"
    both = f"{TEXT}\n{PETER_LINE}{ENOCH_LINE}"
    enoch = read_verifier_key(ENOCH_PUBLIC)
    assert open_note(both.encode(), [enoch, peter.verifier]).signers == (peter.verifier, enoch)
    assert open_note(both, [enoch]).signers == (enoch,)
    assert open_note(both, [enoch]).text == TEXT


def test_the_specifications_example_is_read() -> None:
    """c2sp.org/signed-note."""
    assert open_note(FOO_NOTE, [read_verifier_key(FOO_PUBLIC)]).text == "This is an example message.\n"


def test_a_signing_keys_repr_keeps_the_secret() -> None:
    """It may end up in a log."""
    assert PETER.rpartition("+")[2] not in repr(read_signing_key(PETER))
    assert PETER_PUBLIC in repr(read_signing_key(PETER))


@pytest.mark.parametrize("key", [PETER, PETER_PUBLIC, FOO_PUBLIC])
def test_every_part_of_a_key_and_every_changed_character_is_refused(key: str) -> None:
    """As Go's own tests do."""
    read = read_signing_key if key.startswith("PRIVATE") else read_verifier_key
    for start in range(len(key)):
        for end in range(start, len(key) + 1):
            if (start, end) != (0, len(key)):
                with pytest.raises(NoteError):
                    read(key[start:end])
    for at, character in enumerate(some(key)):
        with pytest.raises(NoteError):
            read(key[:at] + chr(ord(character) + 1) + key[at + 1 :])


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==", "not base64"),
        ("PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "kind 65"),
        ("a+00000000+AQ==", "32 bytes, not 0"),
        ("a+00000000+", "kind none"),
        (PETER, "its public half"),
        (PETER_PUBLIC.replace("c74f", "C74F"), "8 digits"),
        (PETER_PUBLIC.replace("c74f20a3", "c74f20a4"), "is c74f20a3, not c74f20a4"),
        (" " + PETER_PUBLIC, "no spaces"),
    ],
)
def test_a_wrong_key_is_told_what_is_wrong(key: str, said: str) -> None:
    """Wrong length and unknown algorithm are Go's examples."""
    with pytest.raises(NoteError, match=said):
        read_verifier_key(key)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u3000b", "a\x85b", "a\x00b", "a\ud800b"])
def test_a_name_that_cannot_stand_in_a_signature_is_refused(name: str) -> None:
    """Unicode's spaces too."""
    with pytest.raises(NoteError, match="a key's name is not empty and has no spaces"):
        make_signing_key(name, bytes(32))


@given(st.lists(LINES | st.just(""), min_size=1))
def test_what_was_signed_opens_as_it_was(lines: list[str]) -> None:
    """Also with empty lines in the text: the last one divides."""
    text = "".join(f"{line}\n" for line in lines)
    opened = open_note(sign(text, LOG), [LOG.verifier])
    assert (opened.text, opened.signers) == (text, (LOG.verifier,))


@given(st.data())
def test_no_changed_byte_goes_unseen(data: st.DataObject) -> None:
    """One byte of a signed checkpoint is another one: refused, wherever it is."""
    note = bytearray(CHECKPOINT_NOTE.encode())
    at = data.draw(st.integers(0, len(note) - 1))
    note[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(NoteError):
        open_checkpoint(bytes(note), [LOG.verifier])


@given(st.integers(0, len(CHECKPOINT_NOTE.encode()) - 1))
def test_no_part_of_a_note_is_a_note(length: int) -> None:
    """However much of it is there."""
    with pytest.raises(NoteError):
        open_note(CHECKPOINT_NOTE.encode()[:length], [LOG.verifier])


def line_of(name: str, signature: bytes) -> str:
    return f"— {name} {base64.b64encode(signature).decode()}\n"


def test_unknown_keys_are_passed_over_also_with_a_known_name_or_id() -> None:
    """A known key is a name and an id."""
    same_name = line_of(LOG.verifier.name, b"\0\0\0\0" + bytes(64))
    same_id = line_of("somebody.else", LOG.verifier.key_id + bytes(64))
    other_algorithm = line_of("x", b"abcde")
    text, _, own = CHECKPOINT_NOTE.rpartition("\n\n")
    note = f"{text}\n\n{same_name}{same_id}{other_algorithm}{own}"
    assert open_note(note, [LOG.verifier]).signers == (LOG.verifier,)
    with pytest.raises(NoteError, match="none of its signatures"):
        open_note(f"{text}\n\n{same_name}{same_id}", [LOG.verifier])
    with pytest.raises(NoteError, match="none of its signatures"):
        open_note(note, [])


def test_a_wrong_signature_of_a_known_key_refuses_the_note() -> None:
    """Even when another known key's is right."""
    wrong = line_of("PeterNeumann", read_verifier_key(PETER_PUBLIC).key_id + bytes(64))
    with pytest.raises(NoteError, match=r"the signature of PeterNeumann\+c74f20a3 is wrong"):
        open_note(CHECKPOINT_NOTE + wrong, [LOG.verifier, read_verifier_key(PETER_PUBLIC)])
    short = line_of("PeterNeumann", read_verifier_key(PETER_PUBLIC).key_id + bytes(63))
    with pytest.raises(NoteError, match=r"the signature of PeterNeumann\+c74f20a3 is wrong"):
        open_note(CHECKPOINT_NOTE + short, [LOG.verifier, read_verifier_key(PETER_PUBLIC)])


@pytest.mark.parametrize(
    ("note", "said"),
    [
        ("", "newline"),
        ("text\n", "no signatures"),
        ("text\n\n", "no signatures"),
        (CHECKPOINT_NOTE[:-1], "newline"),
        (CHECKPOINT_NOTE + "\n", "no signatures"),
        (CHECKPOINT_NOTE.replace("\n", "\r\n"), "U\\+000D"),
        (CHECKPOINT_NOTE.replace("— ", "- "), "a signature is a line"),
        (CHECKPOINT_NOTE.replace("— ", "—"), "a signature is a line"),
        ("\x00" + CHECKPOINT_NOTE, "U\\+0000"),
        (CHECKPOINT_NOTE.encode() + b"\xff\n", "UTF-8"),
        ("\ud800" + CHECKPOINT_NOTE, "UTF-8"),
        (CHECKPOINT_NOTE + "— x YWJj\n", "too short"),
        (CHECKPOINT_NOTE + "— x YWJjZGU\n", "not base64"),
        (CHECKPOINT_NOTE + "— x YWJjZGV=\n", "not base64"),
        (CHECKPOINT_NOTE + "— x  YWJjZGU=\n", "not base64"),
        (CHECKPOINT_NOTE + "— x YWJjZGU= \n", "not base64"),
        (CHECKPOINT_NOTE + "— x+y YWJjZGU=\n", "name"),
        (CHECKPOINT_NOTE + "—  YWJjZGU=\n", "name"),
        ("a" * NOTE_BYTES_MAX + "\n", "at most 1000000 bytes"),
    ],
)
def test_a_malformed_note_is_told_what_is_wrong(note: str | bytes, said: str) -> None:
    """Before any signature is looked at."""
    with pytest.raises(NoteError, match=said):
        open_note(note, [LOG.verifier])


def test_signatures_are_many_but_not_endless() -> None:
    """The specification asks for 16 at least."""
    other = line_of("x", b"abcde")
    assert open_note(CHECKPOINT_NOTE + other * (SIGNATURES_MAX - 1), [LOG.verifier])
    with pytest.raises(NoteError, match=f"at most {SIGNATURES_MAX} signatures, not {SIGNATURES_MAX + 1}"):
        open_note(CHECKPOINT_NOTE + other * SIGNATURES_MAX, [LOG.verifier])


@pytest.mark.parametrize("text", ["no newline", "", "a\rb\n", "\ud800\n"])
def test_what_no_note_may_hold_is_not_signed(text: str) -> None:
    """Nobody could open it."""
    with pytest.raises(NoteError):
        sign(text, LOG)


def test_a_cosignature_is_verified_with_its_time() -> None:
    """c2sp.org/tlog-cosignature; another time is another text."""
    line = cosign(CHECKPOINT_NOTE, WITNESS, now_s=1_679_315_147)
    both = open_note(CHECKPOINT_NOTE + line, [LOG.verifier, WITNESS.verifier])
    assert both.signers == (LOG.verifier, WITNESS.verifier)
    signature = base64.b64decode(line.split(" ")[2])
    assert int.from_bytes(signature[4:12]) == 1_679_315_147
    later = line_of(WITNESS.verifier.name, signature[:4] + (1_679_315_148).to_bytes(8) + signature[12:])
    refusal = rf"the signature of {re.escape(WITNESS.verifier.name)}\+{WITNESS.verifier.key_id.hex()} is wrong"
    with pytest.raises(NoteError, match=refusal):
        open_note(CHECKPOINT_NOTE + later, [WITNESS.verifier])
    beyond = line_of(WITNESS.verifier.name, signature[:4] + (SIZE_MAX + 1).to_bytes(8) + signature[12:])
    with pytest.raises(NoteError, match=refusal):
        open_note(CHECKPOINT_NOTE + beyond, [WITNESS.verifier])
    assert read_signing_key(WITNESS.text()).verifier == WITNESS.verifier
    with pytest.raises(NoteError, match=r"which witness\.example/w1 does not sign for"):
        open_checkpoint(CHECKPOINT_NOTE + line, [WITNESS.verifier])


def test_each_key_signs_what_it_is_for() -> None:
    """One key for both would let a text pass for a cosigned one."""
    with pytest.raises(NoteError, match="key of a witness"):
        sign(TEXT, WITNESS)
    with pytest.raises(NoteError, match="no witness's key"):
        cosign(CHECKPOINT_NOTE, LOG, now_s=0)


@given(LINES, st.integers(0, SIZE_MAX), HASHES, st.lists(LINES).map(tuple))
def test_a_checkpoint_is_read_as_it_was_written(origin: str, size: int, root: bytes, more: tuple[str, ...]) -> None:
    """With extension lines too."""
    checkpoint = Checkpoint(origin, size, root, more)
    assert read_checkpoint(checkpoint.text()) == checkpoint


ROOT = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "three lines"),
        (f"a\n1\n{ROOT}", "newline"),
        ("a\n1\n", "three lines"),
        (f"\n1\n{ROOT}\n", "none is empty"),
        (f"a\n1\n{ROOT}\n\n", "none is empty"),
        (f"a\n01\n{ROOT}\n", "without leading zeros, not '01'"),
        (f"a\n-1\n{ROOT}\n", "whole number"),
        (f"a\n+1\n{ROOT}\n", "whole number"),
        (f"a\n1 \n{ROOT}\n", "whole number"),
        (f"a\n١\n{ROOT}\n", "whole number"),
        (f"a\n{2**63}\n{ROOT}\n", "whole number up to"),
        (f"a\n{'9' * 5000}\n{ROOT}\n", "whole number up to"),
        (f"a\n1\n{ROOT[:-1]}\n", "the root is not base64"),
        (f"a\n1\n{ROOT[:-2]}B=\n", "the root is not base64"),
        ("a\n1\nYWJj\n", "the root has 32 bytes, not 3"),
    ],
)
def test_a_malformed_checkpoint_is_told_what_is_wrong(text: str, said: str) -> None:
    """Each line has one spelling."""
    with pytest.raises(NoteError, match=said):
        read_checkpoint(text)


def test_a_checkpoint_counts_only_under_the_key_of_its_log() -> None:
    """A key that is trusted for one log says nothing of another."""
    assert open_checkpoint(CHECKPOINT_NOTE, [LOG.verifier]) == CHECKPOINT
    foreign = sign(Checkpoint("another.example/log", 5, bytes(32)).text(), LOG)
    with pytest.raises(NoteError, match=r"another\.example/log, which passbook\.example/log does not"):
        open_checkpoint(foreign, [LOG.verifier])


def test_a_witness_with_the_name_of_the_log_does_not_speak_for_it() -> None:
    """It says that it saw the checkpoint, and not that the log made it."""
    namesake = make_signing_key(LOG.verifier.name, bytes(32), algorithm=COSIGNATURE)
    seen = CHECKPOINT.text() + "\n" + cosign(CHECKPOINT_NOTE, namesake, now_s=1_679_315_147)
    assert open_note(seen, [namesake.verifier]).signers == (namesake.verifier,)
    with pytest.raises(NoteError, match="does not sign for"):
        open_checkpoint(seen, [namesake.verifier])


@given(st.integers(0, SIZE_MAX), st.lists(HASHES, max_size=PATH_LENGTH_MAX).map(tuple), st.none() | st.binary())
def test_a_proof_is_read_as_it_was_written(index: int, path: tuple[bytes, ...], extra: bytes | None) -> None:
    """c2sp.org/tlog-proof@v1, with the checkpoint as it stands."""
    proof = InclusionProof(index, path, CHECKPOINT_NOTE, extra)
    assert read_proof(proof.text()) == proof
    assert read_proof(proof.text().encode()) == proof


HEAD = "c2sp.org/tlog-proof@v1\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("c2sp.org/tlog-proof@v2\nindex 0\n\nx", "the first line"),
        ("", "the first line"),
        (f"{HEAD}index 0\n", "the checkpoint is missing"),
        (f"{HEAD}\nx", "index is missing"),
        (f"{HEAD}extra AA==\n\nx", "index is missing"),
        (f"{HEAD}index 0\nextra AA==\n\nx", "not base64"),
        (f"{HEAD}extra A\nindex 0\n\nx", "extra is not base64"),
        (f"{HEAD}index 00\n\nx", "index is a whole number"),
        (f"{HEAD}index 0\nYWJj\n\nx", "32 bytes, not 3"),
        (f"{HEAD}index 0\n{ROOT}\r\n\nx", "not base64"),
        (f"{HEAD}index 0\n" + f"{ROOT}\n" * 64 + "\nx", "at most 63 hashes, not 64"),
        (b"\xff", "UTF-8"),
    ],
)
def test_a_malformed_proof_is_told_what_is_wrong(text: str | bytes, said: str) -> None:
    """Before its checkpoint is looked at."""
    with pytest.raises(NoteError, match=said):
        read_proof(text)


@given(st.lists(HASHES))
def test_hashes_go_through_json_as_they_are(hashes: list[bytes]) -> None:
    """As GET /v1/audit-logs/consistency carries them."""
    assert hashes_of_base64(base64_hashes(hashes)) == hashes


def test_the_key_id_is_the_specifications() -> None:
    """SHA-256(name || 0A || 01 || public)[:4]."""
    key = read_verifier_key(PETER_PUBLIC)
    assert isinstance(key, VerifierKey)
    assert key.key_id == hashlib.sha256(b"PeterNeumann\n\x01" + key.public).digest()[:4]
