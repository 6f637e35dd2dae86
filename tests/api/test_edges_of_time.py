"""Every moment and every age that a read takes, a millisecond before its edge, on it, and a millisecond behind it.

The clock is the test's, so that an edge is met exactly.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from tests.contract.scenes import MILLISECOND, Scene
from tests.ledger_check import broken_invariants
from tests.stateful.served import served

EDGE = [-1, 0, 1]
"""Milliseconds behind the edge."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A service that the tests of the file share, at odd milliseconds."""
    path = tmp_path_factory.mktemp("edges") / "passbook.db"
    with served(path) as service:
        service.clock.now += timedelta(milliseconds=123)
        yield Scene(service)
    assert broken_invariants(path) == []


def spoken(moment: datetime) -> str:
    """As a query has it."""
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


@pytest.mark.parametrize("behind", EDGE)
@pytest.mark.parametrize(("window", "length"), [("PT1H", timedelta(hours=1)), ("P1D", timedelta(days=1))])
def test_what_is_suspicious_is_so_for_less_than_the_window(
    scene: Scene, window: str, length: timedelta, behind: int
) -> None:
    """An attempt that is exactly as old as the window counts no more; one a millisecond younger does."""
    clock, user = scene.service.clock, scene.user()
    for _ in range(2):
        assert scene.post("/v1/debits", {"telegram_id": user, "amount": 1, "reason": "x"}).status == 409
    clock.now += length + behind * MILLISECOND
    found = scene.service.get(f"/v1/audit-logs/suspicious?window={window}&threshold=1").json()["items"]
    assert [one["attempts"] for one in found if one["telegram_id"] == user] == ([2] if behind < 0 else [])


@pytest.mark.parametrize("behind", EDGE)
def test_a_transaction_counts_from_its_very_millisecond_on(scene: Scene, behind: int) -> None:
    """Explained at the moment of its confirmation it is a cause, a millisecond before it is none."""
    clock, user = scene.service.clock, scene.user()
    scene.change(user, 500)
    clock.now += timedelta(seconds=1)
    moment = clock.now
    scene.change(user, 70)
    clock.now += timedelta(seconds=1)
    at = spoken(moment + behind * MILLISECOND)
    told = scene.service.get(f"/v1/users/{user}/balance/explain?at={at}").json()
    causes = [70, 500] if behind >= 0 else [500]
    assert (told["balance"], [one["effect"] for one in told["items"]]) == (sum(causes), causes)
    assert (told["at"], told["proved"]) == (at, True)


@pytest.mark.parametrize("behind", EDGE)
def test_a_moment_that_is_now_or_to_come_is_the_account_as_it_stands(scene: Scene, behind: int) -> None:
    """Also where the clock was set back behind the last transaction. Of a moment before now the times decide."""
    clock, user = scene.service.clock, scene.user()
    scene.change(user, 500)
    clock.now -= timedelta(seconds=1)
    told = scene.service.get(f"/v1/users/{user}/balance/explain?at={spoken(clock.now + behind * MILLISECOND)}").json()
    clock.now += timedelta(seconds=2)
    assert told["balance"] == (500 if behind >= 0 else 0)


@pytest.mark.parametrize("behind", EDGE)
def test_a_proof_is_taken_again_when_it_is_older_than_asked_for(scene: Scene, behind: int) -> None:
    """One that is exactly as old as `max_age` is young enough; after the clock was set back none is."""
    clock = scene.service.clock
    clock.now += timedelta(days=1)
    first = scene.service.get("/v1/integrity?max_age=PT0S").json()
    assert first["status"] == "sound"
    scene.user()  # a new proof would count more rows
    assert scene.service.get("/v1/integrity?max_age=PT0S").json() == first, "it was taken again at its very instant"
    clock.now += timedelta(minutes=5) + behind * MILLISECOND
    again = scene.service.get("/v1/integrity?max_age=PT5M").json()
    assert (again == first) == (behind <= 0), f"wrong {behind} ms behind its age"
    clock.now = datetime.fromisoformat(again["finished_at"]) - MILLISECOND
    assert scene.service.get("/v1/integrity?max_age=PT5M").json() != again
    clock.now += timedelta(minutes=10)
