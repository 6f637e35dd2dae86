"""When two lines tell of the same money, and what the second one adds."""

import unicodedata
from hashlib import sha256
from itertools import product
from typing import Any

import msgspec
import pytest

from service.ledger.bank_lines import (
    TOLD_MAX,
    Addition,
    BankFacts,
    KnownLine,
    accounts_agree,
    addition,
    canonical_text,
    check_same_transfer,
    contradicts,
    derived_id,
    is_derived,
    minute_of,
    spelled,
    trimmed,
)
from service.ledger.depositor_names import match_name
from service.ledger.errors import BankTransactionReused
from service.ledger.timestamps import bound

FACTS = BankFacts(
    bank_transaction_id="KB-1",
    depositor_name="홍길동",
    amount=50_000,
    occurred_at="2026-01-16T12:39:00+09:00",
    bank_name="하나",
    raw_message="하나,01/16,12:39",
    account="427******27104",
    balance_after=1_050_000,
)
SPARE = {"bank_name": None, "raw_message": None, "account": None, "balance_after": None}


def said(**changed: Any) -> BankFacts:
    """The line, told otherwise."""
    return msgspec.structs.replace(FACTS, **changed)


def known(facts: BankFacts, *told: Addition, **changed: Any) -> KnownLine:
    """That line on record, with what was told of it since."""

    def every(name: str, first: Any) -> list[Any]:
        return [value for value in (first, *(getattr(one, name) for one in told)) if value is not None]

    line = KnownLine(
        id=3,
        bank_transaction_id=facts.bank_transaction_id,
        name=match_name(facts.depositor_name),
        amount=facts.amount,
        times=every("transaction_time", bound(facts.occurred_at)),
        bank_names=every("bank_name", facts.bank_name),
        depositor_names=every("depositor_name", facts.depositor_name),
        accounts=every("account", facts.account),
        balances=every("balance_after", facts.balance_after),
        messages=every("raw_message", facts.raw_message),
        additions=len(told),
    )
    return msgspec.structs.replace(line, **changed)


def test_the_recipe_of_a_derived_id_is_as_it_is_written_down() -> None:
    """Whoever computes it by the document finds the line: so what it says of itself never changes."""
    text = "2026-01-16T12:39+09:00\n50000\n홍길동\n427******27104\n1050000"
    assert canonical_text(FACTS) == text
    assert derived_id(FACTS) == f"derived:{sha256(text.encode()).hexdigest()}"
    assert derived_id(FACTS) == "derived:41a39d26fe29aadfb1bd810092c96db7189c92c6711e9e8a1566b14572210983"
    assert canonical_text(said(depositor_name="", **SPARE)) == "2026-01-16T12:39+09:00\n50000\n\n\n"
    assert is_derived(derived_id(FACTS))
    assert not any(
        is_derived(one) for one in (None, "KB-1", "derived:", derived_id(FACTS) + "\n", derived_id(FACTS)[:-1])
    )


@pytest.mark.parametrize(
    ("occurred_at", "same"),
    [
        ("2026-01-16T03:39:00Z", True),
        ("2026-01-16T03:39:30Z", True),
        ("2026-01-16T12:39:59.999999+09:00", True),
        ("2026-01-16T03:40:00Z", False),
        ("2026-01-16T03:38:59.999Z", False),
        ("2026-01-16T12:39:00Z", False),
        ("2025-01-16T12:39:00+09:00", False),
    ],
)
def test_a_derived_id_is_of_the_minute(occurred_at: str, same: bool) -> None:
    """Banks print no seconds; the minute is Korea's, which begins with that of UTC, whatever zone it is told in."""
    assert (derived_id(said(occurred_at=occurred_at)) == derived_id(FACTS)) is same
    assert (minute_of(bound(occurred_at)) == minute_of(bound(FACTS.occurred_at))) is same


