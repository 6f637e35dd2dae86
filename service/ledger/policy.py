"""What the operator decides and operations follow: how long things stay open. All in seconds."""

from msgspec import Struct


class Policy(Struct, frozen=True, kw_only=True):
    """`match_window_s`: how far a bank transfer and its announcement may lie apart, either way, to be matched.

    `deposit_expiry_s` and `hold_expiry_s`: how long a pending deposit and a held domain purchase stay open.
    """

    match_window_s: int = 24 * 3600
    deposit_expiry_s: int = 24 * 3600
    hold_expiry_s: int = 3600
