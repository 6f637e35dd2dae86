"""Bank notifications over real HTTP: what the bank received credits once, and only what it surely is for."""

import itertools
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.ledger_check import broken_invariants
from tests.live import Client, LiveService, passbook
from tests.printed import stands
from tests.some import some

amounts = itertools.count(990_000, 10)
"""For tests that run several times on one service: whose neighbours are free to be proposed."""


@pytest.fixture
def client(service: LiveService) -> Client:
    return service.client()


def now(days: float = 0) -> str:
    return (datetime.now(UTC) + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")


def notify(client: Client, bank_id: str, name: str, amount: int, **more: Any) -> httpx.Response:
    body = {"bank_transaction_id": bank_id, "depositor_name": name, "amount": amount, "occurred_at": now(), **more}
    return client.write("/v1/bank-notifications", body)


def announce(client: Client, telegram_id: str, name: str, amount: int) -> dict[str, Any]:
    body = {"telegram_id": telegram_id, "amount": amount, "depositor_name": name}
    answer: dict[str, Any] = client.write("/v1/deposits", body).json()
    return answer


def deposit(client: Client, deposit_id: int) -> dict[str, Any]:
    answer: dict[str, Any] = client.get(f"/v1/deposits/{deposit_id}").json()
    return answer


def balance(client: Client, telegram_id: str) -> int:
    return int(client.get(f"/v1/users/{telegram_id}/balance").json()["balance"])


def logged(client: Client, **wanted: str | int) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = client.get("/v1/audit-logs", params=wanted).json()["items"]
    return items


def test_the_only_deposit_that_fits_is_confirmed_with_its_notification(client: Client) -> None:
    """One unit of work: both rows name each other, the money is there, and the confirmation names the notification."""
    announced = announce(client, "7001", "홍 길동", 5001)
    assert (announced["status"], announced["collision"]) == ("pending", None)
    answer = notify(client, "only-1", "홍길동", 5001, bank_name="국민은행", raw_message="[Web]\n홍길동 5,001원\n")
    assert answer.status_code == 201
    written = answer.json()
    assert answer.headers["Location"] == f"/v1/bank-notifications/{written['id']}"
    assert written["status"] == "matched"
    assert (written["matched_deposit_id"], written["match_method"]) == (announced["id"], "automatic")
    assert (written["telegram_id"], written["balance_before"], written["balance_after"]) == ("7001", 0, 5001)
    assert (written["version"], written["candidates"], written["matched_by"]) == (1, [], "first-admin")
    confirmed = deposit(client, announced["id"])
    assert (confirmed["status"], confirmed["matched_bank_notification_id"]) == ("confirmed", written["id"])
    confirmation, announcement = logged(client, telegram_id="7001", resource_type="deposit_transaction")
    assert (confirmation["action"], announcement["action"]) == ("deposit_confirmed", "deposit_announced")
    assert confirmation["details"]["matched_bank_notification_id"] == written["id"]
    (received,) = logged(client, resource_type="bank_notification", resource_id=written["id"])
    assert (received["action"], received["id"]) == ("bank_notification_received", written["audit_log_id"])
    assert received["details"]["status"] == "matched"
    read = client.get(f"/v1/bank-notifications/{written['id']}").json()
    assert read == {name: written[name] for name in read}
    assert (read["bank_name"], read["raw_message"]) == ("국민은행", "[Web]\n홍길동 5,001원\n")


def test_a_bank_transaction_credits_once_whatever_the_key(client: Client) -> None:
    """Sent again under another key it answers 200 with what stands and changes nothing, not even the log."""
    announce(client, "7002", "김하나", 5002)
    announce(client, "7002", "김하나", 5003)
    first = notify(client, "once-1", "김하나", 5002, occurred_at="2026-01-19T12:00:00.5Z").json()
    assert first["status"] == "unmatched"  # the announcement is months from then
    moment = now()
    first = notify(client, "once-2", "김하나", 5002, occurred_at=moment).json()
    rows = len(logged(client, limit=1000))
    again = notify(client, "once-2", "김하나", 5002, occurred_at=moment)
    assert again.status_code == 200
    assert again.json() == {**first, "balance_before": 5002, "audit_log_id": None, "repeat": True}
    spelled = notify(client, "once-2", "김하나\u3000", 5002, occurred_at=moment)
    assert spelled.json() == again.json()
    assert (balance(client, "7002"), len(logged(client, limit=1000))) == (5002, rows)


def test_a_bank_transaction_told_otherwise_is_refused_by_field(client: Client) -> None:
    """The same id with another name, amount or time is another transfer: 409 names what differs, and it is audited."""
    first = notify(client, "otherwise-1", "김둘", 5004, occurred_at="2026-01-19T12:00:00Z").json()
    refused = notify(client, "otherwise-1", "김둘째", 5005, occurred_at="2026-01-19T21:00:00+09:00")
    problem = refused.json()
    assert (refused.status_code, problem["code"]) == (409, "bank_transaction_reused")
    assert problem["differing_fields"] == ["depositor_name", "amount"]
    assert problem["bank_notification_id"] == first["id"]
    (failed,) = logged(client, action="bank_notification_receive_failed", resource_id=first["id"])
    assert failed["details"]["bank_transaction_id"] == "otherwise-1"


def test_two_deposits_that_fit_are_not_guessed_between(client: Client) -> None:
    """Ambiguous, with both listed; nobody is credited until a person settles it, and then it says who did."""
    first = announce(client, "7003", "박하나", 6000)
    second = announce(client, "7004", "박 하나", 6000)
    written = notify(client, "two-1", "박하나", 6000).json()
    assert (written["status"], written["telegram_id"], written["balance_after"]) == ("ambiguous", None, None)
    assert [c["deposit_id"] for c in written["candidates"]] == [first["id"], second["id"]]
    assert {c["likeness"] for c in written["candidates"]} == {"same_name"}
    assert (balance(client, "7003"), balance(client, "7004")) == (0, 0)
    assert written["id"] in [n["id"] for n in client.get("/v1/bank-notifications?status=ambiguous").json()["items"]]
    settled = client.write(
        f"/v1/bank-notifications/{written['id']}/match", {"deposit_id": second["id"], "note": "asked by phone"}
    ).json()
    assert (settled["status"], settled["match_method"], settled["matched_by"]) == ("matched", "manual", "first-admin")
    assert (settled["telegram_id"], settled["balance_before"], settled["balance_after"]) == ("7004", 0, 6000)
    assert (balance(client, "7003"), balance(client, "7004")) == (0, 6000)
    (matched,) = logged(client, action="bank_notification_matched", resource_id=written["id"])
    assert matched["details"] == {
        "matched_deposit_id": second["id"],
        "method": "manual",
        "amount": 6000,
        "depositor_name": "박하나",
        "announced_name": "박 하나",
        "credited": True,
        "note": "asked by phone",
    }
    assert written["id"] not in [n["id"] for n in client.get("/v1/bank-notifications?status=ambiguous").json()["items"]]


def test_a_notification_that_comes_first_waits_and_is_found(client: Client) -> None:
    """The announcement itself answers confirmed, with the money, and three rows say what happened."""
    waiting = notify(client, "first-1", "이 하나", 6100).json()
    assert (waiting["status"], waiting["candidates"]) == ("unmatched", [])
    announced = announce(client, "7005", "이하나", 6100)
    assert (announced["status"], announced["matched_bank_notification_id"]) == ("confirmed", waiting["id"])
    assert (announced["balance_before"], announced["balance_after"], announced["version"]) == (0, 6100, 1)
    assert announced["collision"] is None
    found = client.get(f"/v1/bank-notifications/{waiting['id']}").json()
    assert (found["status"], found["match_method"], found["matched_deposit_id"]) == (
        "matched",
        "automatic",
        announced["id"],
    )
    actions = [row["action"] for row in logged(client, telegram_id="7005")]
    assert actions == ["bank_notification_matched", "deposit_confirmed", "deposit_announced", "user_created"]
    assert announce(client, "7005", "이하나", 6100)["status"] == "pending"


@pytest.mark.parametrize(
    ("announcements", "printed_name"),
    [
        ([("7101", "홍길동5678"), ("7102", "홍길동")], "홍길동"),
        ([("9101", "주식회사가나다"), ("9102", "주식회사가나다라마바")], "주식회사가나다"),
        ([("9103", "주식회사가나다라"), ("9104", "주식회사가나다마")], "주식회사가나다"),
        ([("9105", "김철수"), ("9106", "김철")], "김철"),
        ([("9107", "김 철수"), ("9108", "김철산")], "김철"),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_money_that_two_users_could_mean_is_nobodys(
    client: Client, announcements: list[tuple[str, str]], printed_name: str, turned: bool
) -> None:
    """The bank may have cut the name: whoever announced first, the second is warned, and the line waits with both."""
    amount = next(amounts)
    pairs = announcements[::-1] if turned else announcements
    first, second = (announce(client, user, name, amount) for user, name in pairs)
    collides = printed_name != "김철" or "김철" in [name for _, name in pairs]
    assert (first["collision"], second["collision"] is not None) == (None, collides)
    line = notify(client, f"two-users-{amount}", printed_name, amount).json()
    assert (line["status"], line["telegram_id"]) == ("ambiguous", None)
    assert {c["deposit_id"] for c in line["candidates"]} == {first["id"], second["id"]}
    assert [deposit(client, one["id"])["status"] for one in (first, second)] == ["pending", "pending"]


def test_a_line_that_came_first_means_the_same_as_one_that_comes_last(client: Client) -> None:
    """7101's deposit could be meant when 7102 announces: the announcement is warned and waits for a person."""
    announce(client, "7101", "홍길동5678", 9801)
    line = notify(client, "same-1", "홍길동", 9801).json()
    assert (line["status"], len(line["candidates"])) == ("unmatched", 1)
    second = announce(client, "7102", "홍길동", 9801)
    assert (second["status"], second["collision"]["suggested_amount"]) == ("pending", 9802)
    assert len(client.get(f"/v1/bank-notifications/{line['id']}").json()["candidates"]) == 2


def test_a_printed_name_is_never_longer_than_the_name(client: Client) -> None:
    """김철 is no rival where 김철수 is printed, whatever came first; it is warned of for its own sake."""
    for order, amount in enumerate((9811, 9821)):
        shorter = announce(client, "7103", "김철", amount)
        if order:
            line = notify(client, f"longer-{order}", "김철수", amount).json()
            assert [c["deposit_id"] for c in line["candidates"]] == [shorter["id"]]
        longer = announce(client, "7104", "김철수", amount)
        if not order:
            assert longer["collision"] is not None
            notify(client, f"longer-{order}", "김철수", amount)
        assert [deposit(client, one["id"])["status"] for one in (shorter, longer)] == ["pending", "confirmed"]


@pytest.mark.parametrize("line_first", [False, True])
def test_a_name_that_the_banks_field_cut_confirms_the_one_that_it_begins(client: Client, line_first: bool) -> None:
    """Seven Hangul, or six and a space: full. With a letter less nothing was cut, and the deposit is a candidate."""
    for place, (name, printed_name, confirmed) in enumerate(
        [
            ("주식회사코딩하는사람들", "주식회사코딩하", True),
            ("주식회사 코딩하는사람들", "주식회사 코딩", True),
            ("주식회사코딩하는사람들", "주식회사코딩", False),
            ("Michael Kim", "Michael", False),
            ("Christopher Nam-Il", "CHRISTOPHER NA", True),
        ]
    ):
        amount = 9831 + 10 * place + line_first
        steps = [lambda n=name, a=amount: announce(client, "7105", n, a)]
        steps.append(lambda p=printed_name, a=amount: notify(client, f"full-{a}", p, a).json())
        made = [step() for step in (reversed(steps) if line_first else steps)]
        announced, line = made[::-1] if line_first else made
        found = client.get(f"/v1/bank-notifications/{line['id']}").json()
        assert (found["status"] == "matched", found["matched_deposit_id"] == announced["id"]) == (confirmed, confirmed)
        assert deposit(client, announced["id"])["status"] == ("confirmed" if confirmed else "pending")
        assert [c["likeness"] for c in found["candidates"]] == ([] if confirmed else ["truncated_name"])


def test_of_ones_own_equal_deposits_the_older_one_is_meant(client: Client) -> None:
    """No collision and no ambiguity: one after the other, and never one that was cancelled."""
    cancelled, first, second = (announce(client, "7106", name, 9891) for name in ("오하나", "오 하나", "오하나"))
    assert [one["collision"] for one in (cancelled, first, second)] == [None, None, None]
    client.write(f"/v1/deposits/{cancelled['id']}/cancel", {})
    lines = [notify(client, f"own-{n}", "오하나", 9891).json() for n in range(3)]
    assert [line["matched_deposit_id"] for line in lines] == [first["id"], second["id"], None]
    assert [line["status"] for line in lines] == ["matched", "matched", "unmatched"]
    again = announce(client, "7106", "오하나", 9891)  # looks at the line that waits
    assert (again["status"], again["matched_bank_notification_id"]) == ("confirmed", lines[2]["id"])
    assert balance(client, "7106") == 3 * 9891


@pytest.mark.parametrize("line_first", [False, True])
def test_a_rivals_cancellation_frees_nothing(client: Client, line_first: bool) -> None:
    """Whoever could be meant when the money came still can: the line waits for a person, before it and after it."""
    amount = 9895 + line_first
    rival = announce(client, "7107", "유하나산업", amount)
    came = now(days=-1 / 86_400)
    if line_first:
        assert notify(client, f"freed-{amount}", "유하나", amount, occurred_at=came).json()["status"] == "unmatched"
        client.write(f"/v1/deposits/{rival['id']}/cancel", {})
        announced = announce(client, "7108", "유하나", amount)
    else:
        announced = announce(client, "7108", "유하나", amount)
        client.write(f"/v1/deposits/{rival['id']}/cancel", {})
        assert notify(client, f"freed-{amount}", "유하나", amount, occurred_at=came).json()["status"] == "ambiguous"
    assert deposit(client, announced["id"])["status"] == "pending"
    later = notify(client, f"freed-later-{amount}", "유하나", amount, occurred_at=now(days=1 / 1440)).json()
    assert (later["status"], later["matched_deposit_id"]) == ("ambiguous", None)  # two lines for one deposit


def test_money_that_came_after_a_rival_was_cancelled_is_not_its(client: Client) -> None:
    """It was no longer to be expected from there."""
    rival = announce(client, "7109", "조하나산업", 9897)
    client.write(f"/v1/deposits/{rival['id']}/cancel", {})
    announced = announce(client, "7110", "조하나", 9897)
    assert announced["collision"] is None
    line = notify(client, "free-1", "조하나", 9897, occurred_at=now(days=1 / 86_400)).json()
    assert line["matched_deposit_id"] == announced["id"]


def test_a_cut_name_only_suggests(client: Client) -> None:
    """Both ways round: the deposit is listed as truncated_name, and neither side confirms anything."""
    long = announce(client, "7006", "주식회사 가나다라", 6200)
    cut = notify(client, "cut-1", "주식회사", 6200).json()
    assert (cut["status"], deposit(client, long["id"])["status"]) == ("unmatched", "pending")
    assert [(c["deposit_id"], c["likeness"]) for c in cut["candidates"]] == [(long["id"], "truncated_name")]
    longer = notify(client, "cut-2", "주식회사 가나다라마바", 6200).json()
    assert [(c["deposit_id"], c["likeness"]) for c in longer["candidates"]] == [(long["id"], "truncated_name")]
    assert announce(client, "7007", "주식회사 가나다", 6200)["status"] == "pending"


@pytest.mark.parametrize(
    ("name", "printed_names", "alike"),
    [
        (
            "홍길동",
            ["홍길동(국민)", "홍길동-토스", "토스 홍길동", "국민홍길동", "홍길동님", "홍길동1234"],
            "decorated_name",
        ),
        ("(주)철수상사", ["주)철수상사", "주식회사철수상사", "철수상사"], "corporate_name"),
        ("홍길동", ["홍*동"], "masked_name"),
        ("Hong Gil-dong", ["HONG GILDONG"], "latin_name"),
        ("Hong, Gildong", ["HONG GILDONG"], "latin_name"),
        ("Gildong Hong", ["HONG GILDONG"], "latin_name"),
        ("홍길동", ["카카오뱅크", "이몽룡"], "same_amount"),
    ],
)
def test_what_a_person_would_see_waits_for_a_person(
    client: Client, name: str, printed_names: list[str], alike: str
) -> None:
    """The deposit is the first candidate, in the answer, in the line and in the list of open lines, and says why; it
    is confirmed neither by the line nor by an announcement after it."""
    for printed_name in some(printed_names):
        amount = next(amounts)
        other, meant = announce(client, "7131", "박하나", amount), announce(client, "7132", name, amount)
        line = notify(client, f"seen-{amount}", printed_name, amount)
        assert (line.status_code, line.json()["status"]) == (201, "unmatched")
        told = line.json()["candidates"]
        first = other if alike == "same_amount" else meant
        assert (told[0]["deposit_id"], told[0]["likeness"]) == (first["id"], alike)
        assert {one["deposit_id"] for one in told} == {other["id"], meant["id"]}
        assert (line.json()["more_candidates"], line.json()["more_candidates_counted"]) == (0, True)
        path = f"/v1/bank-notifications/{line.json()['id']}"
        listed = client.get("/v1/bank-notifications?status=unmatched&limit=1").json()["items"][0]
        assert client.get(path).json()["candidates"] == listed["candidates"] == told
        assert announce(client, "7133", name, amount)["status"] == "pending"
        assert deposit(client, meant["id"])["status"] == "pending"
        assert client.write(f"{path}/match", {"deposit_id": meant["id"]}).json()["candidates"] == []


@pytest.mark.parametrize("days", [-2, -9])
def test_a_transfer_outside_the_window_is_no_match(client: Client, days: int) -> None:
    """A day apart is the default: older money confirms nothing by itself, whichever was told first."""
    user = f"701{days + 9}"
    announced = announce(client, user, f"창{days + 2}", 6300)
    outside = notify(client, f"window-{days}", f"창{days + 2}", 6300, occurred_at=now(days)).json()
    assert (outside["status"], outside["candidates"]) == ("unmatched", [])
    assert deposit(client, announced["id"])["status"] == "pending"
    early = notify(client, f"window-first-{days}", f"창밖{days + 2}", 6300, occurred_at=now(days)).json()
    assert announce(client, user, f"창밖{days + 2}", 6300)["status"] == "pending"
    assert client.get(f"/v1/bank-notifications/{early['id']}").json()["status"] == "unmatched"


def test_the_beginning_of_time_is_put_on_record(client: Client) -> None:
    """A window that would leave the calendar is cut there; nothing fits, nothing breaks."""
    moment = "0001-01-01T00:00:00Z"
    written = notify(client, "the-beginning", "끝", 1, occurred_at=moment)
    assert (written.status_code, written.json()["occurred_at"]) == (201, moment)


@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59Z", None])
def test_money_of_the_future_is_refused_and_the_zone_is_named(client: Client, moment: str | None) -> None:
    """409, as for all that is well-formed and refused. A time of Korea with a Z is nine hours ahead of it."""
    korean = (datetime.now(UTC) + timedelta(hours=9)).replace(tzinfo=None).isoformat(timespec="seconds")
    refused = notify(client, f"ahead-{moment}", "앞날", 6301, occurred_at=moment or f"{korean}Z")
    problem = refused.json()
    assert (refused.status_code, problem["code"]) == (409, "occurred_ahead")
    assert problem["ahead_s"] > 8 * 3600
    assert stands("+09:00", problem["detail"])
    taken = notify(client, f"ahead-{moment}", "앞날", 6301, occurred_at=f"{korean}+09:00")
    assert taken.status_code == 201


def test_what_was_confirmed_by_hand_is_not_paid_twice(client: Client) -> None:
    """Money that ops had confirmed before its notification came is linked by hand, moves nothing, and until then
    credits no other deposit of that name and amount."""
    first = announce(client, "7021", "최하나", 6400)
    client.write(f"/v1/deposits/{first['id']}/confirm", {})
    late_line = notify(client, "hand-1", "최하나", 6400).json()
    assert late_line["status"] == "unmatched"
    assert [(c["deposit_id"], c["status"]) for c in late_line["candidates"]] == [(first["id"], "confirmed")]
    second = announce(client, "7021", "최하나", 6400)
    assert second["status"] == "pending"
    assert second["collision"]["suggested_amount"] == 6401
    linked = client.write(f"/v1/bank-notifications/{late_line['id']}/match", {"deposit_id": first["id"]}).json()
    assert (linked["status"], linked["balance_before"], linked["balance_after"]) == ("matched", 6400, 6400)
    assert (
        logged(client, action="bank_notification_matched", resource_id=late_line["id"])[0]["details"]["credited"]
        is False
    )
    assert len(logged(client, action="deposit_confirmed", telegram_id="7021")) == 1
    assert deposit(client, first["id"])["matched_bank_notification_id"] == late_line["id"]
    assert notify(client, "hand-2", "최하나", 6400).json()["matched_deposit_id"] == second["id"]
    assert balance(client, "7021") == 12800


def test_announcing_into_a_collision_warns_and_proposes_an_amount(client: Client) -> None:
    """Same name and amount as a deposit that waits: the proposal is free, and taking it is matched by itself."""
    assert announce(client, "7030", "정하나", 6500)["collision"] is None
    assert announce(client, "7031", "정하나", 6501)["collision"] is None
    collision = announce(client, "7032", "정 하나", 6500)["collision"]
    assert collision["suggested_amount"] == 6502
    assert stands("6502 won", collision["detail"])
    assert announce(client, "7032", "정하나", 6502)["collision"] is None
    assert notify(client, "collision-1", "정하나", 6502).json()["telegram_id"] == "7032"


def test_at_the_largest_amount_the_proposal_is_smaller(client: Client) -> None:
    """10^12 won is the most; above it nothing can be proposed."""
    announce(client, "7033", "정둘", 10**12)
    assert announce(client, "7034", "정둘", 10**12)["collision"]["suggested_amount"] == 10**12 - 1


def test_two_notifications_that_wait_are_not_guessed_between(client: Client) -> None:
    """Which of two bank lines a deposit is, only a person says."""
    lines = [notify(client, f"lines-{n}", "강하나", 6600).json() for n in range(2)]
    announced = announce(client, "7035", "강하나", 6600)
    assert announced["status"] == "pending"
    assert announced["collision"]["suggested_amount"] == 6601
    settled = client.write(f"/v1/bank-notifications/{lines[1]['id']}/match", {"deposit_id": announced["id"]})
    assert settled.json()["balance_after"] == 6600


def test_a_match_by_hand_is_refused_for_what_does_not_fit(client: Client) -> None:
    """In the documented order, each by its code with the facts; nothing is credited and each refusal is audited."""
    line = notify(client, "refuse-1", "윤하나", 6700).json()
    path = f"/v1/bank-notifications/{line['id']}/match"
    other = announce(client, "7040", "윤둘", 6701)
    fits = announce(client, "7040", "윤셋", 6700)
    cancelled = announce(client, "7040", "윤넷", 6700)
    client.write(f"/v1/deposits/{cancelled['id']}/cancel", {})
    taken = announce(client, "7040", "윤다섯", 6700)
    taken_by = notify(client, "refuse-2", "윤다섯", 6700).json()
    debit = client.write("/v1/debits", {"telegram_id": "7040", "amount": 1, "reason": "r"}).json()

    def refused(body: dict[str, Any], at: str = path) -> dict[str, Any]:
        answer = client.write(at, body)
        assert answer.status_code in {404, 409}
        problem: dict[str, Any] = answer.json()
        return problem

    assert refused({"deposit_id": 1}, "/v1/bank-notifications/999999/match")["code"] == "bank_notification_not_found"
    assert refused({"deposit_id": 999999})["code"] == "deposit_not_found"
    assert refused({"deposit_id": debit["id"]})["code"] == "deposit_not_found"
    matched = refused({"deposit_id": taken["id"]})
    assert (matched["code"], matched["bank_notification_id"]) == ("deposit_matched", taken_by["id"])
    differs = refused({"deposit_id": other["id"]})
    assert (differs["code"], differs["amount"], differs["received"]) == ("deposit_amount_differs", 6701, 6700)
    gone = refused({"deposit_id": cancelled["id"]})
    assert (gone["code"], gone["current_status"]) == ("deposit_not_pending", "cancelled")
    assert balance(client, "7040") == 6699
    assert client.get(f"/v1/bank-notifications/{line['id']}").json()["status"] == "unmatched"
    assert client.write(path, {"deposit_id": fits["id"]}).status_code == 200
    settled = refused({"deposit_id": fits["id"]})
    assert (settled["code"], settled["deposit_id"]) == ("bank_notification_matched", fits["id"])
    failed = logged(client, action="bank_notification_match_failed", resource_id=line["id"])
    assert [row["details"]["code"] for row in reversed(failed)] == [
        "deposit_not_found",
        "deposit_not_found",
        "deposit_matched",
        "deposit_amount_differs",
        "deposit_not_pending",
        "bank_notification_matched",
    ]


def test_a_reversed_deposit_takes_no_money(client: Client) -> None:
    """It was confirmed once and taken back: whose the money is, only a person says, also for the next announcement."""
    announced = announce(client, "7041", "임하나", 6800)
    client.write(f"/v1/deposits/{announced['id']}/confirm", {})
    client.write(f"/v1/transactions/{announced['id']}/reverse", {})
    line = notify(client, "reversed-1", "임하나", 6800).json()
    assert line["status"] == "unmatched"
    assert [(c["deposit_id"], c["status"]) for c in line["candidates"]] == [(announced["id"], "reversed")]
    refused = client.write(f"/v1/bank-notifications/{line['id']}/match", {"deposit_id": announced["id"]}).json()
    assert (refused["code"], refused["current_status"]) == ("deposit_not_pending", "reversed")
    again = announce(client, "7041", "임하나", 6800)
    assert (again["status"], again["collision"]["suggested_amount"]) == ("pending", 6801)
    settled = client.write(f"/v1/bank-notifications/{line['id']}/match", {"deposit_id": again["id"]}).json()
    assert (settled["status"], settled["balance_after"]) == ("matched", 6800)


def test_money_that_does_not_fit_the_account_is_put_on_record(client: Client) -> None:
    """The bank received it whatever the limit says: unmatched, with the deposit listed; a match by hand is refused."""
    for number in range(9):  # 9 * 10^15 is just below 2^53 - 1
        changes = [
            {"telegram_id": "7050", "amount": 10**12, "reason": "fill", "reference": f"fill-{number}-{n}"}
            for n in range(1000)
        ]
        assert client.write("/v1/balance-changes", {"changes": changes}).status_code == 200
    announced = announce(client, "7050", "한하나", 10**12 - 1)
    for n in range(8):
        left = {"telegram_id": "7050", "amount": 9 * 10**11, "reason": "fill", "reference": f"more-{n}"}
        assert client.write("/v1/balance-changes", {"changes": [left]}).status_code in {200, 409}
    line = notify(client, "limit-1", "한하나", 10**12 - 1).json()
    assert line["status"] == "unmatched"
    assert [c["deposit_id"] for c in line["candidates"]] == [announced["id"]]
    refused = client.write(f"/v1/bank-notifications/{line['id']}/match", {"deposit_id": announced["id"]})
    assert (refused.status_code, refused.json()["code"]) == (409, "balance_limit_exceeded")
    waiting = notify(client, "limit-2", "한둘", 10**12).json()
    assert announce(client, "7050", "한둘", 10**12)["status"] == "pending"
    assert client.get(f"/v1/bank-notifications/{waiting['id']}").json()["status"] == "unmatched"


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"bank_transaction_id": " a"}, "#/bank_transaction_id"),
        ({"bank_transaction_id": "a\t"}, "#/bank_transaction_id"),
        ({"bank_transaction_id": ""}, "#/bank_transaction_id"),
        ({"bank_transaction_id": f"derived:{'0' * 64}"}, "#/bank_transaction_id"),
        ({"depositor_name": "x" * 51}, "#/depositor_name"),
        ({"depositor_name": "a\0a"}, "#/depositor_name"),
        ({"depositor_name": "\0" * 51}, "#/depositor_name"),
        ({"account": "a"}, "#/account"),
        ({"balance_after": 2**53}, "#/balance_after"),
        ({"amount": 0}, "#/amount"),
        ({"amount": -1}, "#/amount"),
        ({"occurred_at": "2026-02-30T00:00:00Z"}, "#/occurred_at"),
        ({"occurred_at": "2026-01-19 12:00:00"}, "#/occurred_at"),
        ({"occurred_at": 1700000000}, "#/occurred_at"),
        ({"raw_message": "a\u0000"}, "#/raw_message"),
        ({"telegram_id": "1"}, "#/telegram_id"),
    ],
)
def test_bad_input_names_the_field_and_leaves_nothing(client: Client, change: dict[str, Any], pointer: str) -> None:
    """400 with the pointer; no notification is there afterwards."""
    before = client.get("/v1/bank-notifications").json()
    body = {"bank_transaction_id": "bad", "depositor_name": "a", "amount": 1, "occurred_at": now(), **change}
    answer = client.write("/v1/bank-notifications", body)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, pointer)
    assert client.get("/v1/bank-notifications").json() == before


