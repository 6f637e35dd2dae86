"""Expiry: what has waited too long is closed, and the money of a held domain name goes back.

Each row is looked at again within the unit of work: one that was confirmed, completed, cancelled or released since it
was listed is left as it is. So of a request and an expiry that meet, the one that comes first wins.
"""

from service.ledger.audit_logs import DEPOSIT_TRANSACTION, USER_DOMAINS
from service.ledger.domain_purchases import DomainPurchaseStatus
from service.ledger.errors import BalanceLimitExceeded
from service.ledger.expiry import Expire, Expired
from service.ledger.idempotency import Answer
from service.repository.domain_purchases import give_back
from service.repository.unit_of_work import Operation, UnitOfWork, ok
from service.storage import deposits, domain_purchases, users


def _expire_deposits(work: UnitOfWork, command: Expire, _target: int) -> Answer:
    expired = [deposit_id for deposit_id in command.ids if _expire_deposit(work, command, deposit_id)]
    return ok(Expired(expired=expired, refused=[]))


def _expire_deposit(work: UnitOfWork, command: Expire, deposit_id: int) -> bool:
    """Whether the deposit was due, and is now expired."""
    deposit = deposits.find_due(work.tx, deposit_id, created_before=command.created_before)
    account = users.find_account(work.tx, deposit.telegram_id) if deposit else None
    if deposit is None or account is None:
        return False
    deposits.expire(work.tx, deposit)
    work.audit(
        "deposit_expired",
        DEPOSIT_TRANSACTION,
        deposit_id,
        account,
        {
            "amount": deposit.amount,
            "depositor_name": deposit.depositor_name,
            "announced_at": deposit.created_at,
        },
    )
    return True


def _expire_purchases(work: UnitOfWork, command: Expire, _target: int) -> Answer:
    expired, refused = [], []
    for purchase_id in command.ids:
        try:
            if _expire_purchase(work, command, purchase_id):
                expired.append(purchase_id)
        except BalanceLimitExceeded:  # raised before the first write of this purchase; the others go on
            refused.append(purchase_id)
    return ok(Expired(expired=expired, refused=refused))


def _expire_purchase(work: UnitOfWork, command: Expire, purchase_id: int) -> bool:
    """Whether the purchase was due, and is now expired. Raises BalanceLimitExceeded."""
    purchase = domain_purchases.find_due(work.tx, purchase_id, created_before=command.created_before)
    account = users.find_account(work.tx, purchase.telegram_id) if purchase else None
    if purchase is None or account is None:
        return False
    give_back(work, purchase, account, DomainPurchaseStatus.EXPIRED, note=None)
    return True


def _weigh(command: Expire) -> int:
    return len(command.ids)


DEPOSITS = Operation("deposit_expire", DEPOSIT_TRANSACTION, _expire_deposits, weigh=_weigh)
"""Closes pending deposits. Never refused; what is not due is left as it is."""
PURCHASES = Operation("domain_expire", USER_DOMAINS, _expire_purchases, weigh=_weigh)
"""Frees held names and pays back. Never refused as a whole; what is not due, or would exceed the balance limit, is left
as it is."""
