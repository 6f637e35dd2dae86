"""Which telegram ids a new user may have: Telegram's begin with no 0. Users that were taken over with one stay.

Only the database knows who is new; so a request that would make a user looks, where its id begins with 0, and nowhere
else. Below, `repository/users.open_account` makes no such user either, should one have been erased in between.
"""

from collections.abc import Iterable

from service.api.problems import invalid
from service.api.request import ApiRequest, was_answered
from service.ledger.fields import is_padded
from service.storage import users


def check_none_is_padded(request: ApiRequest, idempotency_key: str, named: Iterable[tuple[str, str]]) -> None:
    """Returns when no user of `named`, (pointer, telegram_id), would be made with a 0 at its beginning.

    A request that has its answer already passes. Raises EdgeError (invalid_request) for the first one.
    """
    padded = [(pointer, telegram_id) for pointer, telegram_id in named if is_padded(telegram_id)]
    if not padded:
        return
    known = users.find_accounts(request.passbook.lookups, [telegram_id for _, telegram_id in padded])
    for pointer, telegram_id in padded:
        if telegram_id not in known and not was_answered(request, idempotency_key):
            raise invalid(pointer, f"must not begin with 0: there is no user {telegram_id}, and no new one may do so")
