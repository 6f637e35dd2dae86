"""What is kept of audit rows that are archived and removed: which steps they told of which resources.

So the ledger can still be proved exactly, row by row: a movement whose audit row was archived is told apart from one
that never had any. A step is the action; all actions that move money are one step, MOVED, of a transaction.
"""

from collections.abc import Iterator
from typing import Any, TypeGuard

import msgspec

MOVED = "moved"
MONEY_ACTIONS = ("deposit_confirmed", "balance_debited", "balance_credited", "transaction_reversed")
DEPOSIT_ACTIONS = ("deposit_announced", "deposit_cancelled", "deposit_expired")
DOMAIN_ACTIONS = ("domain_registered", "domain_held", "domain_released", "domain_expired")
RECEIVED, MATCHED = "bank_notification_received", "bank_notification_matched"
CANCELLED = "bank_notification_cancelled"
MESSAGE_RECEIVED, MESSAGE_SETTLED = "bank_message_received", "bank_message_settled"
BANK_EVENT_ACTIONS = tuple(
    f"bank_notification_{kind}" for kind in ("told", "dismissed", "reopened", "cancelled", "freed")
)
"""One for each event of a bank notification."""
OPENED = "opening_adjustment"
"""The takeover's; no actor is on record for it."""

_RESOURCE_TYPES = {
    **dict.fromkeys(DEPOSIT_ACTIONS, "deposit_transaction"),
    **dict.fromkeys(DOMAIN_ACTIONS, "user_domains"),
    **dict.fromkeys((RECEIVED, MATCHED, *BANK_EVENT_ACTIONS), "bank_notification"),
    **dict.fromkeys((MESSAGE_RECEIVED, MESSAGE_SETTLED), "bank_message"),
    "user_created": "user",
    "user_erased": "user",
    "user_name_learned": "user",
    "user_name_forgotten": "user",
    "api_key_created": "api_key",
    "api_key_revoked": "api_key",
}
BITS = 32
"""Ids in a block."""


def steps(
    action: str, resource_type: str | None, resource_id: Any, actor: str | None, details: Any
) -> Iterator[tuple[str, int]]:
    """(step, id) of all that an audit row tells of the ledger; nothing for a refusal and for a row of the bot's."""
    if actor is None:
        if action == OPENED and resource_type == "deposit_transaction" and _is_id(resource_id):
            yield OPENED, resource_id
        return
    if action in MONEY_ACTIONS:
        if resource_type == "deposit_transaction" and _is_id(resource_id):
            yield MOVED, resource_id
        return
    if _RESOURCE_TYPES.get(action) != resource_type or resource_type is None:
        return
    if _is_id(resource_id):
        yield action, resource_id
    if action in DOMAIN_ACTIONS:
        transaction_id = _members(details).get("transaction_id")
        if _is_id(transaction_id):
            yield MOVED, transaction_id
    elif action == RECEIVED and _is_id(resource_id) and _members(details).get("status") == "matched":
        yield MATCHED, resource_id


def _is_id(value: object) -> TypeGuard[int]:
    return type(value) is int and value > 0


def _members(details: Any) -> dict[str, Any]:
    try:
        members = msgspec.json.decode(details) if isinstance(details, str) else None
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        members = None
    return members if isinstance(members, dict) else {}


def bits_of(told: list[tuple[str, int]], known: dict[tuple[str, int, int], int]) -> dict[tuple[str, int, int], int]:
    """(step, block, nth) -> the bits of that row of audit_pruned_steps once `told` is added to what is `known`."""
    found: dict[tuple[str, int, int], int] = {}
    for step, number in told:
        block, bit = number // BITS, 1 << number % BITS
        nth = 1
        while found.get((step, block, nth), known.get((step, block, nth), 0)) & bit:
            nth += 1
        key = (step, block, nth)
        found[key] = found.get(key, known.get(key, 0)) | bit
    return found
