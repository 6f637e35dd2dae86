"""The published vectors: made always the same, and the service and both verifiers say what they say."""

import ast
import copy
import json
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from service.ledger.audit_chain import (
    ProofError,
    Verifier,
    check_consistency,
    commitment,
    field,
    leaf_hash,
    public_details,
    root_of_inclusion,
)
from service.ledger.audit_export import ExportError, read_header, read_row, row_line
from service.ledger.notes import (
    NoteError,
    open_checkpoint,
    open_note,
    read_proof,
    read_signing_key,
    read_verifier_key,
)
from tests.audit import vectors, verifiers
from tests.some import some

PUBLISHED = json.loads(vectors.FILE.read_text("utf-8"))
REFUSED = PUBLISHED["refused"]


def test_the_vectors_are_made_always_the_same() -> None:
    """`python -m tests.audit.vectors` writes them anew; a change of the format is seen in a review."""
    assert vectors.FILE.read_text("utf-8") == vectors.rendered()


def keys_of(case: dict[str, Any]) -> list[Any]:
    return [read_verifier_key(key) for key in case["keys"]]


def given(case: dict[str, Any]) -> bytes:
    return bytes.fromhex(case["hex"]) if "hex" in case else case["text"].encode()


def hashes(texts: list[str]) -> list[bytes]:
    return [bytes.fromhex(text) for text in texts]


def value_of(value: Any) -> Any:
    members = json.loads(PUBLISHED["export"]["rows"][0]["line"])
    return read_row(json.dumps({**members, "details": value}).encode() + b"\n")[7]


def is_proved(case: dict[str, Any]) -> bool:
    proof = read_proof(given(case))
    checkpoint = open_checkpoint(proof.checkpoint, keys_of(case))
    leaf = bytes.fromhex(case["leaf"])
    if proof.extra and proof.extra != leaf:
        return False
    return root_of_inclusion(leaf, proof.index, checkpoint.size, proof.path) == checkpoint.root


def test_the_service_hashes_as_published() -> None:
    """Fields, public details, commitments and leaves; erased rows keep theirs."""
    for case in some(PUBLISHED["fields"]):
        assert field(value_of(case["value"])).hex() == case["bytes"]
    for case in some(PUBLISHED["public_details"]):
        how = {name: case[name] for name in ("rule", "resource_type", "actor")}
        assert public_details(value_of(case["details"]), **how) == case["public"]
    previous = bytes(32)
    for case in some(PUBLISHED["export"]["rows"]):
        sealed = read_row(case["line"].encode())
        _, *row, salt, public, kept, rule, leaf = sealed
        committed = commitment(salt, row[5], row[6]) if salt else kept
        assert committed.hex() == case["commitment"]
        assert case["commitment_bytes"] is None or sha256(bytes.fromhex(case["commitment_bytes"])).digest() == committed
        assert leaf_hash(previous, committed, public, row, rule=rule) == leaf
        assert sha256(bytes.fromhex(case["leaf_bytes"])).digest() == leaf
        assert case["leaf"] == leaf.hex()
        assert row_line(sealed) == case["line"].encode()
        previous = leaf


def checked(lines: list[str]) -> tuple[Verifier, Any]:
    header = read_header(lines[0].encode())
    verifier = Verifier(header.frontier, previous=header.previous_leaf)
    return verifier, verifier.check(read_row(line.encode()) for line in lines[1:])


def test_the_service_has_the_published_roots_and_proofs() -> None:
    """Of whole logs, of one without its oldest rows, and of every size between."""
    rows = [case["line"] for case in PUBLISHED["export"]["rows"]]
    roots = hashes(PUBLISHED["roots"])
    for size, root in enumerate(some(roots)):
        verifier, fault = checked([PUBLISHED["export"]["header"], *rows[:size]])
        assert fault is None
        assert verifier.frontier.root() == root
    for case in some(PUBLISHED["exports"]):
        verifier, fault = checked(case["lines"])
        assert fault is None
        assert verifier.frontier.root().hex() == case["root"]
    leaves = hashes([case["leaf"] for case in PUBLISHED["export"]["rows"]])
    for case in some(PUBLISHED["inclusion"]):
        root = root_of_inclusion(leaves[case["index"]], case["index"], case["size"], hashes(case["path"]))
        assert root == roots[case["size"]]
    for case in PUBLISHED["consistency"]:
        check_consistency(case["from"], roots[case["from"]], case["to"], roots[case["to"]], hashes(case["proof"]))


def test_the_service_reads_the_published_notes() -> None:
    """Those of other programs too."""
    for key in some(PUBLISHED["keys"].values()):
        assert read_signing_key(key["signing"]).verifier == read_verifier_key(key["verifier"])
    for case in some(PUBLISHED["notes"]):
        assert open_note(case["note"], keys_of(case)).text == case["text"]
    for case in some(PUBLISHED["checkpoints"]):
        found = open_checkpoint(case["note"], keys_of(case))
        assert (found.origin, found.size, found.root.hex()) == (case["origin"], case["size"], case["root"])
    assert all(some(map(is_proved, PUBLISHED["proofs"])))


