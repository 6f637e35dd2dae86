"""Integrity: what is proved about the whole ledger, and what a proof found."""

from enum import StrEnum

from msgspec import Struct

from service.ledger.fields import Instant

EXAMPLES_MAX = 5
"""How many failures of a check are told, unless more are asked for; the others are counted."""


class IntegrityStatus(StrEnum):
    """unfinished: it could not be carried through, and what it saw until then was sound."""

    SOUND = "sound"
    BROKEN = "broken"
    RUNNING = "running"
    UNFINISHED = "unfinished"


class IntegrityExample(Struct, frozen=True, kw_only=True):
    """One failure. `table` and `row_id` name the row that is wrong; each is null where there is none such."""

    telegram_id: str | None
    transaction_id: int | None
    table: str | None
    row_id: int | None
    said: str


class IntegrityCheck(Struct, frozen=True, kw_only=True):
    """`description` is what holds when nothing failed. `checked`: rows seen; `examples`: the first five failures."""

    name: str
    description: str
    checked: int
    failed: int
    examples: list[IntegrityExample]


class IntegrityReport(Struct, frozen=True, kw_only=True):
    """One proof, finished or as far as it is.

    finished_at and duration_ms are null while it runs; `reason` says why it ended early, and is null otherwise.
    `previous` is the last finished proof while this one runs, null when there is none. checked and total count rows.
    """

    status: IntegrityStatus
    started_at: Instant
    finished_at: Instant | None
    duration_ms: int | None
    checked: int
    total: int
    reason: str | None
    checks: list[IntegrityCheck]
    previous: "IntegrityReport | None"


DESCRIPTIONS = {
    "balances": (
        "Every user has an account whose balance is the signed sum of the user's confirmed transactions and not"
        " negative."
    ),
    "versions": (
        "A user's movements are numbered 1, 2, 3, … without a gap, each goes on from the balance that the one before"
        " left and moves it by its amount, and the account stands where the last one left it."
    ),
    "audit_of_movements": (
        "Every movement has exactly one audit row, which tells the same user, amount, balances, version, reference,"
        " reason, name and time unless it is archived, and every audit row of a movement has its movement."
    ),
    "audit_of_deposits": (
        "Every deposit has one audit row for each step that it took, no audit row tells another, and the announcement"
        " tells its user, amount and name."
    ),
    "audit_of_domain_purchases": (
        "Every domain purchase has one audit row for each step that it took, and no audit row tells another."
    ),
    "audit_of_bank_notifications": (
        "Every bank notification has one audit row of its arrival, which tells its bank transaction, name and amount,"
        " and one of its match, and no audit row tells another."
    ),
    "audit_of_users": "Every audit row that makes a user names one that is there, and no user was made twice.",
    "audit_of_api_keys": (
        "Every API key has one audit row of its making, and one of its revocation if it was revoked, and no audit row"
        " tells another; its name, prefix, scopes and hash are those that the rows tell of."
    ),
    "stored_answers": (
        "Every stored answer is of the caller, the time and the outcome that the audit row of its request tells, and"
        " every row that a request wrote has its answer."
    ),
    "references": "Every reference of a balance change names the one that was posted under it, and none is missing.",
    "audit_rows": (
        "Every row of the audit log was sealed when it was written, and every sealed row is there, but for the oldest,"
        " up to a recorded prune."
    ),
    "bank_notifications": (
        "A bank notification that is matched names one confirmed deposit of its amount, which no other names, and the"
        " deposit's audit row names the notification."
    ),
    "bank_messages": (
        "Every message of a bank has the text that came and one audit row for each thing that became of it, and the"
        " notification that it took back is cancelled."
    ),
    "learned_names": (
        "Every learned name is printed on a bank notification that is matched with a deposit of its user, compared as"
        " it reads, and told by one audit row of its learning and none of its removal; every audit row of a learning"
        " has its learned name, its removal, or an erased user."
    ),
    "reversals": "Every reversal moves the same amount of the same user's money the other way, once.",
    "domain_purchases": (
        "Every domain purchase was paid for by its user with its price, once, and the money is where its status says:"
        " taken while it is pending, taken when it was registered, paid back when it was given up. It is the only live"
        " one of its name. Every movement for a domain belongs to a purchase."
    ),
    "taken_over": (
        "What an import took over is as the import's audit row tells, and what stood when audit rows were archived is"
        " as the last prune's row tells: nothing was edited, taken away or put in since."
    ),
    "audit_chain": (
        "Every row of the audit log is the one that was sealed, in the order in which it was: each leaf, each node and"
        " the root are computed anew."
    ),
    "foreign_keys": "Every row that another row names is there.",
    "schema": "Tables, indexes and triggers are those that the migrations make, and no table is out of ids.",
    "file": "The database file is well formed.",
}
"""The checks, by their lasting names, and what each says."""
