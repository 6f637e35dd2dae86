"""Which names are alike, and which deposit a notification confirms by itself."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.ledger.bank_notifications import (
    BankNotification,
    BankNotificationPost,
    BankNotificationStatus,
    Candidate,
    Likeness,
    check_matchable,
    check_same_amount,
    check_same_transfer,
    fitting,
    likeness,
    match_name,
)
from service.ledger.errors import BankNotificationMatched, BankTransactionReused, DepositAmountDiffers


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


ON_RECORD = {"depositor_name": "홍길동", "amount": 500, "occurred_at": "2026-01-19T12:00:00Z", "bank_name": "국민은행"}


def on_record(**changed: object) -> BankNotification:
    """The notification on record."""
    empty = dict.fromkeys(BankNotification.__struct_fields__)
    told = {"id": 3, "status": BankNotificationStatus.UNMATCHED, "candidates": [], **ON_RECORD}
    return BankNotification(**{**empty, **told, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("depositor_name", "홍 길동"),
        ("amount", 499),
        ("amount", 501),
        ("occurred_at", "2026-01-19T12:00:00.001Z"),
        ("bank_name", "국민"),
        ("bank_name", None),
    ],
)
def test_a_transfer_that_is_told_otherwise_is_another_one(field: str, other: object) -> None:
    """Each field by itself, and all together; the refusal names just those that differ."""
    command = BankNotificationPost(bank_transaction_id="KB-1", **{**ON_RECORD, field: other})  # type: ignore[arg-type]
    with pytest.raises(BankTransactionReused) as refused:
        check_same_transfer(command, on_record())
    assert refused.value.members == {"bank_notification_id": 3, "differing_fields": [field]}


def test_a_transfer_that_is_told_again_is_the_same() -> None:
    """Also with the instant in another zone, and where its name was erased meanwhile."""
    for occurred_at in (ON_RECORD["occurred_at"], "2026-01-19T21:00:00.000+09:00"):
        command = BankNotificationPost(bank_transaction_id="KB-1", **{**ON_RECORD, "occurred_at": occurred_at})  # type: ignore[arg-type]
        check_same_transfer(command, on_record())
        check_same_transfer(command, on_record(depositor_name=None))


@pytest.mark.parametrize("amount", [499, 500, 501])
def test_a_line_is_matched_with_its_own_amount_alone(amount: int) -> None:
    """One won less or more is another transfer; the refusal tells both amounts."""
    if amount == 500:
        check_same_amount(on_record(), 7, amount)
        return
    with pytest.raises(DepositAmountDiffers) as refused:
        check_same_amount(on_record(), 7, amount)
    assert refused.value.members == {"amount": amount, "received": 500}


@pytest.mark.parametrize("status", BankNotificationStatus)
@pytest.mark.parametrize("deposit_id", [None, 9])
def test_a_line_is_matched_once(status: BankNotificationStatus, deposit_id: int | None) -> None:
    """Whatever matched it; the refusal names the deposit."""
    found = on_record(status=status, matched_deposit_id=deposit_id)
    if status is not BankNotificationStatus.MATCHED:
        check_matchable(found)
        return
    with pytest.raises(BankNotificationMatched) as refused:
        check_matchable(found)
    assert refused.value.members == {"current_status": "matched", "deposit_id": deposit_id or 0}
