"""Debits."""

from service.ledger.audit_logs import DEPOSIT_TRANSACTION
from service.ledger.debits import DebitPost, DebitWritten
from service.ledger.errors import UserNotFound
from service.ledger.fields import given
from service.ledger.idempotency import Answer
from service.ledger.timestamps import spoken
from service.ledger.transactions import Direction, TransactionStatus, balance_after_debit
from service.repository.unit_of_work import Operation, UnitOfWork, created

_TYPE = "debit"


def _post(work: UnitOfWork, command: DebitPost, _target: int) -> Answer:
    work.concerning(telegram_id=command.telegram_id)
    account = work.session.account(command.telegram_id)
    if account is None:
        raise UserNotFound(f"There is no user {command.telegram_id}.")
    work.concerning_account(account)
    balance_after = balance_after_debit(account, command.amount)
    # After this point the posting must succeed.
    reference = given(command.reference)
    transaction_id = work.session.post(
        account,
        transaction_type=_TYPE,
        direction=Direction.DEBIT,
        amount=command.amount,
        balance_after=balance_after,
        description=command.reason,
        reference=reference,
    )
    audit_log_id = work.audit(
        "balance_debited",
        DEPOSIT_TRANSACTION,
        transaction_id,
        account,
        {
            "amount": command.amount,
            "reason": command.reason,
            "reference": reference,
            "balance_before": account.balance,
            "balance_after": balance_after,
            "version": account.version + 1,
        },
    )
    now = spoken(work.now)
    answer = DebitWritten(
        id=transaction_id,
        telegram_id=account.telegram_id,
        type=_TYPE,
        direction=Direction.DEBIT,
        amount=command.amount,
        reason=command.reason,
        reference=reference,
        status=TransactionStatus.CONFIRMED,
        created_at=now,
        confirmed_at=now,
        balance_before=account.balance,
        balance_after=balance_after,
        version=account.version + 1,
        audit_log_id=audit_log_id,
    )
    return created(answer, f"/v1/transactions/{transaction_id}")


POST = Operation("debit", DEPOSIT_TRANSACTION, _post)
"""Takes money from a balance. Refused, in this order, as UserNotFound, InsufficientFunds."""
