"""An erasure beside a service that goes on to write about the very user."""

from pathlib import Path

import pytest

from service.api import problems
from service.ledger.deposits import DepositAnnounce
from service.ledger.errors import UserNotFound
from service.ledger.policy import Policy
from service.repository import deposits, users
from service.repository import erasures as door
from service.repository.session import Context, Session
from service.repository.unit_of_work import UnitOfWork
from service.repository.writer import run_batch
from service.storage import erasures
from tests.ledger_check import broken_invariants
from tests.repository.house import USER, make_database, writing
from tests.repository.test_session import NOW, work

NAME = "갑을병정무기"


@pytest.mark.parametrize("step", ["erasing audit rows", "looking through stored answers"])
def test_what_is_written_about_the_user_meanwhile_goes_too(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that is carried out between two steps of an erasure leaves neither a row nor an answer of the user."""
    monkeypatch.setattr(erasures, "_ANSWERS_AT_ONCE", 1)  # so that what comes meanwhile is behind what is looked at
    path = make_database(tmp_path / "passbook.db")
    with writing(path) as connection, writing(path) as service:

        def announce(key: str) -> None:
            command = DepositAnnounce(telegram_id=USER, amount=500, depositor_name=NAME)
            batch = [work(deposits.ANNOUNCE, command, key)]
            done = run_batch(service, batch, now=NOW, policy=Policy(), render_refusal=problems.render_refusal)
            assert getattr(done.outcomes[0], "status", None) == 201, done.outcomes

        reached: list[str] = []

        def meanwhile(name: str, _done: int, _total: int) -> None:
            if name == step and not reached:
                reached.append(name)
                announce("meanwhile")

        announce("before")
        standing = erasures.find_standing(connection, USER)
        assert standing is not None
        door.erase(connection, standing, telegram_id=USER, actor="cli:test", now=NOW, progress=meanwhile)
        assert reached == [step]
        left = connection.execute(
            "SELECT action, telegram_id, details FROM audit_logs WHERE telegram_id = ?1 OR instr(details, ?1)"
            " OR instr(details, ?2)",
            (USER, NAME),
        ).fetchall()
        assert left == [], "audit rows still tell of the user"
        answers = connection.execute(
            "SELECT idempotency_key FROM idempotency_answers WHERE instr(request, ?1) OR instr(body, ?1)", (NAME,)
        ).fetchall()
        assert answers == [], "stored answers still tell of the user"
    assert broken_invariants(path) == []


def test_no_user_with_a_zero_in_front_is_made_below_the_edge(tmp_path: Path) -> None:
    """The edge saw a user who was erased since: the request is refused, and no new user gets such an id."""
    path = make_database(tmp_path / "passbook.db")
    with writing(path) as connection:
        unit = UnitOfWork(
            Session(connection, now=NOW, policy=Policy()),
            Context(actor="test", request_id=None, ip_address=None, user_agent=None),
        )
        for username in (None, "named"):
            with pytest.raises(UserNotFound, match="There is no user 0123"):
                users.open_account(unit, "0123", username)
        assert connection.execute("SELECT COUNT(*) FROM users").fetchone() == (0,)
