"""The rules by which rows of the audit log are sealed: which of a row's details say nothing of a person.

Every leaf is sealed by one rule and names it, and its hash covers that number. What a rule says never changes: rows
that were sealed by it could neither be erased nor checked any more. Whoever wants another member to be public, or
another kind of row to count as the ledger's own, adds a rule here. From then on rows are sealed by that one, and both
verifiers, docs/audit-log/README.md and its vectors learn of it. Numbers go up to 255.
"""

from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct


class SealingRule(Struct, frozen=True, kw_only=True):
    """public_members: the members of details that say nothing of a person; every other value is personal.

    ledger_resource_types: what the ledger's own rows are about; the details of any other row are personal as a whole.
    """

    public_members: frozenset[str]
    ledger_resource_types: frozenset[str]


_1 = SealingRule(
    public_members=frozenset(
        {
            "amount",
            "announced_at",
            "atomic",
            "balance",
            "balance_after",
            "balance_before",
            "bank_transaction_id",
            "candidate_deposit_ids",
            "code",
            "created_at",
            "credited",
            "current_status",
            "deposit_id",
            "direction",
            "domain",
            "history",
            "hold",
            "id",
            "late",
            "matched_bank_notification_id",
            "matched_deposit_id",
            "method",
            "occurred_at",
            "prefix",
            "price",
            "reference",
            "required",
            "resource_id",
            "resource_type",
            "reverses_id",
            "scopes",
            "shortfall",
            "status",
            "threshold",
            "transaction_id",
            "type",
            "user_id",
            "version",
        }
    ),
    ledger_resource_types=frozenset(
        {
            "api_key",
            "audit_log",
            "bank_notification",
            "deposit_transaction",
            "user",
            "user_deposits",
            "user_domains",
        }
    ),
)
_2 = SealingRule(
    public_members=_1.public_members
    | {
        "domain_purchase_id",
        "import_archive_rows",
        "last_ids",
        "key_sha256",
        "scopes_before",
        "taken_over_sha256",
    },
    ledger_resource_types=_1.ledger_resource_types | {"import_archive"},
)

_3 = SealingRule(
    public_members=_2.public_members
    | {
        "balance_gap",
        "bank_message_id",
        "bank_notification_id",
        "cancelled_deposit_id",
        "closed_as",
        "freed_bank_notification_id",
        "freed_deposit_id",
        "kind",
        "learned_name_id",
        "repeat",
    },
    ledger_resource_types=_2.ledger_resource_types | {"bank_message"},
)

RULES: Mapping[int, SealingRule] = MappingProxyType({1: _1, 2: _2, 3: _3})
"""All rules that rows were ever sealed by, by their numbers."""
FIRST_RULE = 1
"""The rule of rows that were sealed before there was another; neither the tables nor an export need to name it."""
LATEST = max(RULES)
"""The rule that rows are sealed by now."""


def is_of_ledger(resource_type: object, actor: object, *, rule: int) -> bool:
    """Whether the ledger itself wrote a row: neither the bot, which named no actor, nor a caller its event."""
    return actor is not None and resource_type in RULES[rule].ledger_resource_types
