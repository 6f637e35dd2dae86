"""Which names are alike, and which deposit a notification confirms by itself."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.ledger.bank_notifications import (
    BankNotificationStatus,
    Candidate,
    Likeness,
    fitting,
    likeness,
    match_name,
)


@pytest.mark.parametrize(
    ("announced", "banks"),
    [
        ("홍길동", "홍 길동"),
        ("홍길동", unicodedata.normalize("NFD", "홍길동")),
        ("Kim Lee", "KIMLEE"),
        ("Straße", "STRASSE"),
        ("홍길동", "\u3000홍\u200b길\u00a0동 "),
        ("é", "E\u0301"),
    ],
)
def test_names_that_read_the_same_are_the_same(announced: str, banks: str) -> None:
    """NFC, case and spaces are folded, and what cannot be seen does not count."""
    assert match_name(announced) == match_name(banks)


@pytest.mark.parametrize(("announced", "banks"), [("홍길동", "홍길순"), ("Kim", "Kím"), ("ab", "ba"), ("1", "Ⅰ")])
def test_other_names_are_others(announced: str, banks: str) -> None:
    """Nothing else is folded: marks, order and compatibility forms are what people read."""
    assert likeness(match_name(announced), match_name(banks)) is None


@given(st.text())
def test_a_folded_name_folds_to_itself(name: str) -> None:
    """Folding is a projection: compared names can be folded again without harm."""
    assert match_name(match_name(name)) == match_name(name)


@pytest.mark.parametrize(
    ("name", "other", "alike"),
    [
        ("홍길동", "홍길동", Likeness.SAME_NAME),
        ("주식회사가나다", "주식회사가", Likeness.TRUNCATED_NAME),
        ("주식회사가", "주식회사가나다", Likeness.TRUNCATED_NAME),
        ("홍길동", "홍", None),
        ("홍길동", "길동", None),
        ("", "", None),
        ("홍길동", "", None),
    ],
)
def test_a_cut_name_is_alike_and_not_the_same(name: str, other: str, alike: Likeness | None) -> None:
    """The beginning of a name, of two characters or more, suggests; nothing else does."""
    assert likeness(name, other) is alike
    assert likeness(other, name) is alike


def _candidate(deposit_id: int, status: str, alike: Likeness = Likeness.SAME_NAME) -> Candidate:
    return Candidate(
        deposit_id=deposit_id,
        telegram_id="1",
        depositor_name="a",
        amount=1,
        status=status,
        created_at="2026-01-19T12:00:00Z",
        likeness=alike,
    )


@pytest.mark.parametrize(
    ("candidates", "status", "confirmed"),
    [
        ([], "unmatched", None),
        ([_candidate(1, "pending")], "matched", 1),
        ([_candidate(1, "pending"), _candidate(2, "pending", Likeness.TRUNCATED_NAME)], "matched", 1),
        ([_candidate(1, "pending"), _candidate(2, "pending")], "ambiguous", None),
        ([_candidate(1, "pending"), _candidate(2, "expired")], "ambiguous", None),
        ([_candidate(1, "pending"), _candidate(2, "confirmed")], "ambiguous", None),
        ([_candidate(1, "expired")], "unmatched", None),
        ([_candidate(1, "confirmed")], "unmatched", None),
        ([_candidate(1, "pending", Likeness.TRUNCATED_NAME)], "unmatched", None),
    ],
)
def test_only_one_pending_deposit_of_the_same_name_is_confirmed_by_itself(
    candidates: list[Candidate], status: str, confirmed: int | None
) -> None:
    """Nothing is guessed, and what has expired or was confirmed by hand is left to people."""
    found, deposit = fitting(candidates, others_open=False)
    assert found == BankNotificationStatus(status)
    assert (deposit.deposit_id if deposit else None) == confirmed


def test_a_line_beside_another_open_one_confirms_nothing_by_itself() -> None:
    """Which of two lines is the deposit's, only a person says; without a deposit there is nothing to ask."""
    assert fitting([_candidate(1, "pending")], others_open=True) == (BankNotificationStatus.AMBIGUOUS, None)
    assert fitting([], others_open=True) == (BankNotificationStatus.UNMATCHED, None)
