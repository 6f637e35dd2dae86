"""Bank notifications settled by people, over real HTTP: each act, what it refuses, and that nothing else moves."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from service.ledger.fields import BALANCE_MAX
from service.ledger.timestamps import spoken, stored, system_clock
from service.storage import sqlite
from tests.api.test_bank_notifications import announce, balance, deposit, logged, notify
from tests.ledger_check import broken_invariants
from tests.live import Client, LiveService, passbook
from tests.some import some

amounts = itertools.count(830_000, 20)
users = itertools.count(8_300_000)
LINES = "/v1/bank-notifications"


@pytest.fixture
def client(service: LiveService) -> Client:
    """The service's."""
    return service.client()


def act(client: Client, line: int, verb: str, **body: Any) -> Any:
    """The answer of an act on the line."""
    return client.write(f"{LINES}/{line}/{verb}", body)


def line_of(client: Client, line: int) -> dict[str, Any]:
    """The line as it stands."""
    found: dict[str, Any] = client.get(f"{LINES}/{line}").json()
    return found


def waiting(client: Client, name: str = "아무개") -> tuple[int, int]:
    """A line that fits nothing, and its amount."""
    amount = next(amounts)
    line = notify(client, f"waits-{amount}", name, amount).json()
    assert line["status"] == "unmatched"
    return line["id"], amount


def user_of(client: Client) -> str:
    """A user who is there and has nothing."""
    user = str(next(users))
    assert client.write("/v1/users", {"telegram_id": user}).status_code == 201
    return user


def matched(client: Client) -> tuple[int, int, str, int]:
    """A line that confirmed a deposit by itself: line, deposit, user, amount."""
    user, amount = str(next(users)), next(amounts)
    made = announce(client, user, "홍길동", amount)
    line = notify(client, f"matched-{amount}", "홍길동", amount).json()
    assert (line["status"], line["matched_deposit_id"]) == ("matched", made["id"])
    return line["id"], made["id"], user, amount


def reverse(client: Client, transaction: int) -> Any:
    """The answer to its reversal."""
    return client.write(f"/v1/transactions/{transaction}/reverse", {})


def is_sound(client: Client) -> bool:
    """Whether the proof finds that it adds up."""
    report = client.get("/v1/integrity?max_age=PT0S").json()
    assert report["status"] == "sound", [check for check in report["checks"] if check["failed"]]
    return True


def refused(answer: Any) -> tuple[int, str]:
    """Status and code of a refusal."""
    return answer.status_code, answer.json()["code"]


def test_a_dismissed_line_confirms_nothing_until_it_is_opened_again(client: Client) -> None:
    """It is listed as dismissed, has no candidates, makes nothing ambiguous; opened, it is as it was before."""
    line, amount = waiting(client, "홍길동")
    done = act(client, line, "dismiss", note="rent of the office").json()
    assert (done["id"], done["status"]) == (line, "dismissed")
    assert line_of(client, line)["status"] == "dismissed"
    assert line in [one["id"] for one in client.get(f"{LINES}?status=dismissed").json()["items"]]
    assert line not in [one["id"] for one in client.get(f"{LINES}?status=unmatched").json()["items"]]
    first = announce(client, str(next(users)), "홍길동", amount)
    assert (first["status"], first["collision"]) == ("pending", None)
    assert line_of(client, line)["candidates"] == []
    assert refused(act(client, line, "match", deposit_id=first["id"])) == (409, "bank_notification_closed")
    assert refused(act(client, line, "dismiss", note="again")) == (409, "bank_notification_closed")
    assert client.write(f"/v1/deposits/{first['id']}/cancel", {}).status_code == 200
    assert act(client, line, "reopen", note="a top-up after all").json()["status"] == "unmatched"
    assert refused(act(client, line, "reopen")) == (409, "bank_notification_open")
    rows = [row["action"] for row in logged(client, resource_type="bank_notification", resource_id=str(line))]
    assert [row for row in reversed(rows) if not row.endswith("_failed")] == [
        "bank_notification_received",
        "bank_notification_dismissed",
        "bank_notification_reopened",
    ]
    assert is_sound(client)