def test_an_unknown_status_is_refused(client: Client) -> None:
    """400 names the parameter and the words it takes."""
    answer = client.get("/v1/bank-notifications?status=new")
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["pointer"] == "query/status"
    assert "one of unmatched, ambiguous, matched" in answer.text


def test_a_list_goes_on_by_cursor(client: Client) -> None:
    """Newest first, each once, with a Link to the next page."""
    made = [notify(client, f"list-{n}", "목록", 7000 + n).json()["id"] for n in range(5)]
    found, path = [], "/v1/bank-notifications?limit=2&status=unmatched"
    while path and len(found) < 6:
        page = client.get(path)
        found += [item["id"] for item in page.json()["items"]]
        path = page.headers.get("Link", "").partition(">")[0].lstrip("<")
    assert found[:5] == made[::-1]
    assert found == sorted(set(found), reverse=True)


def test_a_line_that_the_bot_had_booked_is_linked_and_not_paid_again(own_service: LiveService) -> None:
    """The bank's watcher may send yesterday's lines again: the bot's deposit is a candidate, a new one of that name and
    amount waits for a person, and linking the line to the bot's deposit moves nothing."""
    database = str(own_service.database)
    assert passbook("migrate", "up", "--to", "1", "--database", database).returncode == 0
    with closing(sqlite3.connect(database)) as bot, bot:
        bot.execute("INSERT INTO users (telegram_id) VALUES ('8001')")
        bot.execute("INSERT INTO user_deposits (user_id, balance) VALUES (1, 5000)")
        bot.execute(
            "INSERT INTO deposit_transactions (user_id, type, amount, status, depositor_name, confirmed_at)"
            " VALUES (1, 'deposit', 5000, 'confirmed', '홍길동', CURRENT_TIMESTAMP)"
        )
        bot.execute(
            "INSERT INTO bank_notifications (depositor_name, amount, transaction_time, matched_transaction_id)"
            " VALUES ('홍길동', 5000, CURRENT_TIMESTAMP, 1), ('홍길순', 700, CURRENT_TIMESTAMP, NULL)"
        )
    assert passbook("migrate", "up", "--database", database).returncode == 0
    assert (
        passbook("keys", "create", "--name", "first-admin", "--role", "admin", "--database", database).returncode == 0
    )
    own_service.admin_key = passbook(
        "keys", "create", "--name", "a", "--role", "admin", "--database", database
    ).stdout.strip()
    client = own_service.start().client()
    announced = announce(client, "8001", "홍길동", 5000)
    again = notify(client, "again-1", "홍길동", 5000).json()
    assert (again["status"], announced["status"], balance(client, "8001")) == ("ambiguous", "pending", 5000)
    assert [(c["deposit_id"], c["status"]) for c in again["candidates"]] == [
        (1, "confirmed"),
        (announced["id"], "pending"),
    ]
    linked = client.write(f"/v1/bank-notifications/{again['id']}/match", {"deposit_id": 1}).json()
    assert (linked["status"], linked["balance_before"], linked["balance_after"]) == ("matched", 5000, 5000)
    assert notify(client, "new-1", "홍길동", 5000).json()["matched_deposit_id"] == announced["id"]
    waiting = client.get("/v1/bank-notifications?status=unmatched").json()["items"]
    assert [(n["id"], n["bank_transaction_id"], n["depositor_name"]) for n in waiting] == [(2, None, "홍길순")]
    assert announce(client, "8001", "홍길순", 700)["status"] == "pending"  # the bot's lines credit only by hand
    by_hand = client.write("/v1/bank-notifications/2/match", {"deposit_id": announced["id"] + 1}).json()
    assert (by_hand["match_method"], by_hand["balance_after"]) == ("manual", 10700)
    assert client.get("/v1/integrity?max_age=PT0S").json()["status"] == "sound"
    assert own_service.stop() == 0
    assert broken_invariants(own_service.database) == []
