"""Every check of signers, witnesses, readers and verifiers refuses something that no other check does.

The forgeries below are refused by the program as it is. Then each check is taken out in turn: one of the forgeries must
be taken for true. So a check whose work another one happens to do as well is still tested by itself.
"""

import contextlib
import importlib.util
import io
import json
import subprocess
from base64 import b64encode
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest

from service.ledger import audit_chain as chain
from service.ledger import audit_export, notes, witness
from service.ledger.audit_chain import ProofError
from service.ledger.audit_export import ExportError
from service.ledger.notes import COSIGNATURE, Checkpoint, NoteError, SigningKey, make_signing_key
from service.ledger.witness import LogMisbehaved
from service.storage import audit_chain, audit_logs, checkpoints, migrator, sequences, sqlite
from service.storage.audit_prunes import PruneFailed
from service.storage.checkpoints import Contradiction, KeyUnusable, Signer
from tests.audit import log, test_vectors, test_verify, verifiers
from tests.audit.log import export_lines
from tests.ledger.test_audit_chain import leaves_of, mth, node_of
from tests.removed_checks import Check, checks_of, entered, removed
from tests.storage.test_audit_verification import row_of
from tests.storage.test_importer import MIGRATIONS

REFUSALS = (ProofError, NoteError, ExportError, LogMisbehaved, Contradiction, KeyUnusable, PruneFailed)
Forgeries = dict[str, Callable[[], object]]
"""What should be refused: it raises, or returns False or a sentence."""
KEY = make_signing_key("log", bytes(32))
WITNESS = make_signing_key("w", bytes(32), algorithm=COSIGNATURE)


def is_refused(attempt: Callable[[], object]) -> bool:
    """Whether it is, in words; another error is an answer that nobody meant."""
    try:
        found = attempt()
    except REFUSALS:
        return True
    except ValueError as error:
        return str(error).startswith("a receipt is of the form")
    except Exception:
        return False
    return found is False or isinstance(found, str)


def needless(checks: list[Check], forgeries: Forgeries) -> set[str]:
    """The checks without which every forgery is refused all the same, but for those that are SAID_BETTER.

    A forgery that never comes to the function of a check is refused without it too.
    """
    taken, comes_to = [], {}
    for name, attempt in forgeries.items():
        with entered() as functions:
            if not is_refused(attempt):
                taken.append(name)
        comes_to[name] = functions
    assert not taken, f"{len(taken)} forgeries are taken for true: {', '.join(taken[:20])}"
    assert checks
    found = set()
    for check in checks:
        if str(check) not in SAID_BETTER:
            attempts = [attempt for name, attempt in forgeries.items() if check.place in comes_to[name]]
            with removed(check):
                if all(map(is_refused, attempts)):
                    found.add(str(check))
    return found


def published(*kinds: str) -> Forgeries:
    """What the test vectors say must be refused, to the service."""
    found: Forgeries = {}
    for kind in kinds:
        for case in test_vectors.REFUSED[kind]:
            found[f"{kind}: {case['about']}"] = lambda kind=kind, case=case: refused_by_service(kind, case)  # type: ignore[misc]
    return found


def refused_by_service(kind: str, case: dict[str, Any]) -> object:
    if kind in test_vectors.REFUSALS:
        read: Callable[[dict[str, Any]], object] = test_vectors.REFUSALS[kind]
        return read(case) and None
    if kind == "proofs":
        return test_vectors.is_proved(case)
    if kind == "receipts":
        return chain.read_receipt(case["receipt"]) and None
    if kind == "inclusion":
        path = test_vectors.hashes(case["path"])
        root = chain.root_of_inclusion(bytes.fromhex(case["leaf"]), case["index"], case["size"], path)
        return root.hex() == case["root"]
    if kind == "consistency":
        old, new = bytes.fromhex(case["from_root"]), bytes.fromhex(case["to_root"])
        chain.check_consistency(case["from"], old, case["to"], new, test_vectors.hashes(case["proof"]))
        return None
    assert kind == "exports"
    _, fault = test_vectors.checked(case["lines"])
    return fault.said if fault else None


Inclusion = tuple[bytes, int, int, list[bytes], bytes | None]
"""A leaf, its index, the size of the tree, the path, and the root; no root where the path alone is wrong."""
Consistency = tuple[int, bytes, int, bytes, list[bytes]]
"""Size and root before, size and root later, and the proof."""


def false_inclusions() -> dict[str, Inclusion]:
    """Every leaf at every other index, and paths that are longer or shorter."""
    found: dict[str, Inclusion] = {}
    for size in range(1, 9):
        leaves = leaves_of(size)
        root = mth(leaves)
        for index in range(size):
            path = chain.inclusion_proof(index, size, node_of(leaves))
            forged = {
                "longer": (index, size, [*path, bytes(32)]),
                "shorter": (index, size, path[:-1]),
                "before the first": (-1, size, path),
                "after the last": (size, size, path),
                "of a tree of twice the size": (index, 2 * size, path),
            }
            for name, (at, of, way) in forged.items():
                if name != "shorter" or path:
                    found[f"{name}: {index} of {size}"] = leaves[index], at, of, way, None
            for other in range(size):
                if other != index:
                    found[f"{other} for {index} of {size}"] = leaves[other], index, size, path, root
    return found


