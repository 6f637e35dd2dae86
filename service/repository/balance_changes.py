"""Balance changes by services: a batch is one unit of work and one answer, audited change by change."""

from service.ledger.audit_logs import DEPOSIT_TRANSACTION, AuditEvent
from service.ledger.balance_changes import (
    BalanceChange,
    BalanceChangeResult,
    BalanceChangesPost,
    BalanceChangesWritten,
    at_place,
)
from service.ledger.errors import ReferenceUsed, Refusal, UserNotFound
from service.ledger.idempotency import Answer
from service.ledger.transactions import Direction, balance_after_credit, balance_after_debit
from service.ledger.users import Account
from service.repository.unit_of_work import Operation, UnitOfWork, ok
from service.repository.users import find_or_open


def _post(work: UnitOfWork, command: BalanceChangesPost, _target: int) -> Answer:
    plan = _Plan(work, command.changes)
    planned = [plan.outcome_of(change) for change in command.changes]
    refusals = [(place, outcome) for place, outcome in enumerate(planned) if isinstance(outcome, Refusal)]
    if refusals and command.atomic is not False:
        place, refusal = refusals[0]
        _concern(work, command.changes[place].telegram_id)
        raise at_place(refusal, place)
    # After this point what was planned must succeed.
    results = [
        _refuse(work, change, outcome) if isinstance(outcome, Refusal) else _apply(work, change, outcome)
        for change, outcome in zip(command.changes, planned, strict=True)
    ]
    return ok(BalanceChangesWritten(applied=len(results) - len(refusals), refused=len(refusals), results=results))


def _concern(work: UnitOfWork, telegram_id: str) -> None:
    """Remembers whose change is refused, before anything is written."""
    account = work.session.account(telegram_id)
    if account is None:
        work.concerning(telegram_id=telegram_id)
    else:
        work.concerning_account(account)


class _Plan:
    """The balances and references as they will be after the changes seen so far. Nothing is written."""

    def __init__(self, work: UnitOfWork, changes: list[BalanceChange]) -> None:
        session = work.session
        references = [change.reference for change in changes]
        self._used = session.transactions_of(actor=work.context.actor, references=references)
        session.read_accounts([change.telegram_id for change in changes])
        self._session = session
        self._planned: dict[str, Account] = {}
        self._references: set[str] = set()

    def outcome_of(self, change: BalanceChange) -> int | Refusal:
        """The balance after the change, which then counts for those that follow; or why it cannot be applied, in this
        order: ReferenceUsed, UserNotFound, BalanceLimitExceeded or InsufficientFunds."""
        try:
            return self._balance_after(change)
        except Refusal as refusal:
            return refusal

    def _balance_after(self, change: BalanceChange) -> int:
        reference, telegram_id, amount = change.reference, change.telegram_id, change.amount
        used = self._used.get(reference)
        if used is not None:
            raise ReferenceUsed(f"The reference names transaction {used} already.", transaction_id=used)
        if reference in self._references:
            raise ReferenceUsed("An earlier change of the same request has this reference.")
        account = self._planned.get(telegram_id) or self._session.account(telegram_id)
        if account is None:
            if amount < 0:
                raise UserNotFound(f"There is no user {telegram_id}.")
            account = Account(0, telegram_id, None, self._session.now, 0, 0)
        balance_after = balance_after_credit(account, amount) if amount > 0 else balance_after_debit(account, -amount)
        self._planned[telegram_id] = Account(
            account.user_id, telegram_id, account.username, account.created_at, balance_after, 0
        )
        self._references.add(reference)
        return balance_after


def _weigh(command: BalanceChangesPost) -> int:
    return len(command.changes)


def _apply(work: UnitOfWork, change: BalanceChange, balance_after: int) -> BalanceChangeResult:
    account = find_or_open(work, change.telegram_id)
    incoming = change.amount > 0
    amount, version = abs(change.amount), account.version + 1
    transaction_id = work.session.post(
        account,
        transaction_type="balance_change",
        direction=Direction.CREDIT if incoming else Direction.DEBIT,
        amount=amount,
        balance_after=balance_after,
        description=change.reason,
        reference=change.reference,
    )
    work.session.take_reference(actor=work.context.actor, reference=change.reference, transaction_id=transaction_id)
    audit_log_id = work.audit(
        "balance_credited" if incoming else "balance_debited",
        DEPOSIT_TRANSACTION,
        transaction_id,
        account,
        {
            "amount": amount,
            "reason": change.reason,
            "reference": change.reference,
            "balance_before": account.balance,
            "balance_after": balance_after,
            "version": version,
        },
    )
    return BalanceChangeResult(
        status="applied",
        reference=change.reference,
        audit_log_id=audit_log_id,
        transaction_id=transaction_id,
        balance_before=account.balance,
        balance_after=balance_after,
        version=version,
    )


def _refuse(work: UnitOfWork, change: BalanceChange, refusal: Refusal) -> BalanceChangeResult:
    account = work.session.account(change.telegram_id)
    audit_log_id = work.record(
        AuditEvent(
            action=f"{POST.name}_failed",
            resource_type=DEPOSIT_TRANSACTION,
            resource_id=None,
            user_id=account.user_id if account else None,
            telegram_id=change.telegram_id,
            details={
                "amount": change.amount,
                "reason": change.reason,
                "reference": change.reference,
                "code": refusal.code,
                **refusal.members,
            },
        )
    )
    return BalanceChangeResult(
        status="refused",
        reference=change.reference,
        audit_log_id=audit_log_id,
        code=refusal.code,
        detail=refusal.detail,
    )


POST = Operation("balance_change", DEPOSIT_TRANSACTION, _post, weigh=_weigh)
"""Applies the changes in order. Atomic, it is refused for the first change that cannot be applied: as ReferenceUsed,
UserNotFound, BalanceLimitExceeded or InsufficientFunds, with its index."""
