"""The rules that rows were sealed by: they are on record in every leaf, and what they say never changes."""

import re
from hashlib import sha256

import msgspec

from service.ledger import audit_logs
from service.ledger.sealing_rules import FIRST_RULE, LATEST, RULES, SealingRule, is_of_ledger
from tests.audit import verifiers
from tests.some import some

FROZEN = {
    1: "5ef908f2d5a01af765904a5b6a0bced78b04d5968b47eb32524d1bd49a944021",
    2: "763a6958d739c2276e6ee405f68b78557a867eecb986c96bec2105afc170b070",
    3: "cf0182e5db3b8bb86737029acb5b3b6bb755671ba5fa042c6d255c440c44d8af",
}
"""SHA-256 of what each rule says. Do not edit a line: rows are sealed by it. Add a rule, and a line for it."""
README = (verifiers.FOLDER / "README.md").read_text("utf-8")


def digest_of(rule: SealingRule) -> str:
    return sha256(msgspec.json.encode([sorted(rule.public_members), sorted(rule.ledger_resource_types)])).hexdigest()


def test_what_a_rule_says_never_changes() -> None:
    """Rows that were sealed by it could otherwise neither be erased nor verified any more."""
    assert {number: digest_of(rule) for number, rule in RULES.items()} == FROZEN


def test_rules_are_numbered_from_1_on_in_one_byte() -> None:
    """Leaves name the rule in one byte; the first has the number that the format had."""
    assert [*RULES] == list(range(FIRST_RULE, LATEST + 1))
    assert FIRST_RULE == 1
    assert LATEST <= 255


def test_the_format_page_says_what_each_rule_says() -> None:
    """A later rule's lists are told as what they add."""
    told = README[README.index("### The rules") : README.index("### By hand")]
    members: set[str] = set()
    types: set[str] = set()
    for number in some(RULES):
        text = told[told.index(f"**Rule {number}**") :]
        text = text[: text.index(f"**Rule {number + 1}**")] if number < LATEST else text
        first, _, second = text.partition("resource types:")
        members |= set(re.findall(r"`(\w+)`", first))
        types |= set(re.findall(r"`(\w+)`", second))
        assert members == RULES[number].public_members, number
        assert types == RULES[number].ledger_resource_types, number


def test_both_verifiers_know_the_rules() -> None:
    """The numbers: what is personal is for the writer to know."""
    python = (verifiers.FOLDER / "verify.py").read_text("utf-8")
    javascript = (verifiers.FOLDER / "verify.mjs").read_text("utf-8")
    assert f"RULES = {{{', '.join(map(str, RULES))}}}" in python
    assert f"RULES = new Set([{', '.join(f'{rule}n' for rule in RULES)}])" in javascript


def test_a_row_of_a_later_kind_stays_a_strangers_by_an_earlier_rule() -> None:
    """A caller could name its own events so, until the ledger took the name."""
    assert is_of_ledger("import_archive", "cli:ops", rule=2)
    assert not is_of_ledger("import_archive", "cli:ops", rule=1)
    assert not is_of_ledger("import_archive", None, rule=2)


def test_no_caller_may_name_what_the_latest_rule_takes_for_the_ledgers_own() -> None:
    """Its details would be taken for public."""
    assert RULES[LATEST].ledger_resource_types <= audit_logs.LEDGER_RESOURCE_TYPES
