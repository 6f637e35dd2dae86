"""Transactions of any type: taken back by another one, never changed."""

from service.ledger.audit_logs import DEPOSIT_TRANSACTION
from service.ledger.domain_purchases import check_money_may_move
from service.ledger.errors import TransactionNotFound
from service.ledger.fields import given
from service.ledger.idempotency import Answer
from service.ledger.timestamps import spoken
from service.ledger.transactions import (
    Direction,
    ReversalWritten,
    TransactionReverse,
    TransactionStatus,
    balance_after_credit,
    balance_after_debit,
    check_reversible,
)
from service.repository.bank_settling import free_line
from service.repository.unit_of_work import Operation, UnitOfWork, created
from service.storage import domain_purchases, transactions, users

_TYPE = "reversal"


def _reverse(work: UnitOfWork, command: TransactionReverse, transaction_id: int) -> Answer:
    work.concerning(resource_id=transaction_id)
    transaction = transactions.find(work.tx, transaction_id)
    account = users.find_account(work.tx, transaction.telegram_id) if transaction else None
    if transaction is None or account is None:
        raise TransactionNotFound(f"There is no transaction {transaction_id}.")
    work.concerning_account(account)
    check_reversible(transaction)
    purchase = domain_purchases.find_paid_with(work.tx, account.user_id, transaction_id)
    if purchase is not None:
        check_money_may_move(purchase, transaction, goodwill=command.goodwill is True)
    back_in = transaction.direction == Direction.DEBIT
    direction = Direction.CREDIT if back_in else Direction.DEBIT
    balance_after = (balance_after_credit if back_in else balance_after_debit)(account, transaction.amount)
    # After this point the posting must succeed.
    reversal_id = transactions.insert_confirmed(
        work.tx,
        account,
        transaction_type=_TYPE,
        direction=direction,
        amount=transaction.amount,
        balance_after=balance_after,
        description=given(command.note),
        reference=None,
        now=work.now,
        reverses_id=transaction_id,
    )
    audit_log_id = work.audit(
        "transaction_reversed",
        DEPOSIT_TRANSACTION,
        reversal_id,
        account,
        {
            "reverses_id": transaction_id,
            "amount": transaction.amount,
            "direction": direction,
            "balance_before": account.balance,
            "balance_after": balance_after,
            "version": account.version + 1,
            "note": given(command.note),
            **({"goodwill": True} if command.goodwill is True else {}),
        },
    )
    freed = None if back_in else free_line(work, transactions.find_first_of_chain(work.tx, transaction_id), account)
    now = spoken(work.now)
    answer = ReversalWritten(
        id=reversal_id,
        telegram_id=account.telegram_id,
        type=_TYPE,
        direction=direction,
        amount=transaction.amount,
        status=TransactionStatus.CONFIRMED,
        created_at=now,
        confirmed_at=now,
        reverses_id=transaction_id,
        balance_before=account.balance,
        balance_after=balance_after,
        version=account.version + 1,
        audit_log_id=audit_log_id,
        freed_bank_notification_id=freed,
    )
    return created(answer, f"/v1/transactions/{reversal_id}")


REVERSE = Operation("transaction_reverse", DEPOSIT_TRANSACTION, _reverse)
"""Moves the same money the other way, once; the bank notification of a deposit is free again. Refused, in this order,
as TransactionNotFound, TransactionReversed, TransactionNotConfirmed, then of a debit PaymentHeld, PaymentRegistered,
BalanceLimitExceeded, of a credit RefundFinal, InsufficientFunds."""
