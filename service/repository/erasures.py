"""One user's personal data erased, from the command line, while the service runs or not.

The audit rows go first, a thousand in a commit; then all that is left, in one. Killed between, the user is still there
by its telegram id, and the erasure goes on when it is asked for again.
"""

from typing import TypedDict

import msgspec

from service.ledger.audit_logs import USER
from service.ledger.users import pseudonym
from service.repository.unit_of_work import audited
from service.storage import erasures, users
from service.storage.erasures import Erased, Standing
from service.storage.progress import Progress
from service.storage.sqlite import Connection, transaction

_ROWS_AT_ONCE = 1000


class Who(TypedDict):
    """The user, in both its names."""

    user_id: int
    telegram_id: str


def erase(
    connection: Connection, standing: Standing, *, telegram_id: str, actor: str, now: str, progress: Progress
) -> Erased:
    """Erases the user of `standing`, audited as `user_erased`. Raises EraseFailed."""
    who: Who = {"user_id": standing.user_id, "telegram_id": telegram_id}
    with transaction(connection) as tx:
        erasures.begin(tx, user_id=standing.user_id, actor=actor, now=now)
    before = erasures.last_answer(connection)
    found, last = erasures.find_audit_logs(connection, **who, after=0, progress=progress)
    for start in range(0, len(found), _ROWS_AT_ONCE):
        progress("erasing audit rows", start, len(found))
        with transaction(connection) as tx:
            erasures.erase_audit_logs(tx, found[start : start + _ROWS_AT_ONCE], user_id=standing.user_id)
    answers = erasures.find_answers(connection, **who, after=0, progress=progress)
    with audited(connection, actor=actor, now=now) as work:
        tx = work.tx
        # What came in meanwhile; from here on nobody else writes.
        late, _ = erasures.find_audit_logs(tx, **who, after=last, progress=progress)
        erasures.erase_audit_logs(tx, late, user_id=standing.user_id)
        more = erasures.find_answers(tx, **who, after=before, progress=progress)
        name = pseudonym(standing.user_id)
        erased = erasures.finish(tx, {*answers, *more}, **who, pseudonym=name, now=now)
        account = users.find_account(tx, name)
        begun_at, begun_by = erasures.find_beginning(work.tx, standing.user_id)
        told = {**msgspec.structs.asdict(erased), "begun_at": begun_at, "begun_by": begun_by}
        work.audit("user_erased", USER, standing.user_id, account, told)
    return erased
