"""What the operator decides and operations follow: how long things stay open, in seconds, and how banks print."""

from msgspec import Struct


class Policy(Struct, frozen=True, kw_only=True):
    """`match_window_s`: how far a bank transfer and its announcement may lie apart, either way, to be matched.

    `bank_name_width`: how wide the field is in which banks print a name, in columns of EUC-KR.
    `deposit_expiry_s` and `hold_expiry_s`: how long a pending deposit and a held domain purchase stay open.
    """

    match_window_s: int = 24 * 3600
    bank_name_width: int = 14
    deposit_expiry_s: int = 24 * 3600
    hold_expiry_s: int = 3600