def inclusions(module: ModuleType = chain) -> Forgeries:
    """Those, shown to `module`."""

    def shown(leaf: bytes, at: int, of: int, way: list[bytes], root: bytes | None) -> object:
        led_to = module.root_of_inclusion(leaf, at, of, way)
        return None if root is None else led_to == root

    return {name: partial(shown, *case) for name, case in false_inclusions().items()}


def false_consistencies() -> dict[str, Consistency]:
    """Logs that shrank, forked at each position, or came with a proof that is longer, shorter or of other hashes."""
    found: dict[str, Consistency] = {}
    for earlier in range(9):
        for later in range(9):
            was, grown = leaves_of(9)[:earlier], leaves_of(9)[:later]
            forks = {
                f"forked at {at}": [*grown[:at], bytes([at]) * 32, *grown[at + 1 :]]
                for at in range(min(earlier, later))
            }
            for name, now in {"as it was": grown, **forks}.items():
                proof = chain.consistency_proof(earlier, later, node_of(now)) if 0 < earlier < later else []
                ways = {"its own proof": proof, "longer": [*proof, bytes(32)], "shorter": proof[:-1], "none": []}
                for way, given in ways.items():
                    if name == "as it was" and given == proof and earlier <= later:
                        continue
                    found[f"{earlier} to {later}, {name}, {way}"] = len(was), mth(was), len(now), mth(now), given
            if 0 < earlier < later:
                honest = chain.consistency_proof(earlier, later, node_of(grown))
                told = f"{earlier} to {later}, told to be of twice as many"
                found[told] = len(was), mth(was), 2 * len(grown), mth(grown), honest
    return found


def consistencies(module: ModuleType = chain) -> Forgeries:
    """Those, shown to `module`."""
    return {name: partial(module.check_consistency, *case) for name, case in false_consistencies().items()}


def reseal(rows: list[list[Any]]) -> None:
    """Makes the leaves anew of what the sealed rows hold: each follows on the one before it."""
    previous = chain.NO_LEAF
    for sealed in rows:
        row, salt, public, kept, rule = sealed[1:-5], *sealed[-5:-1]
        with contextlib.suppress(KeyError, ValueError, TypeError):
            committed = kept if salt is None else chain.commitment(salt, row[log.TELEGRAM_ID], row[log.DETAILS])
            sealed[-1] = chain.leaf_hash(previous, committed, public, row, rule=rule)
        previous = sealed[-1]


SALT, PUBLIC, KEPT, RULE = -5, -4, -3, -2
"""Where they are in a sealed row."""


def rows_by_edit() -> dict[str, list[list[Any]]]:
    """Rows of which one holds what it may not, and every leaf fits it: only a check of that value can tell."""
    edits: dict[str, tuple[int, int, object]] = {
        "an index again": (3, 0, 2),
        "an index left out": (3, 0, 4),
        "an id again": (3, 1, 3),
        "an id that is smaller": (3, 1, 1),
        "no id": (3, 1, None),
        "an id that is no integer": (3, 1, 4.5),
        "an id that is text": (3, 1, "4"),
        "a shorter salt": (3, SALT, bytes(15)),
        "a longer salt": (3, SALT, bytes(17)),
        "a salt that is text": (3, SALT, "x" * 16),
        "a shorter digest": (1, PUBLIC, bytes(31)),
        "a digest that is text": (1, PUBLIC, "x" * 32),
        "a shorter commitment": (2, KEPT, bytes(31)),
        "no commitment": (2, KEPT, None),
        "a commitment that is text": (2, KEPT, "x" * 32),
        "a telegram id in an erased row": (2, 1 + log.TELEGRAM_ID, "1"),
        "more in the details of an erased row": (5, 1 + log.DETAILS, '{"amount":6}'),
        "other details of an erased row": (5, 1 + log.DETAILS, None),
        "an unknown rule": (3, RULE, 255),
        "a number for an action": (3, 8, 5),
    }
    found = {}
    for name, (at, column, value) in edits.items():
        rows = found[name] = log.sealed_rows(log.usual_rows(8), erased={2, 5})
        rows[at][column] = value
        reseal(rows)
    return found


def edited_rows() -> Forgeries:
    """Those, and rows that were edited, or left out, without a word to their leaves."""
    found: Forgeries = {}
    for name, rows in rows_by_edit().items():
        found[name] = lambda rows=rows: fault_of(rows)  # type: ignore[misc]
    honest = log.sealed_rows(log.usual_rows(8), erased={2, 5})
    assert fault_of(honest) is None
    for at in range(8):
        rows = [[*row] for row in honest]
        rows[at][4] = "2020-01-01 00:00:00.000"
        found[f"an edit of row {at}"] = lambda rows=rows: fault_of(rows)  # type: ignore[misc]
        left = honest[:at] + honest[at + 1 :]
        if left != honest[:-1]:
            found[f"without row {at}"] = lambda rows=left: fault_of(rows)  # type: ignore[misc]
    return found


