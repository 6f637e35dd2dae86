"""The queue of what a person has to settle; what a deposit says of it; and when deposits and holds expire."""

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from tests.contract.scenes import MILLISECOND, Scene
from tests.ledger_check import broken_invariants
from tests.some import some
from tests.stateful.served import served


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    path = tmp_path_factory.mktemp("queue") / "passbook.db"
    with served(path) as service:
        yield Scene(service)
    assert broken_invariants(path) == []


def _in_review(scene: Scene, deposit_id: int) -> bool:
    """As the deposit and the list say it, alike."""
    shown = scene.service.get(f"/v1/deposits/{deposit_id}").json()
    listed = scene.service.get(f"/v1/deposits?telegram_id={shown['telegram_id']}").json()["items"]
    assert shown in listed
    return bool(shown["in_review"])


@pytest.mark.parametrize(
    ("printed", "amount", "reviewed"),
    [("홍길", 5100, True), ("홍길동이", 5100, False), ("홍길", 5101, False), ("김철수", 5100, False)],
)
def test_an_announcement_says_that_a_line_waits_for_a_person(
    scene: Scene, printed: str, amount: int, reviewed: bool
) -> None:
    """In its answer, and afterwards; a line of another amount, of a longer name or of another one does not count."""
    name = f"{scene.number()}"
    line = scene.made("/v1/bank-notifications", scene.line_body(amount, f"{name}{printed}"))
    user = scene.user()
    body = {"telegram_id": user, "amount": 5100, "depositor_name": f"{name}홍길동"}
    made = scene.made("/v1/deposits", body)
    assert (made["status"], made["in_review"]) == ("pending", reviewed)
    assert _in_review(scene, made["id"]) is reviewed
    mine = [one["id"] for one in scene.service.get(f"/v1/bank-notifications?telegram_id={user}").json()["items"]]
    assert mine == ([line["id"]] if reviewed else [])


def test_a_line_that_comes_later_and_is_settled_begins_and_ends_the_review(scene: Scene) -> None:
    """Two users of one name are in review while their line waits; settled with one of them, with neither."""
    name = f"이{scene.number()}"
    one, other = (scene.deposit(scene.user(), 5200, name) for _ in range(2))
    assert not _in_review(scene, one)
    line = scene.made("/v1/bank-notifications", scene.line_body(5200, name))
    assert line["status"] == "ambiguous"
    assert _in_review(scene, one)
    assert _in_review(scene, other)
    scene.made(f"/v1/bank-notifications/{line['id']}/match", {"deposit_id": one})
    assert not _in_review(scene, one)
    assert not _in_review(scene, other)


def test_what_is_settled_is_in_no_review(scene: Scene) -> None:
    """A deposit that was cancelled waits for no money, though a line could mean it; one that expired does."""
    name = f"박{scene.number()}"
    cancelled, expired = scene.cancelled(scene.user(), 5300), scene.deposit(scene.user(), 5300, name)
    waits = scene.made("/v1/bank-notifications", scene.line_body(5300, name[:1]))
    assert waits["status"] == "unmatched"
    assert _in_review(scene, expired)
    scene.all_expires()
    assert scene.service.get(f"/v1/deposits/{expired}").json()["status"] == "expired"
    assert _in_review(scene, expired)
    assert not _in_review(scene, cancelled)


def test_expires_at_is_the_last_instant_at_which_a_sweep_leaves_it_open(scene: Scene) -> None:
    """Of deposits and of holds; what is closed says no time, and a replayed answer keeps what it said."""
    user = scene.user(50_000)
    body = {"telegram_id": user, "amount": 5400, "depositor_name": f"최{scene.number()}"}
    first = scene.post("/v1/deposits", body, key="expires-1")
    held = scene.purchase(user)
    for path, made, hours in (
        ("/v1/domain-purchases", held, 1),
        ("/v1/deposits", first.json(), 24),
    ):
        shown = f"{path}/{made['id']}"
        ends = datetime.fromisoformat(made["expires_at"])
        assert ends - datetime.fromisoformat(made["created_at"]) == timedelta(hours=hours)
        assert scene.service.get(shown).json()["expires_at"] == made["expires_at"]
        listed = scene.service.get(f"{path}?telegram_id={user}").json()["items"]
        assert [one["expires_at"] for one in listed if one["id"] == made["id"]] == [made["expires_at"]]
        scene.service.clock.now = ends
        scene.service.sweep()
        assert scene.service.get(shown).json()["status"] == "pending", "it expired before the time that was told"
        scene.service.clock.now = ends + MILLISECOND
        scene.service.sweep()
        closed = scene.service.get(shown).json()
        assert (closed["status"], closed["expires_at"]) == ("expired", None)
    assert scene.post("/v1/deposits", body, key="expires-1").body == first.body
    confirmed = scene.service.get(f"/v1/deposits/{scene.confirmed()}").json()
    assert (confirmed["expires_at"], confirmed["in_review"]) == (None, False)


def test_the_queue_is_told_from_the_oldest_on_and_goes_on_behind_its_cursor(scene: Scene) -> None:
    """What comes between two pages stands at the end, and what was settled is left out."""
    lines = [scene.line(5500) for _ in range(3)]
    first = scene.service.get("/v1/bank-notifications?open=true&amount=5500&limit=1").json()
    assert [one["id"] for one in first["items"]] == lines[:1]
    assert first["next_cursor"] == f"o{lines[0]}"
    late = scene.line(5500)
    deposit = scene.deposit(scene.user(), 5500)
    scene.made(f"/v1/bank-notifications/{lines[1]}/match", {"deposit_id": deposit})
    url = f"/v1/bank-notifications?open=true&amount=5500&cursor={first['next_cursor']}"
    rest = scene.service.get(url).json()
    assert [one["id"] for one in rest["items"]] == [lines[2], late]
    assert rest["next_cursor"] is None


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ("open=true&cursor=5", 400),
        ("cursor=o5", 400),
        ("open=false&cursor=o5", 400),
        ("open=yes", 400),
        ("open=true&open=true", 400),
        ("status=pending", 400),
        ("amount=0", 400),
        ("amount=1.5", 400),
        ("amount=1000000000001", 400),
        ("since=2026-02-30", 400),
        ("since=yesterday", 400),
        ("since=0000-01-01", 400),
        ("tz=Nowhere/Land", 400),
        ("telegram_id=-1", 400),
        ("cursor=o0&open=true", 400),
        ("since=2026-02-02&until=2026-02-01", 200),
        ("since=0001-01-01&until=9999-12-31", 200),
        ("since=0001-01-01&tz=Asia/Seoul", 200),
        ("until=9999-12-31T23:59:59.999999999-12:00", 400),
        ("open=true&status=matched", 200),
        ("open=true&cursor=o999999999999999", 200),
        ("cursor=1", 200),
        ("telegram_id=00000000000000000001", 200),
    ],
)
def test_odd_questions_have_an_answer(scene: Scene, asked: str, status: int) -> None:
    """A 400 for what is no question, and for the cursor of the other order; else a page, empty where nothing fits."""
    for path in some(["/v1/bank-notifications", "/v1/deposits"]):
        if path == "/v1/deposits" and ("open" in asked or asked == "status=pending"):
            continue
        answer = scene.service.get(f"{path}?{asked}")
        assert answer.status == status, (path, asked, answer)
        head = scene.service.ask("HEAD", f"{path}?{asked}")
        assert (head.status, head.body) == (status, b"")
        if asked.startswith(("since=2026-02-02", "open=true&status", "open=true&cursor=o9", "telegram_id=0")):
            assert answer.json() == {"items": [], "next_cursor": None}