REFUSALS = {
    "values": lambda case: value_of(case["value"]),
    "headers": lambda case: read_header(given(case)),
    "rows": lambda case: read_row(given(case)),
    "keys": lambda case: read_verifier_key(case["key"]),
    "notes": lambda case: open_note(given(case), keys_of(case)),
    "checkpoints": lambda case: open_checkpoint(given(case), keys_of(case)),
}


@pytest.mark.parametrize(
    ("kind", "case"),
    [(kind, case) for kind in REFUSALS for case in REFUSED[kind]],
    ids=lambda value: value if isinstance(value, str) else value["about"],
)
def test_the_service_refuses_what_must_be_refused(kind: str, case: dict[str, Any]) -> None:
    """Each with a sentence of its own, never another error."""
    with pytest.raises((ExportError, NoteError)):
        REFUSALS[kind](case)


def test_the_service_refuses_proofs_that_do_not_hold() -> None:
    """And names the first row of an export that is not as it was."""
    for case in some(REFUSED["proofs"]):
        try:
            assert not is_proved(case), case["about"]
        except (NoteError, ProofError):
            continue
    for case in some(REFUSED["inclusion"]):
        try:
            root = root_of_inclusion(bytes.fromhex(case["leaf"]), case["index"], case["size"], hashes(case["path"]))
        except ProofError:
            continue
        assert root.hex() != case["root"], case["about"]
    for case in some(REFUSED["consistency"]):
        old, new = bytes.fromhex(case["from_root"]), bytes.fromhex(case["to_root"])
        with pytest.raises(ProofError):
            check_consistency(case["from"], old, case["to"], new, hashes(case["proof"]))
    for case in some(REFUSED["exports"]):
        _, fault = checked(case["lines"])
        assert fault is not None, case["about"]
        assert case["row"].partition("(")[0] in f"row id {fault.audit_log_id} ", case["about"]


def test_both_verifiers_say_what_the_vectors_say(verify: verifiers.Verifier) -> None:
    """As processes of their own."""
    code, said = verify("--vectors", vectors.FILE)
    assert code == 0, said
    writers = {"public_details", "rules"}
    total = sum(len(cases) for kind, cases in PUBLISHED.items() if isinstance(cases, list) and kind not in writers)
    total += sum(map(len, REFUSED.values())) + len(PUBLISHED["export"]["rows"]) - len(PUBLISHED["roots"]) + 1
    assert said.strip() == f"{total} of {total} vectors are as published."


def test_a_verifier_that_erred_would_be_found(verify: verifiers.Verifier, tmp_path: Path) -> None:
    """One vector of every kind is made wrong: each is named."""
    changed = copy.deepcopy(PUBLISHED)
    changed["fields"][3]["bytes"] = "00"
    changed["export"]["rows"][-1]["commitment"] = "00" * 32
    changed["roots"][5] = "00" * 32
    changed["exports"][1]["root"] = "00" * 32
    changed["inclusion"][7]["path"] = []
    changed["consistency"][7]["proof"] = []
    changed["notes"][0]["text"] = "x\n"
    changed["checkpoints"][2]["size"] = 5
    changed["proofs"][1]["leaf"] = "00" * 32
    changed["receipts"][0]["id"] = 77
    good = changed["refused"]
    good["values"][0]["value"] = 1
    good["headers"][0]["text"] = PUBLISHED["export"]["header"]
    good["rows"][0]["text"] = PUBLISHED["export"]["rows"][0]["line"]
    good["keys"][0]["key"] = PUBLISHED["keys"]["log"]["verifier"]
    good["notes"][0]["text"] = good["checkpoints"][0]["text"] = PUBLISHED["checkpoints"][0]["note"]
    good["proofs"][0] = PUBLISHED["proofs"][0]
    good["receipts"][0] = PUBLISHED["receipts"][0]
    good["inclusion"][0]["leaf"] = PUBLISHED["export"]["rows"][5]["leaf"]
    good["consistency"][0]["from_root"] = PUBLISHED["roots"][7]
    good["exports"][0]["lines"] = PUBLISHED["exports"][0]["lines"]
    file = tmp_path / "vectors.json"
    file.write_text(json.dumps(changed), "utf-8")
    code, said = verify("--vectors", file)
    assert code == 1
    for name in (
        "fields[3]",
        "export.rows[23]",
        "roots[0]",
        "exports[1]",
        "inclusion[7]",
        "consistency[7]",
        "notes[0]",
    ):
        assert f"FAILED: {name}" in said
    for name in ("checkpoints[2]", "proofs[1]", "receipts[0]", *(f"refused.{kind}[0]" for kind in good)):
        assert f"FAILED: {name}" in said


def test_verify_py_shares_no_code_with_the_service() -> None:
    """The standard library and cryptography; so it can be carried anywhere as one file."""
    roots = set()
    for node in ast.walk(ast.parse((verifiers.FOLDER / "verify.py").read_text("utf-8"))):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add((node.module or "").split(".")[0])
    assert roots - set(sys.stdlib_module_names) == {"cryptography"}
    lines = (verifiers.FOLDER / "verify.mjs").read_text("utf-8").split("\n")
    imports = [line for line in lines if line.startswith("import ")]
    assert imports
    assert all(' from "node:' in line for line in some(imports))
