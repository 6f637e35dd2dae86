"""What a witness accepts and what it refuses."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.ledger.audit_chain import consistency_proof
from service.ledger.notes import Checkpoint, NoteError, base64_hashes
from service.ledger.witness import Accepted, LogMisbehaved, history_line, judge, last_entry, read_consistency
from tests.ledger.test_audit_chain import leaves_of, mth, node_of

SIZES = st.integers(1, 60)
ENTRY = Accepted(accepted_at="2026-01-19T12:00:00.000Z", size=1, checkpoint="통장\n")


def checkpoint(leaves: list[bytes], origin: str = "log") -> Checkpoint:
    return Checkpoint(origin, len(leaves), mth(leaves))


@given(SIZES, SIZES)
def test_a_log_that_only_grew_is_accepted_and_any_other_refused(earlier: int, later: int) -> None:
    """The same is neither newer nor a fault; a smaller or another one is."""
    leaves = leaves_of(max(earlier, later))
    latest, offered = checkpoint(leaves[:earlier]), checkpoint(leaves[:later])
    if later < earlier:
        with pytest.raises(LogMisbehaved, match=f"the tree shrank from {earlier} leaves to {later}"):
            judge(latest, offered, [])
        return
    proof = consistency_proof(earlier, later, node_of(leaves)) if later > earlier else []
    assert judge(latest, offered, proof) == (later > earlier)
    forked = checkpoint([*leaves[: earlier - 1], bytes(32), *leaves[earlier:later]])
    with pytest.raises(LogMisbehaved):
        judge(latest, forked, proof)


def test_an_empty_log_may_become_any() -> None:
    """There is nothing to be proved of no rows."""
    assert judge(checkpoint([]), checkpoint(leaves_of(3)), [])
    assert not judge(checkpoint([]), checkpoint([]), [])


def test_another_log_is_refused() -> None:
    """A key may be used for one log only."""
    with pytest.raises(LogMisbehaved, match="is of other, not of log"):
        judge(checkpoint([]), checkpoint([], "other"), [])


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"from": 1, "to": 3, "proof": []}, "from 1 to 3, not from 2 to 3"),
        ({"from": 2, "to": 4, "proof": []}, "from 2 to 4, not from 2 to 3"),
        ({"from": 2, "to": 3}, "cannot be read"),
        ({"from": 2, "to": 3, "proof": ["AAAA"]}, "32 bytes, not 3"),
        ({"from": 2, "to": 3, "proof": ["!"]}, "not base64"),
        ([], "cannot be read"),
    ],
)
def test_an_answer_to_another_question_is_no_proof(answer: object, said: str) -> None:
    """Neither is one that cannot be read."""
    with pytest.raises(NoteError, match=said):
        read_consistency(json.dumps(answer).encode(), from_size=2, to_size=3)
    with pytest.raises(NoteError, match="cannot be read"):
        read_consistency(b"\xff", from_size=2, to_size=3)


@given(st.lists(st.binary(min_size=32, max_size=32)))
def test_a_proof_comes_through_as_it_was(hashes: list[bytes]) -> None:
    """In the service's spelling."""
    body = json.dumps({"from": 2, "to": 3, "proof": base64_hashes(hashes)}).encode()
    assert read_consistency(body, from_size=2, to_size=3) == hashes


@given(st.integers(0, 3), st.integers(0, len(history_line(ENTRY)) - 1))
def test_a_line_that_was_being_written_is_not_an_entry(whole: int, torn: int) -> None:
    """The one before it is the last, and the next goes in its place."""
    line = history_line(ENTRY)
    entry, end = last_entry(line * whole + line[:torn])
    assert (entry, end) == (ENTRY if whole else None, whole * len(line))


def test_a_history_that_was_edited_is_not_passed_over() -> None:
    """Starting afresh would be what the one who edited it wants."""
    with pytest.raises(NoteError, match="cannot be read"):
        last_entry(history_line(ENTRY) + b"{}\n")