def test_an_opened_line_confirms_a_new_announcement(client: Client) -> None:
    """The dismissal leaves nothing behind."""
    line, amount = waiting(client, "홍길동")
    act(client, line, "dismiss", note="x")
    act(client, line, "reopen")
    made = announce(client, str(next(users)), "홍길동", amount)
    assert (made["status"], made["matched_bank_notification_id"]) == ("confirmed", line)


def test_a_line_is_credited_to_a_user_in_place_of_a_deposit_of_another_amount(client: Client) -> None:
    """What the bank received is credited, and the deposit that was announced wrongly is cancelled with it."""
    line, amount = waiting(client, "홍길동")
    user = str(next(users))
    wrong = announce(client, user, "홍길동", amount + 7)
    done = act(client, line, "match", telegram_id=user, cancel_deposit_id=wrong["id"], note="seven won less").json()
    assert (done["status"], done["telegram_id"], done["balance_after"]) == ("matched", user, amount)
    made = deposit(client, done["matched_deposit_id"])
    assert (made["status"], made["amount"], made["depositor_name"]) == ("confirmed", amount, "홍길동")
    assert made["matched_bank_notification_id"] == line
    assert deposit(client, wrong["id"])["status"] == "cancelled"
    assert balance(client, user) == amount
    assert is_sound(client)


def test_what_cannot_be_credited_to_a_user_is_refused_and_nothing_moves(client: Client) -> None:
    """No user is made, another user's deposit stays, and so does one that is settled."""
    line, amount = waiting(client)
    user, other = user_of(client), str(next(users))
    theirs = announce(client, other, "김철수", amount + 1)
    mine = announce(client, user, "김철수", amount + 2)
    assert client.write(f"/v1/deposits/{mine['id']}/cancel", {}).status_code == 200
    nobody = str(next(users))
    for body, expected in some(
        (
            ({"telegram_id": nobody}, (404, "user_not_found")),
            ({"telegram_id": user, "cancel_deposit_id": 10**9}, (404, "deposit_not_found")),
            ({"telegram_id": user, "cancel_deposit_id": theirs["id"]}, (409, "deposit_of_other_user")),
            ({"telegram_id": user, "cancel_deposit_id": mine["id"]}, (409, "deposit_not_pending")),
            ({}, (400, "invalid_request")),
            ({"telegram_id": user, "deposit_id": theirs["id"]}, (400, "invalid_request")),
            ({"telegram_id": user, "late": True}, (400, "invalid_request")),
            ({"deposit_id": theirs["id"], "cancel_deposit_id": theirs["id"]}, (400, "invalid_request")),
        )
    ):
        assert refused(act(client, line, "match", **body)) == expected, body
    assert client.get(f"/v1/users/{nobody}/balance").status_code == 404
    assert (line_of(client, line)["status"], balance(client, user), balance(client, other)) == ("unmatched", 0, 0)
    assert deposit(client, theirs["id"])["status"] == "pending"