def fault_of(rows: list[list[Any]]) -> str | None:
    fault = chain.Verifier().check(rows)
    return fault.said if fault else None


def forged_lines() -> Forgeries:
    """Lines of an export that only one check of their form refuses."""
    line = test_vectors.PUBLISHED["export"]["rows"][0]["line"].encode()
    header = b'{"passbook_audit_export":1,"first_index":1,"previous_leaf":"%s","frontier":%s}\n'
    root = b"11" * 32

    def too_long() -> object:
        with mock.patch.object(audit_export, "LINE_BYTES_MAX", len(line) - 1):
            return audit_export.read_row(line) and None

    return {
        "a line that is too long": too_long,
        "a rule that is a list": lambda: audit_export.read_row(line.replace(b"{", b'{"rule":[],', 1)) and None,
        "a rule that is true": lambda: audit_export.read_row(line.replace(b"{", b'{"rule":true,', 1)) and None,
        "a frontier of members": lambda: audit_export.read_header(header % (root, b'{"%s":1}' % root)) and None,
        "too few roots": lambda: audit_export.read_header(header % (root, b"[]")) and None,
    }


def signed_by_hand(text: str, key: SigningKey = KEY, *, name: str = "log", mark: str = "— ") -> str:
    """A note that no check of the signer looked at."""
    signature = b64encode(key.verifier.key_id + key.signature(text.encode())).decode()
    return f"{text}\n{mark}{name} {signature}\n"


def key_text(name: str, public: bytes, *, algorithm: int = 1) -> str:
    key = bytes([algorithm]) + public
    key_id = sha256(name.encode("utf-8", "surrogatepass") + b"\n" + key).digest()[:4].hex()
    return f"{name}+{key_id}+{b64encode(key).decode()}"


NAMES = {"no name": "", "a plus": "a+b", "a space": "a b", "a control character": "a\x01b", "half a pair": "a\ud800b"}
TEXT = "log\n1\n" + "A" * 43 + "=\n"


def forged_notes() -> Forgeries:
    """Keys, notes, checkpoints and proofs that are signed, and that one check of their form refuses."""
    ours = [KEY.verifier]
    seed = KEY.text()
    hand = signed_by_hand(TEXT)
    hash_line = "A" * 43 + "="
    proof = f"c2sp.org/tlog-proof@v1\nindex 0\n{hash_line}\n\n{hand}"
    at = 2**63
    late = at.to_bytes(8) + WITNESS.signature(f"cosignature/v1\ntime {at}\n{TEXT}".encode())
    line = hand.splitlines()[-1]

    def opened(note: str) -> object:
        return notes.open_note(note, ours) and None

    found: Forgeries = {
        "a short public key": lambda: notes.read_verifier_key(key_text("log", bytes(31))) and None,
        "a long public key": lambda: notes.read_verifier_key(key_text("log", bytes(33))) and None,
        "an unknown kind of key": lambda: notes.read_verifier_key(key_text("log", bytes(32), algorithm=2)) and None,
        "a key of two parts": lambda: notes.read_verifier_key("log+00000000") and None,
        "a secret without its mark": lambda: notes.read_signing_key(seed.removeprefix("PRIVATE+KEY+")) and None,
        "another id of a secret": lambda: (
            notes.read_signing_key(seed.replace(KEY.verifier.key_id.hex(), "00000000")) and None
        ),
        "a log signs with a witness's key": lambda: notes.sign(TEXT, WITNESS) and None,
        "a witness signs with a log's key": lambda: notes.cosign(hand, KEY, now_s=1) and None,
        "a text without its end": lambda: notes.sign("text", KEY) and None,
        "a text with a control character": lambda: notes.sign("a\x01\n", KEY) and None,
        "a text with half a pair": lambda: notes.sign("a\ud800\n", KEY) and None,
        "a long note": lambda: opened(signed_by_hand("x\n" * 500_000)),
        "a note of signatures alone": lambda: opened(signed_by_hand("\n").lstrip("\n")),
        "a note with a control character": lambda: opened(signed_by_hand("a\x01\n")),
        "a signature without its mark": lambda: opened(signed_by_hand(TEXT, mark="")),
        "a signature by a name with a plus": lambda: opened(f"{hand}— a+b {line.split()[-1]}\n"),
        "a short signature of another": lambda: opened(f"{hand}— other AAAA\n"),
        "many signatures": lambda: opened(hand + f"{line}\n" * 100),
        "another's time": lambda: (
            notes.open_note(f"{TEXT}\n— w {b64encode(WITNESS.verifier.key_id + late).decode()}\n", [WITNESS.verifier])
            and None
        ),
        "a witness's word for a log's": lambda: (
            notes.open_checkpoint(f"{TEXT}\n{notes.cosign(hand, same_name(), now_s=1)}", [same_name().verifier])
            and None
        ),
        "another log's checkpoint": lambda: notes.open_checkpoint(signed_by_hand("x" + TEXT), ours) and None,
        "a checkpoint without its end": lambda: notes.read_checkpoint(TEXT + "more") and None,
        "a checkpoint of two lines": lambda: notes.read_checkpoint("log\n1\n") and None,
        "a checkpoint with an empty line": lambda: notes.read_checkpoint(f"{TEXT}\nx\n") and None,
        "a proof without a checkpoint": lambda: notes.read_proof(proof.split("\n\n", maxsplit=1)[0]) and None,
        "a proof without an index": lambda: notes.read_proof(proof.replace("index 0\n", "0\n")) and None,
        "a proof of nothing": lambda: notes.read_proof(f"c2sp.org/tlog-proof@v1\n\n{hand}") and None,
        "a proof of too many hashes": lambda: (
            notes.read_proof(proof.replace("0\n", "0\n" + f"{hash_line}\n" * 63, 1)) and None
        ),
        "another kind of proof": lambda: notes.read_proof(proof.replace("@v1", "@v2")) and None,
    }
    for said, name in NAMES.items():
        found[f"a signing key with {said}"] = lambda name=name: notes.make_signing_key(name, bytes(32)) and None  # type: ignore[misc]
    found["a verifier key with a space"] = lambda: notes.read_verifier_key(key_text("a b", bytes(32))) and None
    return found


