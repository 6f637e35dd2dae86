"""Users: made when they are named first."""

from service.ledger.audit_logs import USER
from service.ledger.errors import UserNotFound
from service.ledger.fields import given, is_padded
from service.ledger.idempotency import Answer
from service.ledger.timestamps import spoken
from service.ledger.users import Account, UserCreate, UserWritten
from service.repository.unit_of_work import Operation, UnitOfWork, created, ok
from service.storage import users


def open_account(work: UnitOfWork, telegram_id: str, username: str | None = None) -> tuple[Account, int]:
    """Makes the user with a balance of 0; returns the account and the audit row's id.

    Raises UserNotFound for an id that no new user may have: the edge saw a user who was erased since.
    """
    if is_padded(telegram_id):
        raise UserNotFound(f"There is no user {telegram_id}.")
    account = work.session.open_account(telegram_id, username)
    return account, work.audit("user_created", USER, account.user_id, account, {"username": username})


def find_or_open(work: UnitOfWork, telegram_id: str) -> Account:
    """The user's account, made on first use."""
    return work.session.account(telegram_id) or open_account(work, telegram_id)[0]


def _create(work: UnitOfWork, command: UserCreate, _target: int) -> Answer:
    username = given(command.username)
    account = work.session.account(command.telegram_id)
    if account is None:
        account, audit_log_id = open_account(work, command.telegram_id, username)
        return created(_written(account, username, audit_log_id), f"/v1/users/{account.telegram_id}")
    if username is None or username == account.username:
        return ok(_written(account, account.username, None))
    users.update_username(work.tx, user_id=account.user_id, username=username)
    renamed = {"username_before": account.username, "username_after": username}
    audit_log_id = work.audit("user_renamed", USER, account.user_id, account, renamed)
    return ok(_written(account, username, audit_log_id))


def _written(account: Account, username: str | None, audit_log_id: int | None) -> UserWritten:
    return UserWritten(
        telegram_id=account.telegram_id,
        username=username,
        created_at=spoken(account.created_at) if account.created_at else None,
        balance_before=account.balance,
        balance_after=account.balance,
        version=account.version,
        audit_log_id=audit_log_id,
    )


CREATE = Operation("user_create", USER, _create)
"""Makes the user, or returns the one that is there; a user name that differs is taken over."""