def test_a_derived_id_is_another_for_all_that_makes_other_money() -> None:
    """The amount, the name, the account, the balance: no two of a thousand lines have one id. Spelling makes none."""
    amounts, names, times = (1, 11, 50_000), ("", "홍", "홍길동", "1"), ("03:39:00Z", "23:59:59Z")
    accounts, balances = (None, "1", "11"), (None, 1, 11, -1, 0)
    lines = [
        said(amount=amount, depositor_name=name, account=account, balance_after=balance, occurred_at=f"2026-01-16T{at}")
        for amount, name, account, balance, at in product(amounts, names, accounts, balances, times)
    ]
    assert len({derived_id(line) for line in lines}) == len(lines)
    for name in ("홍 길동", unicodedata.normalize("NFD", "홍길동"), "홍길동\u200b"):
        assert derived_id(said(depositor_name=name)) == derived_id(FACTS)
    for unrelated in ({"bank_name": "KB"}, {"raw_message": None}, {"bank_transaction_id": None}):
        assert derived_id(said(**unrelated)) == derived_id(FACTS)
    assert is_derived(derived_id(said(occurred_at="9999-12-31T23:59:59Z")))


@pytest.mark.parametrize("padding", ["\0", "\0\0\0", "\t", " ", "\u3000", " \0\t\u3000", "\u200b\0"])
def test_padding_is_no_part_of_a_name(padding: str) -> None:
    """On either side, and alone; within the name a blank stays."""
    for name in ("홍길동", "홍 길동", "H"):
        assert [trimmed(text) for text in (name, name + padding, padding + name, padding + name + padding)] == [
            name
        ] * 4
    assert trimmed(padding) == trimmed("") == ""


def test_an_id_in_pieces_is_the_same_id() -> None:
    """One watcher sends 거래 as two letters, another one as five."""
    assert spelled(unicodedata.normalize("NFD", "거래 1")) == spelled("거래 1") == "거래 1"


@pytest.mark.parametrize(
    ("one", "other", "agree"),
    [
        ("427******27104", "427******27104", True),
        ("606401**772", "606401-**-***772", True),
        ("606401**772", "606401**773", False),
        ("606401**772", "606402**772", False),
        ("352-****-1682-33", "352********33", True),
        ("352-****-1682-33", "352********34", False),
        ("140-012-603310", "140012603310", True),
        ("140-012-603310", "140-012-603311", False),
        ("140-012-603310", "140-***-***310", True),
        ("140-012-603310", "141-***-***310", False),
        ("140-012-603310", "140-012-6033100", False),
        ("****", "140-012-603310", True),
        ("***772", "606401**772", True),
        ("***72", "606401**773", False),
    ],
)
def test_accounts_agree_where_what_is_printed_does(one: str, other: str, agree: bool) -> None:
    """A bank masks one account in several ways; what is not masked decides."""
    assert accounts_agree(one, other) is accounts_agree(other, one) is agree


def test_other_money_has_another_account_or_balance() -> None:
    """What one of two lines does not say contradicts nothing; what was told of it later counts as if it had said it."""
    spare = known(said(**SPARE))
    for balance, account in product((None, 1), (None, "1*2")):
        assert not contradicts(said(balance_after=balance, account=account), spare)
        assert not contradicts(said(**SPARE), known(said(balance_after=balance, account=account)))
    assert contradicts(said(balance_after=0), known(said(balance_after=1)))
    told = known(said(**SPARE), Addition(account="427******27104", balance_after=0))
    for line in (known(said(balance_after=0)), told):
        assert contradicts(said(balance_after=1), line)
        assert contradicts(said(balance_after=1, account=None), line)
        assert contradicts(said(balance_after=0, account="428******27104"), line)
        assert contradicts(said(balance_after=None, account="428******27104"), line)
        assert not contradicts(said(balance_after=0), line)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"depositor_name": "홍길순"}, "depositor_name"),
        ({"amount": 49_999}, "amount"),
        ({"amount": 50_001}, "amount"),
        ({"occurred_at": "2026-01-16T03:40:00Z"}, "occurred_at"),
        ({"occurred_at": "2026-01-16T03:38:59.999Z"}, "occurred_at"),
        ({"bank_name": "KB"}, "bank_name"),
        ({"account": "427******27105"}, "account"),
        ({"balance_after": 1_050_001}, "balance_after"),
    ],
)
def test_one_id_that_tells_otherwise_is_refused(changed: dict[str, Any], field: str) -> None:
    """Each field by itself; the refusal names just those that differ, also where it was told later."""
    later = known(said(**SPARE), Addition(bank_name="하나", account=FACTS.account, balance_after=FACTS.balance_after))
    for line in (known(FACTS), later):
        with pytest.raises(BankTransactionReused) as refused:
            check_same_transfer(said(**changed), line)
        assert refused.value.members == {"bank_notification_id": 3, "differing_fields": [field]}