def same_name() -> SigningKey:
    """A witness's key by the name of the log."""
    return make_signing_key("log", bytes(32), algorithm=COSIGNATURE)


def forged_words() -> Forgeries:
    """What a witness is told."""
    found: Forgeries = {}
    for size in range(1, 9):
        was = Checkpoint("log", size, mth(leaves_of(size)))
        for later in range(9):
            for fork in range(min(size, later) + 1):
                now = [*leaves_of(9)[:fork], *(bytes([fork + 1]) * 32 for _ in range(fork, later))]
                if fork == size:
                    continue
                proof = chain.consistency_proof(size, later, node_of(now)) if size < later else []
                found[f"{size} to {later}, forked at {fork}"] = lambda was=was, now=now, proof=proof: (  # type: ignore[misc]
                    (witness.judge(was, Checkpoint("log", len(now), mth(now)), proof), None)[1]
                )
        other = Checkpoint("other", size, was.root)
        found[f"another log of {size}"] = lambda was=was, other=other: (witness.judge(was, other, []), None)[1]  # type: ignore[misc]
    body = b'{"from":2,"to":3,"proof":[]}'
    for ends in ((1, 3), (2, 4), (3, 2)):
        found[f"a proof from {ends}"] = lambda ends=ends: (
            (  # type: ignore[misc]
                witness.read_consistency(body, from_size=ends[0], to_size=ends[1])
            )
            and None
        )
    return found


BEFORE = "self.first_index and (self.first_id is None or audit_log_id < self.first_id)"
SAID_BETTER = {
    "check_consistency: earlier > size": "no proof leads from a tree to a smaller one",
    "read_receipt: found is None (of found is None or len(leaf) != len(NO_LEAF))": "then there is no leaf either",
    "read_receipt: len(leaf) != len(NO_LEAF) (of found is None or len(leaf) != len(NO_LEAF))": "it has 32 bytes",
    "_fault_of: audit_log_id is None": "null is no integer either; that the row is gone is said",
    "_read_line: not line.endswith(b'\\n')": "the next check wants the line feed too; that the file was cut is said",
    "_read_key: not _KEY_ID.fullmatch(key_id)": "the id is compared with that of the key",
    "read_verifier_key: text.startswith(_PRIVATE)": "KEY is no key id; that it is a secret is said",
    "require_not_lost: last.exists()": "the checkpoint is of no new key; that none is made is proved with the starts",
    "Signer.open: require_not_lost(file)": "the same",
    "Signer.check: last is not None and tree.size < last.size": "no proof leads to a smaller tree; both sizes are said",
    "check_consistency: first > second": "no proof leads from a tree to a smaller one",
    "Evidence.__init__: (checkpoints or proofs) and (not read_keys)": "then no key has signed; --key is asked for",
    "check_consistency: sn == 0": "a longer path leads to other roots; that it is too long is said",
    "read_proof: not blank": "an empty checkpoint is no note",
    "open_note: not blank (of not blank or not signatures.endswith('\\n'))": "then no line is that of a signature",
    "read_object: not line.endswith(b'\\n')": "the next check wants the line feed too; that the file was cut is said",
    "Check.run: not header": "nothing is no JSON either",
    "proof_holds: told in (None, leaf) (of what it returns)": "of the vectors alone",
    "reading.__exit__: isinstance(error, (Unreadable, Tampered))": "it adds the name of the file",
    **{
        f"Check.compare_end: {condition}": "it tells what is unknown from what was tampered with"
        for one in ("index < self.first_index", "size < self.first_index", BEFORE)
        for condition in (one, f"not {one}")
    },
    "_split: not signatures (of not blank or not signatures)": "an empty line is no signature",
}
"""Checks that another one repeats, and what for they are there."""


