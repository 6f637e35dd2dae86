"""docs/audit-log/README.md says what the code does."""

import json
import re
import subprocess
import sys
from hashlib import sha256

import pytest

from service.ledger.audit_chain import COLUMNS
from tests.audit import vectors, verifiers

README = (verifiers.FOLDER / "README.md").read_text("utf-8")
PUBLISHED = json.loads(vectors.FILE.read_text("utf-8"))
BLOCKS = re.findall(r"```(?:text|json)\n(.*?)```", README, re.DOTALL)


def test_what_is_computed_by_hand_is_what_the_vectors_say() -> None:
    """The bytes as they are printed, spaces and line ends left out."""
    row = PUBLISHED["export"]["rows"][0]
    for block, written, hashed in (
        (BLOCKS[0], row["commitment_bytes"], row["commitment"]),
        (BLOCKS[1], row["leaf_bytes"], row["leaf"]),
    ):
        message, _, digest = block.partition("SHA-256:")
        assert re.sub(r"\s", "", message) == written
        assert digest.strip() == hashed == sha256(bytes.fromhex(written)).hexdigest()
    assert [len(row[name]) // 2 for name in ("commitment_bytes", "leaf_bytes")] == [
        int(count) for count in re.findall(r"is of (\d+) bytes", README)
    ]


def test_the_examples_are_the_vectors() -> None:
    """The first line, a checkpoint, a receipt."""
    checkpoint, receipt = PUBLISHED["checkpoints"][1]["note"], PUBLISHED["receipts"][0]["receipt"]
    assert BLOCKS[2:] == [PUBLISHED["export"]["header"], checkpoint, f"{receipt}\n"]


def test_every_list_of_vectors_is_explained() -> None:
    """In the last table."""
    table = README[README.index("## The vectors") :]
    for name in PUBLISHED.keys() - {"about", "format", "keys"}:
        assert f"`{name}`" in table


def test_the_leaf_has_the_columns_in_their_order() -> None:
    """As the service hashes them."""
    leaf = README[README.index("leaf = SHA-256(") : README.index("what = field(details)")]
    named = re.findall(r"field\((\w+)\)", leaf)
    assert named == [*COLUMNS[:5], *COLUMNS[7:]]


@pytest.mark.parametrize("command", [[sys.executable, "verify.py"], ["node", "verify.mjs"]])
def test_every_option_is_explained(command: list[str]) -> None:
    """Both verifiers have the same."""
    done = subprocess.run(
        [*command, "--help"],
        cwd=verifiers.FOLDER,
        env={"PATH": verifiers.PATH},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    options = set(re.findall(r"--[a-z]+", done.stdout)) - {"--help"}
    assert options == {"--key", "--checkpoint", "--receipts", "--proof", "--vectors", "--quiet"}
    assert all(option in README for option in options)
