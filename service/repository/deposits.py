"""Deposits: announce, confirm, cancel."""

from service.ledger.audit_logs import DEPOSIT_TRANSACTION
from service.ledger.deposits import (
    Deposit,
    DepositAnnounce,
    DepositCancel,
    DepositConfirm,
    DepositWritten,
    check_cancellable,
    check_confirmable,
)
from service.ledger.errors import DepositNotFound
from service.ledger.fields import given
from service.ledger.idempotency import Answer
from service.ledger.timestamps import spoken
from service.ledger.transactions import TransactionStatus, balance_after_credit
from service.ledger.users import Account
from service.repository.unit_of_work import Operation, UnitOfWork, created, ok
from service.repository.users import find_or_open
from service.storage import deposits, users


def _announce(work: UnitOfWork, command: DepositAnnounce, _target: int) -> Answer:
    account = find_or_open(work, command.telegram_id)
    deposit_id = deposits.insert_pending(
        work.tx,
        user_id=account.user_id,
        amount=command.amount,
        depositor_name=command.depositor_name,
        now=work.now,
    )
    audit_log_id = work.audit(
        "deposit_announced",
        DEPOSIT_TRANSACTION,
        deposit_id,
        account,
        {"amount": command.amount, "depositor_name": command.depositor_name},
    )
    answer = DepositWritten(
        id=deposit_id,
        telegram_id=account.telegram_id,
        amount=command.amount,
        depositor_name=command.depositor_name,
        status=TransactionStatus.PENDING,
        created_at=spoken(work.now),
        confirmed_at=None,
        balance_before=account.balance,
        balance_after=account.balance,
        version=account.version,
        audit_log_id=audit_log_id,
    )
    return created(answer, f"/v1/deposits/{deposit_id}")


def _confirm(work: UnitOfWork, command: DepositConfirm, deposit_id: int) -> Answer:
    deposit, account = _find(work, deposit_id)
    check_confirmable(deposit_id, deposit.status, late=command.late is True)
    balance_after = balance_after_credit(account, deposit.amount)
    # After this point the posting must succeed.
    deposits.confirm(work.tx, deposit, account, balance_after=balance_after, now=work.now)
    audit_log_id = work.audit(
        "deposit_confirmed",
        DEPOSIT_TRANSACTION,
        deposit_id,
        account,
        {
            "amount": deposit.amount,
            "depositor_name": deposit.depositor_name,
            "matched_bank_notification_id": None,
            "balance_before": account.balance,
            "balance_after": balance_after,
            "version": account.version + 1,
            "late": deposit.status == TransactionStatus.EXPIRED,
            "note": given(command.note),
        },
    )
    return ok(
        _written(
            deposit,
            TransactionStatus.CONFIRMED,
            account,
            confirmed_at=spoken(work.now),
            balance_after=balance_after,
            version=account.version + 1,
            audit_log_id=audit_log_id,
        )
    )


def _cancel(work: UnitOfWork, command: DepositCancel, deposit_id: int) -> Answer:
    deposit, account = _find(work, deposit_id)
    check_cancellable(deposit_id, deposit.status)
    # After this point the change must succeed.
    deposits.cancel(work.tx, deposit)
    audit_log_id = work.audit(
        "deposit_cancelled",
        DEPOSIT_TRANSACTION,
        deposit_id,
        account,
        {"amount": deposit.amount, "depositor_name": deposit.depositor_name, "note": given(command.note)},
    )
    return ok(
        _written(
            deposit,
            TransactionStatus.CANCELLED,
            account,
            confirmed_at=None,
            balance_after=account.balance,
            version=account.version,
            audit_log_id=audit_log_id,
        )
    )


def _find(work: UnitOfWork, deposit_id: int) -> tuple[Deposit, Account]:
    """The deposit and its user's account. Raises DepositNotFound."""
    work.concerning(resource_id=deposit_id)
    deposit = deposits.find(work.tx, deposit_id)
    account = users.find_account(work.tx, deposit.telegram_id) if deposit else None
    if deposit is None or account is None:
        raise DepositNotFound(f"There is no deposit {deposit_id}.")
    work.concerning_account(account)
    return deposit, account


def _written(
    deposit: Deposit,
    status: TransactionStatus,
    account: Account,
    *,
    confirmed_at: str | None,
    balance_after: int,
    version: int,
    audit_log_id: int,
) -> DepositWritten:
    return DepositWritten(
        id=deposit.id,
        telegram_id=deposit.telegram_id,
        amount=deposit.amount,
        depositor_name=deposit.depositor_name,
        status=status,
        created_at=deposit.created_at,
        confirmed_at=confirmed_at,
        balance_before=account.balance,
        balance_after=balance_after,
        version=version,
        audit_log_id=audit_log_id,
    )


ANNOUNCE = Operation("deposit_announce", DEPOSIT_TRANSACTION, _announce)
"""Puts a pending deposit on record; makes the user on first use. Never refused."""
CONFIRM = Operation("deposit_confirm", DEPOSIT_TRANSACTION, _confirm)
"""Credits the deposit. Refused, in this order, as DepositNotFound, DepositExpired, DepositNotPending,
BalanceLimitExceeded."""
CANCEL = Operation("deposit_cancel", DEPOSIT_TRANSACTION, _cancel)
"""Closes a pending deposit. Refused, in this order, as DepositNotFound, DepositNotPending."""