def test_each_check_of_proofs_and_receipts_is_needed() -> None:
    """Of inclusion and of consistency."""
    functions = ("root_of_inclusion", "_climbed", "check_consistency", "_roots_of_consistency", "read_receipt")
    forgeries: Forgeries = {
        "a leaf of 31 bytes": lambda: chain.read_receipt(f"id=1, leaf=:{b64encode(bytes(31)).decode()}:") and None,
        **published("receipts", "inclusion", "consistency"),
        **inclusions(),
        **consistencies(),
    }
    assert needless(checks_of(chain, *functions), forgeries) == set()


def test_each_check_of_rows_is_needed() -> None:
    """Of one row after the other, and of a block of rows at once."""
    functions = ("_fault_of", "_erasure_fault", "Verifier._is_usual_and_sound")
    assert needless(checks_of(chain, *functions), {**edited_rows(), **published("exports")}) == set()


def test_each_check_of_lines_is_needed() -> None:
    """Of a sealed export."""
    assert (
        needless(checks_of(audit_export), {**forged_lines(), **published("values", "headers", "rows")}) - {*SAID_BETTER}
        == set()
    )


def test_each_check_of_notes_is_needed() -> None:
    """Of keys, signatures, checkpoints and files of proofs."""
    assert (
        needless(checks_of(notes), {**forged_notes(), **published("keys", "notes", "checkpoints", "proofs")})
        - {*SAID_BETTER}
        == set()
    )


def test_each_check_of_a_witness_is_needed() -> None:
    """Of what a log tells it."""
    assert needless(checks_of(witness), forged_words()) == set()


@pytest.fixture(scope="module")
def signing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[sqlite.Connection, Path]]:
    """An empty log, in which forgeries are made within a transaction, and the key that signs it."""
    folder = tmp_path_factory.mktemp("signing")
    with contextlib.closing(sqlite.connect_writer(folder / "p.db", busy_timeout_ms=0, checkpoints=True)) as connection:
        migrator.up(connection, MIGRATIONS, lambda _: None)
        Signer.open(folder / "key", origin="log")
        yield connection, folder / "key"


@contextlib.contextmanager
def forged(connection: sqlite.Connection, kept: int, size: int, name: str = "다른사람") -> Iterator[sqlite.Connection]:
    """For the block the log is wholly another one from row `kept` on: leaves, nodes and roots fit together."""
    connection.execute("BEGIN")
    try:
        grow(connection, kept, "홍길동", salt=b"k" * 16)
        grow(connection, size - kept, name, salt=b"f" * 16)
        yield connection
    finally:
        connection.execute("ROLLBACK")


