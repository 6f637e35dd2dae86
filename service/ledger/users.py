"""Users of the bot and the account that each of them has."""

from msgspec import UNSET, Struct

from service.ledger.fields import Instant, NewTelegramId, OptionalUsername


class UserCreate(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Asks that a user exist; a user name that is given replaces the one on record."""

    telegram_id: NewTelegramId
    username: OptionalUsername = UNSET


def pseudonym(user_id: int) -> str:
    """What stands for the telegram_id of a user whose personal data was erased; no telegram id has a letter."""
    return f"erased-{user_id}"


class Account(Struct, frozen=True):
    """A user with the balance as the unit of work finds it. `balance` in won; `version` counts its movements."""

    user_id: int
    telegram_id: str
    username: str | None
    created_at: str
    balance: int
    version: int


class User(Struct, frozen=True, kw_only=True):
    """A user as the API shows it. `created_at` is null in rows that the bot wrote without one."""

    telegram_id: str
    username: str | None
    created_at: Instant | None


class UserWritten(User, frozen=True, kw_only=True):
    """Answer to UserCreate. `audit_log_id` is null when the user was there and nothing had to change."""

    balance_before: int
    balance_after: int
    version: int
    audit_log_id: int | None


class Balance(Struct, frozen=True, kw_only=True):
    """잔액. `held` is what the user has paid for the domain purchases that are pending; `balance` is without it.

    All in won. `version` is the number of transactions that have moved the balance since Passbook keeps it.
    """

    telegram_id: str
    balance: int
    held: int
    version: int