def test_a_line_beyond_the_largest_balance_stays_open(client: Client) -> None:
    """The refusal comes before the first write: the deposit that was named is still pending."""
    user, line = user_of(client), waiting(client)[0]
    wrong = announce(client, user, "홍길동", next(amounts))
    most = 10**12
    amounts_left = [most] * (BALANCE_MAX // most) + [BALANCE_MAX % most]
    changes = [
        {"telegram_id": user, "amount": amount, "reason": "fill", "reference": f"full-{user}-{number}"}
        for number, amount in enumerate(amounts_left)
    ]
    for start in range(0, len(changes), 1000):
        assert client.write("/v1/balance-changes", {"changes": changes[start : start + 1000]}).status_code == 200
    assert balance(client, user) == BALANCE_MAX
    answer = act(client, line, "match", telegram_id=user, cancel_deposit_id=wrong["id"])
    assert refused(answer) == (409, "balance_limit_exceeded")
    assert (deposit(client, wrong["id"])["status"], line_of(client, line)["status"]) == ("pending", "unmatched")


def test_a_reversed_deposit_frees_its_line_for_another_user(client: Client) -> None:
    """It is no candidate any more, a new announcement does not get the money, and a person's match does."""
    line, first, user, amount = matched(client)
    done = reverse(client, first).json()
    assert (done["freed_bank_notification_id"], balance(client, user)) == (line, 0)
    free = line_of(client, line)
    assert (free["status"], free["matched_deposit_id"], free["match_method"], free["candidates"]) == (
        "unmatched",
        None,
        None,
        [],
    )
    assert deposit(client, first)["matched_bank_notification_id"] is None
    other = announce(client, str(next(users)), "홍길동", amount)
    assert other["status"] == "pending"
    assert [one["deposit_id"] for one in line_of(client, line)["candidates"]] == [other["id"]]
    assert refused(act(client, line, "match", deposit_id=first)) == (409, "deposit_not_pending")
    assert act(client, line, "match", deposit_id=other["id"]).json()["status"] == "matched"
    assert (balance(client, user), balance(client, other["telegram_id"])) == (0, amount)
    assert refused(reverse(client, first)) == (409, "transaction_reversed")
    assert is_sound(client)


def test_a_deposit_without_its_freed_line_is_no_rival(client: Client) -> None:
    """Once the line is settled, a new transfer of that name and amount confirms by itself as ever."""
    line, first, _, amount = matched(client)
    reverse(client, first)
    act(client, line, "dismiss", note="sent back to the bank")
    new = announce(client, str(next(users)), "홍길동", amount)
    assert new["collision"] is None
    second = notify(client, f"second-{amount}", "홍길동", amount).json()
    assert (second["status"], second["matched_deposit_id"]) == ("matched", new["id"])


def test_a_deposit_that_stands_again_is_matched_by_a_person(client: Client) -> None:
    """The reversal of a reversal brings the money back and not the line; the third one frees the line anew."""
    line, first, user, amount = matched(client)
    back = reverse(client, first).json()["id"]
    again = reverse(client, back).json()
    assert (again["freed_bank_notification_id"], balance(client, user)) == (None, amount)
    assert line_of(client, line)["status"] == "unmatched"
    assert [one["deposit_id"] for one in line_of(client, line)["candidates"]] == [first]
    linked = act(client, line, "match", deposit_id=first).json()
    assert (linked["status"], linked["balance_before"], linked["balance_after"]) == ("matched", amount, amount)
    assert is_sound(client)
    third = reverse(client, again["id"]).json()
    assert (third["freed_bank_notification_id"], balance(client, user)) == (line, 0)
    assert line_of(client, line)["status"] == "unmatched"
    assert is_sound(client)


def test_names_that_a_freed_line_taught_are_forgotten(client: Client) -> None:
    """A person may have been wrong about them too; those of other lines stay."""
    user = user_of(client)
    taught = []
    for name in ("길동이네", "길순이네"):
        line, _ = waiting(client, name)
        taught.append(act(client, line, "match", telegram_id=user, remember=True).json())
    kept, wrong = taught
    assert None not in (kept["learned_name_id"], wrong["learned_name_id"])
    reverse(client, wrong["matched_deposit_id"])
    left = client.get(f"/v1/learned-names?telegram_id={user}").json()["items"]
    assert [one["id"] for one in left] == [kept["learned_name_id"]]
    assert is_sound(client)
    gone = {"Idempotency-Key": f"forget-{kept['learned_name_id']}"}
    assert client.request("DELETE", f"/v1/learned-names/{kept['learned_name_id']}", headers=gone).is_success


def test_acts_on_one_line_at_once_have_one_order(client: Client) -> None:
    """30 rounds: two credits, a match, a dismissal and its undoing meet. The money is there once or not at all."""
    with ThreadPoolExecutor(5) as pool:
        for _ in range(30):
            line, amount = waiting(client, "홍길동")
            first, second, third = user_of(client), user_of(client), str(next(users))
            other = announce(client, third, "다른이", amount)["id"]
            asked: list[tuple[str, dict[str, Any]]] = [
                ("match", {"telegram_id": first}),
                ("match", {"telegram_id": second}),
                ("match", {"deposit_id": other}),
                ("dismiss", {"note": "x"}),
                ("reopen", {}),
            ]
            answers = list(pool.map(lambda one, at=line: act(client, at, one[0], **one[1]), asked))
            assert {answer.status_code for answer in answers} <= {200, 409}, [answer.text for answer in answers]
            stands = line_of(client, line)
            credited = [user for user in (first, second, third) if balance(client, user) == amount]
            assert [balance(client, user) for user in (first, second, third)].count(0) == 3 - len(credited)
            assert len(credited) == sum(answer.status_code == 200 for answer in answers[:3])
            assert (stands["status"] == "matched") == (len(credited) == 1), stands
            if stands["status"] == "matched":
                done = [pool.submit(reverse, client, stands["matched_deposit_id"]) for _ in range(3)]
                assert sorted(one.result().status_code for one in done) == [201, 409, 409]
                assert line_of(client, line)["status"] == "unmatched"
                assert balance(client, credited[0]) == 0
    assert is_sound(client)


def test_each_act_is_done_once_for_each_key(client: Client) -> None:
    """The same request with its key gets the same bytes; the key for another line is refused."""
    line, _ = waiting(client)
    other, _ = waiting(client)
    user = user_of(client)
    acts: list[tuple[str, dict[str, Any]]] = [
        ("dismiss", {"note": "x"}),
        ("reopen", {}),
        ("match", {"telegram_id": user}),
    ]
    for verb, body in some(acts):
        key = f"once-{verb}-{line}"
        first = client.post(f"{LINES}/{line}/{verb}", json=body, headers={"Idempotency-Key": key})
        again = client.post(f"{LINES}/{line}/{verb}", json=body, headers={"Idempotency-Key": key})
        assert (first.status_code, again.status_code, again.content) == (200, 200, first.content)
        assert again.headers["Idempotency-Replayed"] == "true"
        moved = client.post(f"{LINES}/{other}/{verb}", json=body, headers={"Idempotency-Key": key})
        assert refused(moved) == (409, "idempotency_key_reused")
    assert line_of(client, other)["status"] == "unmatched"


def test_a_freed_line_is_erased_with_the_user_it_was_freed_from(own_service: LiveService) -> None:
    """Its names, its messages and the notes of its events; the ledger adds up before, between and after archiving."""
    client = own_service.start().client(own_service.make_key("--role", "admin"))
    line, first, user, _ = matched(client)
    reverse(client, first)
    act(client, line, "dismiss", note="홍길동 was wrong")
    act(client, line, "reopen", note="or 홍길동 was right")
    act(client, line, "dismiss", note="홍길동 again")
    assert is_sound(client)
    database = str(own_service.database)
    done = passbook("users", "erase", user, "--force", "--yes", "--database", database)
    assert done.returncode == 0, done.stderr
    with closing(sqlite.driver.connect(database)) as connection:
        rows = connection.execute("SELECT depositor_name, match_name FROM bank_notifications").fetchall()
        assert rows == [(None, "")]
        assert connection.execute("SELECT COUNT(*), COUNT(note) FROM bank_notification_events").fetchall() == [(4, 0)]
        told = connection.execute("SELECT details FROM audit_logs WHERE details LIKE '%홍길동%'").fetchall()
        assert told == []
    assert is_sound(client)
    archive = str(own_service.database.with_name("settled.ndjson"))
    pruned = passbook(
        *("audit", "prune", "--before", spoken(stored(system_clock())), "--yes"),
        "--database",
        database,
        "--archive",
        archive,
    )
    assert pruned.returncode == 0, pruned.stderr
    assert is_sound(client)
    assert broken_invariants(own_service.database, archives=[Path(archive)]) == []