def grow(tx: sqlite.Connection, count: int, name: str, *, salt: bytes) -> None:
    """Rows that are always the same, sealed as the service seals them."""
    if count > 0:
        with mock.patch("os.urandom", lambda size: salt * (size // 16)), audit_chain.sealing(tx):
            last = sequences.last_audit_log_id(tx)
            audit_logs.insert_many(tx, [row_of(last + place, place, name) for place in range(1, count + 1)])


SIZES = (1, 2, 3, 4, 5, 7, 8)


def forged_logs(connection: sqlite.Connection, key: Path) -> Forgeries:
    """Logs that fit together and are not what was signed: forked at each row, shrunk, grown, or of the same size."""
    found: Forgeries = {}
    for size in SIZES:
        with forged(connection, size, size) as tx:
            true = audit_chain.tree(tx)
        last = Checkpoint("log", size, true.root())
        for later in range(11):
            for kept in range(min(size, later) + 1):
                if kept < size:
                    found[f"{size} signed, {later} there, {kept} kept"] = lambda last=last, kept=kept, later=later: (  # type: ignore[misc]
                        signs(connection, key, last, kept, later)
                    )
    for sql in (
        "UPDATE audit_tree SET frontier = zeroblob(length(frontier))",
        "UPDATE audit_tree SET frontier = x''",
        "UPDATE audit_leaves SET hash = zeroblob(32) WHERE leaf_index = 2",
    ):
        for signed in (None, Checkpoint("log", 0, chain.EMPTY_ROOT)):
            found[f"{sql}, after {signed}"] = lambda sql=sql, signed=signed: signs(connection, key, signed, 6, 6, sql)  # type: ignore[misc]
    return found


def signs(
    connection: sqlite.Connection, key: Path, last: Checkpoint | None, kept: int, size: int, sql: str = ""
) -> None:
    """Has the signer look at the log that is there, after `last`."""
    signer = Signer.open(key)
    signer.last = last
    with forged(connection, kept, size) as tx:
        if sql:
            unguarded(tx)
            tx.execute(sql)
        signer.check(tx)


def unguarded(tx: sqlite.Connection) -> None:
    for (name,) in tx.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        tx.execute(f"DROP TRIGGER {name}")


def test_a_signer_signs_on_what_it_signed(signing: tuple[sqlite.Connection, Path]) -> None:
    """The honest continuation of every size is taken; else nothing below would be proved."""
    connection, key = signing
    for size in SIZES:
        with forged(connection, size, size) as tx:
            last = Checkpoint("log", size, audit_chain.tree(tx).root())
        for later in range(size, 11):
            signer = Signer.open(key)
            signer.last = last
            with forged(connection, size, later) as tx:
                assert signer.check(tx).size == later


def test_each_check_of_a_signer_is_needed(signing: tuple[sqlite.Connection, Path], tmp_path: Path) -> None:
    """A log made anew as a whole is found by its proof alone, wherever it was forked and however long it is now."""
    connection, key = signing
    for name, text in {"other": notes.make_signing_key("other", bytes(32)).text(), "bad": "no key"}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "last").write_text(KEY.text())
    (tmp_path / "last.checkpoint").write_text(notes.sign(TEXT, make_signing_key("log", b"x" * 32)))
    files: Forgeries = {
        "another log's key": lambda: Signer.open(tmp_path / "other", origin="log") and None,
        "no key": lambda: Signer.open(tmp_path / "bad") and None,
        "another key's checkpoint": lambda: Signer.open(tmp_path / "last") and None,
    }
    found = needless(checks_of(checkpoints), {**forged_logs(connection, key), **files})
    assert found == set()


IN_THE_FORMAT = {
    "an index again", "an index left out", "an id again", "an id that is smaller", "no id", "an id that is no integer",
    "an id that is text", "a telegram id in an erased row", "more in the details of an erased row",
    "other details of an erased row",
}  # fmt: skip
"""Edits that an export can be written with."""


def program() -> ModuleType:
    """verify.py, which auditors are given, as a module."""
    spec = importlib.util.spec_from_file_location("verify", verifiers.FOLDER / "verify.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Shown = tuple[list[bytes], str, str]
"""The lines of an export, and what it is compared with: which kind of thing, and the name of its file; or nothing."""


def shown(folder: Path) -> dict[str, Shown]:
    """Exports that do not fit what was kept, each with one thing that was kept, in a file of `folder`."""
    kept = {
        "o": ("checkpoints", test_verify.checkpoint_of(test_verify.LOG[:20])),
        "c": ("checkpoints", test_verify.checkpoint_of(test_verify.LOG)),
        "R": ("receipts", "\n".join(test_verify.receipt_of(test_verify.LOG[at]) for at in (10, 38))),
        "p": ("proofs", test_verify.proof_of(10, 20, test_verify.LEAVES[10])),
        "P": ("proofs", test_verify.proof_of(38, 40)),
        "another log's": ("checkpoints", signed_by_hand(test_verify.checkpoint_of(test_verify.LOG)[1:])),
        "a proof of another leaf": ("proofs", test_verify.proof_of(10, 20, test_verify.LEAVES[11])),
    }
    for name, (_, text) in kept.items():
        (folder / name).write_text(text, "utf-8")

    def compared(lines: list[bytes], name: str) -> Shown:
        return lines, kept[name][0], name

    found: dict[str, Shown] = {}
    for name, (tamper, found_by, _) in test_verify.TAMPERINGS.items():
        lines = export_lines(tamper())
        if found_by == "a":
            found[name] = lines, "", ""
        else:
            found |= {f"{name}, {piece}": compared(lines, piece) for piece in found_by}
    found |= {f"what lies before, {piece}": compared(export_lines(test_verify.LOG, 25), piece) for piece in "opR"}
    for name in ("another log's", "a proof of another leaf"):
        found[name] = compared(export_lines(test_verify.LOG), name)
    for name, rows in rows_by_edit().items():
        if name in IN_THE_FORMAT:
            found[name] = export_lines(rows), "", ""
    return found


def shown_to(verify: ModuleType, folder: Path) -> Forgeries:
    """Those, and the vectors."""

    def wrong(lines: list[bytes], kind: str, name: str) -> object:
        evidence = verify.Evidence([test_verify.VKEY], **({kind: [str(folder / name)]} if kind else {}))
        check = verify.Check(evidence)
        check.run(io.BytesIO(b"".join(lines)), lambda _: None)
        return not (check.wrong or check.open) and None

    return {
        "the vectors": lambda: (
            None if any(not holds() for *_, holds in verify.vector_checks(test_vectors.PUBLISHED)) else False
        ),
        **{name: partial(wrong, *case) for name, case in shown(folder).items()},
    }


def told() -> dict[str, tuple[str, bytes]]:
    """Keys, notes, proofs and lines in a form that one check of the program refuses: what it is, and its bytes."""
    at = 2**63
    late = at.to_bytes(8) + WITNESS.signature(f"cosignature/v1\ntime {at}\n{TEXT}".encode())
    hand = signed_by_hand(TEXT)
    line = "A" * 43 + "="
    proof = f"c2sp.org/tlog-proof@v1\nindex 0\n{line}\n\n{hand}"
    row = test_vectors.PUBLISHED["export"]["rows"][0]["line"].encode()
    root = b"11" * 32
    header = b'{"passbook_audit_export":1,"first_index":1,"previous_leaf":"%s","frontier":{"%s":1}}\n' % (root, root)
    texts = {
        "a short public key": ("key", key_text("log", bytes(31))),
        "a key with a space": ("key", key_text("a b", bytes(32))),
        "a key without a name": ("key", key_text("", bytes(32))),
        "a long note": ("note", signed_by_hand("x\n" * 500_000)),
        "a note of signatures alone": ("note", signed_by_hand("\n").lstrip("\n")),
        "a note without its end": ("note", f"{hand[:-1]}x"),
        "a note with a control character": ("note", signed_by_hand("a\x01\n")),
        "a signature by a name with a plus": ("note", f"{hand}— a+b {line}\n"),
        "a signature by nobody": ("note", f"{hand}—  {line}\n"),
        "another's time": ("note", f"{TEXT}\n— w {b64encode(WITNESS.verifier.key_id + late).decode()}\n"),
        "a witness's word that is too short": (
            "note",
            f"{TEXT}\n— w {b64encode(WITNESS.verifier.key_id + b'x' * 5).decode()}\n",
        ),
        "a proof without a checkpoint": ("proof", proof.split("\n\n", maxsplit=1)[0]),
        "a proof without an index": ("proof", proof.replace("index 0\n", "0\n")),
        "a proof with another first line": ("proof", proof.replace("index 0\n", "xxxxxx0\n")),
        "a proof of nothing": ("proof", f"c2sp.org/tlog-proof@v1\n\n{hand}"),
        "a proof of too many hashes": ("proof", proof.replace("0\n", "0\n" + f"{line}\n" * 63, 1)),
        "another kind of proof": ("proof", proof.replace("@v1", "@v2")),
        "no key, and a checkpoint": ("checkpoints", "x"),
        "no key, and a proof": ("proofs", "x"),
    }
    large = b'"user_id":{"integer":"9007199254740992"}'
    last = row.replace(b'"user_id":null,', b"").replace(b"}\n", b"," + large)
    assert last.endswith(large), last
    return {
        "a frontier of members": ("header", header),
        "a frontier without its end": ("header", header.replace(b'{"%s":1}' % root, b'["%s"' % root)),
        "a rule that is a list": ("row", row.replace(b"{", b'{"rule":[],', 1)),
        "a line without a colon": ("row", row.replace(b'"id":', b'"id"', 1)),
        "a line without its last brace": ("row", last + b"\n"),
        "an index that is too large": ("row", row.replace(b'"leaf_index":0', b'"leaf_index":9007199254740992', 1)),
        "bytes that are a list": ("row", row.replace(b'"details":null', b'"details":{"blob":["ab"]}', 1)),
        **{name: (kind, text.encode()) for name, (kind, text) in texts.items()},
    }


def told_to(verify: ModuleType) -> Forgeries:
    """Those, read by the program."""
    keys = [verify.read_key(key.verifier.text()) for key in (KEY, WITNESS)]
    readers: dict[str, Callable[[bytes], object]] = {
        "key": lambda told: verify.read_key(told.decode()) and None,
        "note": lambda told: verify.open_note(told, keys) and None,
        "proof": lambda told: verify.read_proof(told, keys) and None,
        "header": lambda told: verify.Log.of_header(told) and None,
        "row": lambda told: verify.read_row(told) and None,
        "checkpoints": lambda told: verify.Evidence(checkpoints=[told.decode()]) and None,
        "proofs": lambda told: verify.Evidence(proofs=[told.decode()]) and None,
    }
    return {name: partial(readers[kind], given) for name, (kind, given) in told().items()}


def too_long_for(verify: ModuleType) -> object:
    """An export with a line that is longer than lines may be."""
    lines = export_lines(test_verify.LOG[:1])
    with mock.patch.object(verify, "LINE_MAX", len(lines[1]) - 1):
        check = verify.Check(verify.Evidence())
        check.run(_Lines(lines), lambda _: None)
    return None


class _Lines:
    """Whole lines, whatever the limit."""

    def __init__(self, lines: list[bytes]) -> None:
        self._lines = iter(lines)

    def readline(self, _limit: int) -> bytes:
        return next(self._lines, b"")


def test_each_check_of_the_auditors_program_is_needed(tmp_path: Path) -> None:
    """Of verify.py; verify.mjs takes and refuses the same."""
    verify = program()
    forgeries = {
        **shown_to(verify, tmp_path),
        **told_to(verify),
        "a long line": lambda: too_long_for(verify),
        **inclusions(verify),
        **consistencies(verify),
    }
    with mock.patch(f"{__name__}.REFUSALS", (verify.Unreadable, verify.Tampered)):
        checks = [
            check for check in checks_of(verify) if check.function not in {"verify", "say", "Check.without_export"}
        ]
        assert needless(checks, forgeries) == set()


OPTION = {"checkpoints": "checkpoint", "receipts": "receipts", "proofs": "proof"}


def shown_to_node(folder: Path) -> Iterator[tuple[str, str, object]]:
    """The same forgeries as data: name, kind, and what is shown."""

    def encoded(value: bytes) -> str:
        return b64encode(value).decode()

    for name, (lines, kind, file) in shown(folder).items():
        evidence = {"key": [test_verify.VKEY], **({OPTION[kind]: [str(folder / file)]} if kind else {})}
        yield name, "export", {"lines": [*map(encoded, lines)], "evidence": evidence}
    for name, (kind, given) in told().items():
        if kind in OPTION:
            yield name, "evidence", {OPTION[kind]: [given.decode()]}
        else:
            yield name, kind, encoded(given)
    for name, (leaf, at, of, path, root) in false_inclusions().items():
        way = [*map(encoded, path)]
        yield name, "inclusion", [encoded(leaf), str(at), str(of), way, None if root is None else encoded(root)]
    for name, (was, was_root, now, now_root, proof) in false_consistencies().items():
        case = [str(was), encoded(was_root), str(now), encoded(now_root), [*map(encoded, proof)]]
        yield name, "consistency", case
    lines = export_lines(test_verify.LOG[:1])
    limit = {"lines": [*map(encoded, lines)], "evidence": {}, "limit": len(lines[1]) - 1}
    yield "a long line", "export", limit
    yield "an export without a line", "export", {"lines": [], "evidence": {}}
    yield "the vectors", "vectors", test_vectors.PUBLISHED
    alone: dict[str, dict[str, list[str]]] = {
        "a proof that names no leaf": {"proof": ["P"]},
        "a proof, and receipts of other rows too": {"proof": ["p"], "receipts": ["R"]},
        "a proof of another leaf": {"proof": ["a proof of another leaf"]},
        "a checkpoint that is not there": {"checkpoint": ["nowhere"]},
    }
    for name, files in alone.items():
        paths = {option: [str(folder / file) for file in named] for option, named in files.items()}
        yield f"{name}, alone", "alone", {"key": [test_verify.VKEY], **paths}


SAID_BETTER_BY_NODE = {
    "Json.takes: this.text[this.at] !== character": "else every object and list is empty, and something follows",
    "readObject: line[end] !== LINE_FEED": "the next check wants the line feed too; that the file was cut is said",
    "requireMembers: !members.has(name)": "a member that is missing is no value either; its name is said",
    "Log.ofHeader: version === undefined": "it is no version either; that the file is another one is said",
    "checkConsistency: first > second": "no proof leads from a tree to a smaller one",
    "checkConsistency: !path.length": "then the way to the root is too short",
    "checkConsistency: sn === 0n": "a longer path leads to other roots; that it is too long is said",
    'openNote: middle < 0 (of middle < 0 || middle + 2 === whole.length || !whole.endsWith("\\n"))': "then no line"
    " is that of a signature",
    "openNote: middle + 2 === whole.length (of middle < 0 || middle + 2 === whole.length ||"
    ' !whole.endsWith("\\n"))': "an empty line is no signature",
    "requireSignature: bytes.length !== 64 (of at >= 2n ** 63n || bytes.length !== 64 || !verifySignature(null,"
    " message, publicKey, bytes))": "no signature of another length is right",
    "readProof: middle < 0": "an empty checkpoint is no note",
    "fromFile: error instanceof Unreadable": "it adds the name of the file",
    "Evidence.constructor: checkpoint.length + proof.length && !keys.length": "then no key has signed; it is asked for",
    "Check.run: error instanceof Unreadable": "it adds the number of the line",
    **{
        f"Check.compareEnd: {condition}": "it tells what is unknown from what was tampered with"
        for one in (
            "index < BigInt(this.firstIndex)",
            "size < BigInt(this.firstIndex)",
            "this.firstIndex && (this.firstId === null || id < this.firstId)",
        )
        for condition in (one, f"not {one}")
    },
}
"""Checks of verify.mjs that another one repeats, and what for they are there."""


def test_each_check_of_the_auditors_other_program_is_needed(tmp_path: Path) -> None:
    """Of verify.mjs, by the parser of JavaScript that node itself has."""
    given = {
        "program": str(verifiers.FOLDER / "verify.mjs"),
        "skip": ["main", "verify", "say", "checkVectors", "vectorChecks", "rowIs", "runLines"],
        "known": [*SAID_BETTER_BY_NODE],
        "keys": [key.verifier.text() for key in (KEY, WITNESS)],
        "forgeries": [*shown_to_node(tmp_path)],
    }
    ran = subprocess.run(
        ["node", "--expose-internals", Path(__file__).with_name("removed_checks.mjs")],
        input=json.dumps(given),
        env={"PATH": verifiers.PATH},
        capture_output=True,
        text=True,
        timeout=5 * verifiers.TIMEOUT_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["taken"] == [], "forgeries that the whole program takes for true"
    assert found["needless"] == [], "checks without which every forgery is refused all the same"
    assert {*SAID_BETTER_BY_NODE} - {*found["checks"]} == set(), "no such check is there any more"
    assert len(found["checks"]) > 100