def test_two_different_seconds_are_two_times() -> None:
    """A line that says its seconds is not told others; without seconds, the minute's first is meant."""
    exact = known(said(occurred_at="2026-01-16T12:39:30+09:00"))
    for occurred_at in ("2026-01-16T12:39:00+09:00", "2026-01-16T03:39:30.000Z"):
        check_same_transfer(said(occurred_at=occurred_at), exact)
    with pytest.raises(BankTransactionReused):
        check_same_transfer(said(occurred_at="2026-01-16T12:39:31+09:00"), exact)
    told = known(FACTS, Addition(transaction_time="2026-01-16 03:39:30"))
    with pytest.raises(BankTransactionReused):
        check_same_transfer(said(occurred_at="2026-01-16T12:39:31+09:00"), told)


def test_a_transfer_that_is_told_again_is_the_same() -> None:
    """With more or less of what a bank may print, in another spelling, and where the name was erased meanwhile."""
    for name in ("홍길동", "홍 길동", unicodedata.normalize("NFD", "홍길동"), ""):
        check_same_transfer(said(depositor_name=name), known(FACTS))
    check_same_transfer(said(depositor_name="홍길동"), known(said(depositor_name="")))
    check_same_transfer(said(depositor_name="김철수"), known(FACTS, name=None, depositor_names=[]))
    check_same_transfer(said(**SPARE), known(FACTS))
    check_same_transfer(FACTS, known(said(**SPARE)))


@pytest.mark.parametrize(
    ("changed", "added"),
    [
        ({}, {}),
        ({"occurred_at": "2026-01-16T12:39:30+09:00"}, {"transaction_time": "2026-01-16 03:39:30"}),
        ({"occurred_at": "2026-01-16T12:39:00.5+09:00"}, {"transaction_time": "2026-01-16 03:39:00.5"}),
        ({"bank_name": "하나은행"}, {"bank_name": "하나은행"}),
        ({"depositor_name": "홍 길 동"}, {"depositor_name": "홍 길 동"}),
        ({"depositor_name": unicodedata.normalize("NFD", "홍길동")}, {}),
        ({"depositor_name": ""}, {}),
        ({"account": "427-******-27104"}, {"account": "427-******-27104"}),
        ({"raw_message": "하나은행 01/16"}, {"raw_message": "하나은행 01/16"}),
        (SPARE, {}),
    ],
)
def test_what_a_line_did_not_say_yet_is_added_once(changed: dict[str, Any], added: dict[str, Any]) -> None:
    """The new alone; told once more it is nothing new, and what was said before is not unsaid."""
    facts = said(**changed)
    wanted = Addition(**added) if added else None
    assert addition(facts, known(FACTS)) == wanted
    if wanted:
        assert addition(facts, known(FACTS, wanted)) is None


def test_all_that_was_left_out_is_added_and_a_known_second_is_not_replaced() -> None:
    """Zero is a balance. Of an erased line, name and message are not kept again. There is an end to it."""
    spare = known(said(**SPARE))
    everything = Addition(bank_name="하나", account="427******27104", balance_after=0, raw_message="하나,01/16,12:39")
    assert addition(said(balance_after=0), spare) == everything
    exact = known(said(occurred_at="2026-01-16T12:39:30+09:00"))
    assert addition(FACTS, exact) is addition(said(occurred_at="2026-01-16T12:39:45+09:00"), exact) is None
    erased = msgspec.structs.replace(spare, name=None, depositor_names=[])
    kept = msgspec.structs.replace(everything, raw_message=None)
    assert addition(said(balance_after=0), erased) == kept
    for additions, wanted in ((TOLD_MAX - 1, everything), (TOLD_MAX, None)):
        assert addition(said(balance_after=0), msgspec.structs.replace(spare, additions=additions)) == wanted
