"""The names in the audit log that are the ledger's own, and those that look like them: callers may not post under them.

An action is reserved by how it begins, so that a name that the ledger comes to need is not taken by then. The words are
compared without their endings and digits, with and without the underscores: deposits_merged, apikey_made and
depositconfirmed are as bad as deposit_confirmed. The lists here are what the contract and docs/audit-log.md say.
"""

import re

from service.ledger.sealing_rules import LATEST, RULES

ACTIONS_BEGIN = (
    *(
        "api_key",
        "audit",
        "balance",
        "bank_message",
        "bank_notification",
        "credit",
        "debit",
        "deposit",
        "domain",
        "import",
        "ledger",
    ),
    *("migration", "opening", "passbook", "transaction", "user"),
)
"""How the actions begin that the ledger itself writes, or may come to write."""
RESOURCES = (
    *sorted(RULES[LATEST].ledger_resource_types),
    *("balance", "balance_change", "debit", "deposit", "domain", "domain_purchase", "transaction"),
)
"""What the ledger's own rows are about, and what the API has."""
_STEPS = (
    *("announced", "archived", "cancelled", "changed", "confirmed", "created", "credited", "debited", "deleted"),
    *("erased", "expired", "failed", "held", "made", "matched", "merged", "received", "registered", "released"),
    *("removed", "renamed", "reversed", "revoked", "updated"),
    *("change", "credit", "debit", "key", "log", "purchase"),
)
"""What is written behind a noun without an underscore."""
_LONG = 7
"""A word of so many letters begins no word of another meaning."""
_ENDINGS = ("s", "es", "ed", "d", "ing")
_DIGITS = re.compile(r"[0-9]+")


def words(names: tuple[str, ...]) -> str:
    """`names` in a sentence: `a`, `b` or `c`."""
    quoted = [f"`{name}`" for name in names]
    return f"{', '.join(quoted[:-1])} or {quoted[-1]}"


def is_action_reserved(action: str) -> bool:
    """Whether `action` is the ledger's own, or so named that it could be taken for one."""
    first, *others = _words(action) or [""]
    second = others[0] if others else ""
    if first.startswith(_LONG_STEMS):
        return True
    return any(stem in _ACTION_STEMS for stem in _stems(first) | {a + b for a in _stems(first) for b in _stems(second)})


def is_resource_reserved(resource_type: str) -> bool:
    """Whether `resource_type` is one of the ledger's own, or differs from one in its number or underscores only."""
    return "".join(_singular(word) for word in _words(resource_type)) in _RESOURCE_STEMS


def _words(name: str) -> list[str]:
    return [word for word in _DIGITS.sub("", name).split("_") if word]


def _singular(word: str) -> str:
    return word[:-1] if word.endswith("s") else word


def _stems(word: str) -> set[str]:
    """What `word` may be a form of."""
    found = {word, *(word.removesuffix(ending) for ending in _ENDINGS)}
    found |= {word.removesuffix(step) for step in _STEPS}
    found |= {stem.removesuffix("s") for stem in found}
    return found | ({f"{word.removesuffix('ing')}e"} if word.endswith("ing") else set())


_ACTION_STEMS = {name.replace("_", "") for name in ACTIONS_BEGIN} | {"migrate"}
_LONG_STEMS = tuple(sorted(stem for stem in _ACTION_STEMS if len(stem) >= _LONG))
_RESOURCE_STEMS = {"".join(_singular(word) for word in name.split("_")) for name in RESOURCES}
