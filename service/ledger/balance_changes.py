"""Balance changes: a service posts one to a thousand signed changes in one request.

Atomic, all are applied or none; otherwise each is applied or refused by itself, in the order given.
"""

from collections.abc import Iterable
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from service.ledger.errors import ErrorCode, Refusal
from service.ledger.fields import AMOUNT_MAX, NewTelegramId, Reason, Reference

CHANGES_MAX = 1000

SignedAmount = Annotated[
    int,
    Meta(
        ge=-AMOUNT_MAX,
        le=AMOUNT_MAX,
        description="Won (KRW), a whole number but 0; above 0 comes in, below 0 goes out.",
        extra_json_schema={"not": {"const": 0}},
    ),
]


class BalanceChange(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One change. `reference` is unique per caller: used again, the change is refused."""

    telegram_id: NewTelegramId
    amount: SignedAmount
    reason: Reason
    reference: Reference


class BalanceChangesPost(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The changes, and whether they belong together (the default) or stand each for itself."""

    changes: Annotated[list[BalanceChange], Meta(min_length=1, max_length=CHANGES_MAX)]
    atomic: bool | UnsetType = UNSET


class BalanceChangeResult(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of the change at the same place. `status`: applied or refused.

    Applied: transaction_id, balance_before, balance_after (won), version, audit_log_id. Refused: code, detail, and
    audit_log_id of the refusal.
    """

    status: str
    reference: str
    audit_log_id: int
    transaction_id: int | UnsetType = UNSET
    balance_before: int | UnsetType = UNSET
    balance_after: int | UnsetType = UNSET
    version: int | UnsetType = UNSET
    code: ErrorCode | UnsetType = UNSET
    detail: str | UnsetType = UNSET


class BalanceChangesWritten(Struct, frozen=True, kw_only=True):
    """Answer to BalanceChangesPost: a result for each change, in order."""

    applied: int
    refused: int
    results: list[BalanceChangeResult]


def first_zero(changes: Iterable[BalanceChange]) -> int | None:
    """The place of the first change of 0 won, which moves nothing; None when there is none."""
    return next((place for place, change in enumerate(changes) if change.amount == 0), None)


def at_place(refusal: Refusal, place: int) -> Refusal:
    """The same refusal, saying which change of the request it is about."""
    members: dict[str, Any] = {**refusal.members, "index": place}
    return type(refusal)(f"Change {place}: {refusal.detail}", **members)
