"""Domain purchases: taken up and paid, registered, or released and paid back."""

from service.ledger.audit_logs import USER_DOMAINS
from service.ledger.domain_purchases import (
    DomainPurchase,
    DomainPurchaseComplete,
    DomainPurchaseMake,
    DomainPurchaseRelease,
    DomainPurchaseStatus,
    DomainPurchaseWritten,
    as_it_stands,
    check_paid,
    check_pending,
    parse_name,
)
from service.ledger.errors import DomainPurchaseNotFound, DomainTaken, UserNotFound
from service.ledger.fields import given
from service.ledger.idempotency import Answer
from service.ledger.transactions import Direction, balance_after_credit, balance_after_debit
from service.ledger.users import Account
from service.repository.unit_of_work import Operation, UnitOfWork, created, ok
from service.storage import domain_purchases, transactions, users


def _make(work: UnitOfWork, command: DomainPurchaseMake, _target: int) -> Answer:
    name = parse_name(command.domain)  # the edge has refused what is no name
    work.concerning(telegram_id=command.telegram_id)
    account = users.find_account(work.tx, command.telegram_id)
    if account is None:
        raise UserNotFound(f"There is no user {command.telegram_id}.")
    work.concerning_account(account)
    live = domain_purchases.find_live(work.tx, name)
    if live is not None:
        raise DomainTaken(f"{name.readable} has a live purchase already.", current_status=live.status)
    balance_after = balance_after_debit(account, command.price)
    # After this point the posting must succeed.
    registered = command.hold is not True
    transaction_id = transactions.insert_confirmed(
        work.tx,
        account,
        transaction_type="domain_purchase",
        direction=Direction.DEBIT,
        amount=command.price,
        balance_after=balance_after,
        description=name.readable,
        reference=None,
        now=work.now,
    )
    purchase_id = domain_purchases.insert(
        work.tx,
        user_id=account.user_id,
        name=name,
        price=command.price,
        transaction_id=transaction_id,
        registered=registered,
        now=work.now,
    )
    audit_log_id = work.audit(
        "domain_registered" if registered else "domain_held",
        USER_DOMAINS,
        purchase_id,
        account,
        {
            "domain": name.readable,
            "price": command.price,
            "balance_before": account.balance,
            "balance_after": balance_after,
            "version": account.version + 1,
            "transaction_id": transaction_id,
        },
    )
    made = domain_purchases.find(work.tx, purchase_id)
    purchase = as_it_stands(made, expiry_s=work.policy.hold_expiry_s) if made else None
    answer = _written(purchase, account, balance_after, account.version + 1, audit_log_id)
    return created(answer, f"/v1/domain-purchases/{purchase_id}")


def _complete(work: UnitOfWork, command: DomainPurchaseComplete, purchase_id: int) -> Answer:
    purchase, account = _find_held(work, purchase_id)
    paid = check_paid(purchase, transactions.find_last_of_chain(work.tx, purchase.transaction_id or 0))
    # After this point the change must succeed.
    domain_purchases.settle(work.tx, purchase, DomainPurchaseStatus.REGISTERED, now=work.now)
    audit_log_id = work.audit(
        "domain_registered",
        USER_DOMAINS,
        purchase_id,
        account,
        {
            "domain": purchase.domain,
            "price": purchase.price,
            "balance_before": paid.balance_before,
            "balance_after": paid.balance_after,
            "note": given(command.note),
        },
    )
    settled = domain_purchases.find(work.tx, purchase_id)
    return ok(_written(settled, account, account.balance, account.version, audit_log_id))


def _release(work: UnitOfWork, command: DomainPurchaseRelease, purchase_id: int) -> Answer:
    purchase, account = _find_held(work, purchase_id)
    return ok(give_back(work, purchase, account, DomainPurchaseStatus.RELEASED, note=given(command.note)))


def give_back(
    work: UnitOfWork, purchase: DomainPurchase, account: Account, status: DomainPurchaseStatus, *, note: str | None
) -> DomainPurchaseWritten:
    """Settles a held purchase as released or expired and pays its price back.

    No money moves when the payment was reversed before, which only an earlier Passbook did. Raises
    BalanceLimitExceeded.
    """
    paid = transactions.find_last_of_chain(work.tx, purchase.transaction_id or 0)
    balance_after, version, refund_id = account.balance, account.version, None
    if paid is not None and paid.direction == Direction.DEBIT:
        balance_after, version = balance_after_credit(account, paid.amount), account.version + 1
        refund_id = transactions.insert_confirmed(
            work.tx,
            account,
            transaction_type="domain_refund",
            direction=Direction.CREDIT,
            amount=paid.amount,
            balance_after=balance_after,
            description=purchase.domain,
            reference=None,
            now=work.now,
            reverses_id=paid.id,
        )
    domain_purchases.settle(work.tx, purchase, status, now=work.now)
    audit_log_id = work.audit(
        f"domain_{status}",
        USER_DOMAINS,
        purchase.id,
        account,
        {
            "domain": purchase.domain,
            "price": purchase.price,
            "balance_before": account.balance,
            "balance_after": balance_after,
            "version": version,
            "transaction_id": refund_id,
            "note": note,
        },
    )
    settled = domain_purchases.find(work.tx, purchase.id)
    return _written(settled, account, balance_after, version, audit_log_id)


def _find_held(work: UnitOfWork, purchase_id: int) -> tuple[DomainPurchase, Account]:
    """The held purchase and its user's account. Raises DomainPurchaseNotFound, DomainPurchaseNotPending."""
    work.concerning(resource_id=purchase_id)
    purchase = domain_purchases.find(work.tx, purchase_id)
    account = users.find_account(work.tx, purchase.telegram_id) if purchase else None
    if purchase is None or account is None:
        raise DomainPurchaseNotFound(f"There is no domain purchase {purchase_id}.")
    work.concerning_account(account)
    check_pending(purchase)
    return purchase, account


def _written(
    purchase: DomainPurchase | None, account: Account, balance_after: int, version: int, audit_log_id: int
) -> DomainPurchaseWritten:
    assert purchase is not None  # written in this unit of work
    return DomainPurchaseWritten(
        id=purchase.id,
        telegram_id=purchase.telegram_id,
        domain=purchase.domain,
        ascii_name=purchase.ascii_name,
        price=purchase.price,
        status=purchase.status,
        transaction_id=purchase.transaction_id,
        created_at=purchase.created_at,
        registered_at=purchase.registered_at,
        payment_reversed=purchase.payment_reversed,
        expires_at=purchase.expires_at,
        balance_before=account.balance,
        balance_after=balance_after,
        version=version,
        audit_log_id=audit_log_id,
    )


MAKE = Operation("domain_purchase", USER_DOMAINS, _make)
"""Takes the price, and the name. Refused, in this order, as UserNotFound, DomainTaken, InsufficientFunds."""
COMPLETE = Operation("domain_complete", USER_DOMAINS, _complete)
"""Registers a held name. Refused, in this order, as DomainPurchaseNotFound, DomainPurchaseNotPending,
PaymentReversed."""
RELEASE = Operation("domain_release", USER_DOMAINS, _release)
"""Gives a held name up. Refused, in this order, as DomainPurchaseNotFound, DomainPurchaseNotPending,
BalanceLimitExceeded."""
