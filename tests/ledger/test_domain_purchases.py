"""Domain names and the life of a purchase: every status, with and without goodwill."""

from itertools import product

import pytest

from service.ledger.domain_purchases import (
    DomainPurchase,
    DomainPurchaseStatus,
    check_is_registrable,
    check_money_may_move,
    check_paid,
    check_pending,
    parse_name,
)
from service.ledger.errors import (
    DomainPurchaseNotPending,
    PaymentHeld,
    PaymentRegistered,
    PaymentReversed,
    RefundFinal,
    Refusal,
)
from service.ledger.transactions import Direction, Transaction

STATES = [*DomainPurchaseStatus, "active"]
"""The last one is a word of the bot."""


def purchase(status: str, *, transaction_id: int | None = 7) -> DomainPurchase:
    """A purchase in that status."""
    return DomainPurchase(
        id=1,
        telegram_id="1",
        domain="a.kr",
        ascii_name="a.kr",
        price=10,
        status=status,
        transaction_id=transaction_id,
        created_at=None,
        registered_at=None,
        expires_at=None,
        payment_reversed=False,
    )


def transaction(direction: Direction, number: int = 7) -> Transaction:
    """A confirmed transaction of the purchase's price."""
    empty = dict.fromkeys(Transaction.__struct_fields__)
    told = {"id": number, "telegram_id": "1", "type": "x", "direction": direction, "amount": 10, "status": "confirmed"}
    return Transaction(**{**empty, **told})  # type: ignore[arg-type]


@pytest.mark.parametrize("status", STATES)
@pytest.mark.parametrize("paid", [True, False])
def test_only_a_held_name_is_settled(status: str, paid: bool) -> None:
    """Held is what is pending and paid for; the refusal names the status."""
    found = purchase(status, transaction_id=7 if paid else None)
    if status == DomainPurchaseStatus.PENDING and paid:
        check_pending(found)
        return
    with pytest.raises(DomainPurchaseNotPending) as refused:
        check_pending(found)
    assert refused.value.members == {"current_status": status}


@pytest.mark.parametrize(("status", "direction", "goodwill"), list(product(STATES, Direction, [True, False])))
def test_the_price_moves_only_where_its_status_lets_it(status: str, direction: Direction, goodwill: bool) -> None:
    """A debit of the chain is taken back unless the name is held, and of a registered one as goodwill alone; a credit
    unless the name was given up."""
    expected: type[Refusal] | None = {
        ("pending", Direction.DEBIT): PaymentHeld,
        ("registered", Direction.DEBIT): None if goodwill else PaymentRegistered,
        ("released", Direction.CREDIT): RefundFinal,
        ("expired", Direction.CREDIT): RefundFinal,
    }.get((status, direction))
    if expected is None:
        check_money_may_move(purchase(status), transaction(direction), goodwill=goodwill)
        return
    with pytest.raises(Refusal) as refused:
        check_money_may_move(purchase(status), transaction(direction), goodwill=goodwill)
    assert type(refused.value) is expected
    assert refused.value.members["domain_purchase_id"] == 1


def test_a_name_is_paid_while_a_debit_ends_its_chain() -> None:
    """Whatever was reversed how often: the last transaction says who has the money."""
    debit = transaction(Direction.DEBIT, 9)
    assert check_paid(purchase("pending"), debit) is debit
    for last, back in ((transaction(Direction.CREDIT, 8), 8), (None, 7)):
        with pytest.raises(PaymentReversed) as refused:
            check_paid(purchase("pending"), last)
        assert refused.value.members == {"reversed_by_id": back}


@pytest.mark.parametrize("text", ["한글.kr", "한글.KR", "xn--bj0bj06e.kr", "한글。kr", "한글.kr.", "XN--BJ0BJ06E.KR"])
def test_every_spelling_of_a_name_is_one_name(text: str) -> None:
    """As people read it, and as the DNS has it."""
    name = parse_name(text)
    assert (name.readable, name.ascii) == ("한글.kr", "xn--bj0bj06e.kr")


def test_a_name_has_two_labels_and_253_characters_at_most() -> None:
    """In the form that the DNS has; at the edge the longest is one."""
    label = "x" * 63
    longest = f"{label}.{label}.{label}.{'x' * 61}"
    assert parse_name(longest).ascii == longest
    for text, said in {
        "nodot": "it takes at least two labels",
        "nodot.": "it takes at least two labels",
        f"{longest}x": "Domain too long",
        ".": "Empty Label",
        "a..kr": "Empty Label",
    }.items():
        with pytest.raises(ValueError, match=said):
            parse_name(text)


@pytest.mark.parametrize(("text", "is_one"), [("1.kr", True), ("a.kr1", True), ("a.1", False), ("1.2.3.4", False)])
def test_an_address_is_no_name(text: str, is_one: bool) -> None:
    """Only the last label tells."""
    if is_one:
        check_is_registrable(parse_name(text))
        return
    with pytest.raises(ValueError, match="its last label is a number, as in an address"):
        check_is_registrable(parse_name(text))
