"""docs/bank-lines.md is true: its example is what its recipe makes, and its accounts are what the code says."""

import re
from hashlib import sha256

from service.ledger.bank_lines import BankFacts, accounts_agree, derived_id
from tests.live import CHECKOUT

PAGE = (CHECKOUT / "docs" / "bank-lines.md").read_text("utf-8")


def test_the_example_of_a_derived_id_is_what_its_texts_make() -> None:
    """By the recipe alone, as a caller would compute it, and by the service."""
    recipe = PAGE.partition("| text |")[2].partition("\n\n")[0]
    texts = re.findall(r"^\| the .*\| `([^`]*)` \|$", recipe, re.MULTILINE)
    assert len(texts) == 5
    (told,) = re.findall(r"has the id `([^`]+)`", PAGE)
    assert told == "derived:" + sha256("\n".join(texts).encode()).hexdigest()
    minute, amount, name, account, balance = texts
    facts = BankFacts(
        bank_transaction_id=None,
        depositor_name=name,
        amount=int(amount),
        occurred_at=minute.replace("+", ":59+"),
        account=account,
        balance_after=int(balance),
    )
    assert told == derived_id(facts)


def test_the_accounts_that_are_called_one_are_one() -> None:
    """Banks mask differently, and the page says so by an example."""
    (one, other) = re.findall(r"`([^`]+)` and\s+`([^`]+)` are one account", PAGE)[0]
    assert one != other
    assert accounts_agree(one, other)
