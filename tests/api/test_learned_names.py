"""Learned names over real HTTP: what a person taught counts the next time, as long as it is one user's alone."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.test_bank_notifications import announce, balance, deposit, logged, notify
from tests.ledger_check import broken_invariants
from tests.live import CHECKOUT, Client, LiveService, passbook

amounts = itertools.count(770_000, 20)


@pytest.fixture
def client(service: LiveService) -> Iterator[Client]:
    """The service's, of which no name is learned before or after."""
    client = service.client()
    yield client
    for item in client.get("/v1/learned-names?limit=1000").json()["items"]:
        forget(client, item["id"])


def forget(client: Client, learned_name_id: int) -> Any:
    """The answer to its removal."""
    key = {"Idempotency-Key": f"forget-{learned_name_id}"}
    return client.request("DELETE", f"/v1/learned-names/{learned_name_id}", headers=key)


def settle(client: Client, line_id: int, deposit_id: int, **more: Any) -> dict[str, Any]:
    """Matches the line with the deposit, to be remembered."""
    body = {"deposit_id": deposit_id, "remember": True, **more}
    answer: dict[str, Any] = client.write(f"/v1/bank-notifications/{line_id}/match", body).json()
    return answer


def teach(client: Client, telegram_id: str, printed_name: str, name: str = "홍길동") -> int | None:
    """A person settles such a line as the user's; the id of what was learned."""
    amount = next(amounts)
    made = announce(client, telegram_id, name, amount)
    line = notify(client, f"taught-{amount}", printed_name, amount).json()
    assert line["status"] == "unmatched"
    learned: int | None = settle(client, line["id"], made["id"])["learned_name_id"]
    return learned


@pytest.mark.parametrize("line_first", [False, True])
def test_what_was_taught_confirms_the_next_time(client: Client, line_first: bool) -> None:
    """Whichever comes first, the line or the announcement, and in any spelling; the audit log tells who taught it."""
    user = f"750{line_first:d}"
    learned = teach(client, user, "길동이네")
    assert learned is not None
    (row,) = logged(client, action="user_name_learned", telegram_id=user)
    assert row["resource_type"] == "user"
    assert (row["details"]["id"], row["details"]["depositor_name"]) == (learned, "길동이네")
    amount = next(amounts)
    if line_first:
        line = notify(client, f"next-{amount}", "길동 이네", amount).json()
        made = announce(client, user, "홍길동", amount)
        assert (line["status"], made["status"], made["collision"]) == ("unmatched", "confirmed", None)
    else:
        made = announce(client, user, "홍길동", amount)
        line = notify(client, f"next-{amount}", "길동 이네", amount).json()
        assert (line["status"], line["matched_deposit_id"], line["match_method"]) == (
            "matched",
            made["id"],
            "automatic",
        )
    assert deposit(client, made["id"])["status"] == "confirmed"
    assert client.get("/v1/integrity?max_age=PT0S").json()["status"] == "sound"


def test_it_is_listed_and_removed(client: Client) -> None:
    """By user, newest first; once it is removed it confirms nothing, and what it confirmed stays."""
    first, second = teach(client, "7511", "길동이네"), teach(client, "7512", "철수네")
    items = client.get("/v1/learned-names").json()["items"]
    assert [(item["id"], item["telegram_id"], item["printed_name"]) for item in items] == [
        (second, "7512", "철수네"),
        (first, "7511", "길동이네"),
    ]
    assert [item["id"] for item in client.get("/v1/learned-names?telegram_id=7511").json()["items"]] == [first]
    assert (items[0]["learned_by"], items[0]["created_at"][-1]) == ("first-admin", "Z")
    assert first is not None
    gone = forget(client, first)
    assert (gone.status_code, gone.json()["printed_name"]) == (200, "길동이네")
    assert forget(client, first).headers["Idempotency-Replayed"] == "true"
    (row,) = logged(client, action="user_name_forgotten", telegram_id="7511")
    assert (row["id"], row["details"]["id"]) == (gone.json()["audit_log_id"], first)
    again = client.request("DELETE", f"/v1/learned-names/{first}", headers={"Idempotency-Key": "another"})
    assert (again.status_code, again.json()["code"]) == (404, "learned_name_not_found")
    amount = next(amounts)
    made = announce(client, "7511", "홍길동", amount)
    assert notify(client, f"removed-{amount}", "길동이네", amount).json()["status"] == "unmatched"
    assert deposit(client, made["id"])["status"] == "pending"


def test_a_name_that_two_users_were_taught_confirms_neither(client: Client) -> None:
    """Neither where one of them waits for money nor where both do; removed of the other, it confirms again."""
    teach(client, "7521", "우리가게")
    other = teach(client, "7522", "우리가게")
    amount = next(amounts)
    one = announce(client, "7521", "홍길동", amount)
    line = notify(client, f"shared-{amount}", "우리가게", amount).json()
    assert line["status"] == "unmatched"
    assert line["candidates"][0]["likeness"] == "learned_name"
    both = next(amounts)
    announce(client, "7521", "홍길동", both)
    announce(client, "7522", "김철수", both)
    assert notify(client, f"shared-{both}", "우리가게", both).json()["status"] == "ambiguous"
    assert deposit(client, one["id"])["status"] == "pending"
    assert other is not None
    forget(client, other)
    again = next(amounts)
    made = announce(client, "7521", "홍길동", again)
    assert notify(client, f"shared-{again}", "우리가게", again).json()["matched_deposit_id"] == made["id"]


@pytest.mark.parametrize("rival", ["길동이네", "길동이네가게"])
@pytest.mark.parametrize("line_first", [False, True])
def test_a_name_that_another_user_announced_confirms_neither(client: Client, rival: str, line_first: bool) -> None:
    """Also one that only begins with it; whichever comes first, the second announcement is warned."""
    teach(client, "7531", "길동이네")
    for turned in (False, True):
        amount = next(amounts)
        pairs = [("7531", "홍길동"), ("7532", rival)]
        if line_first:
            pairs = [("7532", rival), ("7531", "홍길동")]
        first, second = (announce(client, user, name, amount) for user, name in (pairs[::-1] if turned else pairs))
        assert (first["collision"], second["collision"] is None) == (None, False)
        assert second["collision"]["suggested_amount"] == amount + 1
        line = notify(client, f"announced-{amount}", "길동이네", amount).json()
        assert line["status"] == "ambiguous"
        assert {one["deposit_id"] for one in line["candidates"]} == {first["id"], second["id"]}
        assert [deposit(client, one["id"])["status"] for one in (first, second)] == ["pending", "pending"]


def test_a_cut_print_of_a_learned_name_counts(client: Client) -> None:
    """A print that fills the bank's field and begins the learned name means it; a shorter one is a candidate."""
    teach(client, "7541", "코딩하는사람들모임", name="김하나")
    amount = next(amounts)
    made = announce(client, "7541", "김하나", amount)
    line = notify(client, f"cut-{amount}", "코딩하는", amount).json()
    assert (line["status"], line["candidates"][0]["likeness"]) == ("unmatched", "learned_name")
    more = next(amounts)
    made = announce(client, "7541", "김하나", more)
    assert notify(client, f"cut-{more}", "코딩하는사람들", more).json()["matched_deposit_id"] == made["id"]


@pytest.mark.parametrize("printed_name", ["홍*동", "카카오뱅크", "토스", "1234", "국민은행", "(주)", "홍길동"])
def test_what_says_too_little_is_not_learned(client: Client, printed_name: str) -> None:
    """The line is settled all the same, and the answer says that nothing was learned. A whole name is."""
    learned = teach(client, f"756{len(printed_name)}", printed_name, name="홍길순")
    assert (learned is not None) == (printed_name == "홍길동")


def test_without_a_word_nothing_is_remembered(client: Client) -> None:
    """Neither when a line is settled by hand nor when it says false."""
    for more in ({"remember": False}, {"note": "asked"}):
        amount = next(amounts)
        made = announce(client, "7571", "홍길동", amount)
        line = notify(client, f"untaught-{amount}", "길동이네", amount).json()
        body = {"deposit_id": made["id"], **more}
        settled = client.write(f"/v1/bank-notifications/{line['id']}/match", body).json()
        assert (settled["status"], settled["learned_name_id"]) == ("matched", None)
    assert client.get("/v1/learned-names").json()["items"] == []


def test_what_is_learned_already_is_not_learned_twice(client: Client) -> None:
    """The second time nothing is written; a person may say it again all the same."""
    assert teach(client, "7581", "길동이네") is not None
    amount = next(amounts)
    made = announce(client, "7581", "홍길동", amount)
    announce(client, "7582", "길동이네", amount)
    line = notify(client, f"twice-{amount}", "길동이네", amount).json()
    settled = settle(client, line["id"], made["id"])
    assert (line["status"], settled["status"], settled["learned_name_id"]) == ("ambiguous", "matched", None)
    assert len(logged(client, action="user_name_learned", telegram_id="7581")) == 1
    assert len(client.get("/v1/learned-names?telegram_id=7581").json()["items"]) == 1


def test_an_erased_user_leaves_no_learned_name(own_service: LiveService) -> None:
    """The row goes with the user, and the ledger stays whole."""
    client = own_service.start().client()
    teach(client, "7591", "길동이네")
    ran = passbook("users", "erase", "7591", "--force", "--yes", "--database", str(own_service.database))
    assert ran.returncode == 0, ran.stderr
    assert client.get("/v1/learned-names").json()["items"] == []
    assert balance(client, "erased-1") > 0
    assert client.get("/v1/integrity?max_age=PT0S").json()["status"] == "sound"
    assert own_service.stop() == 0
    assert broken_invariants(own_service.database) == []


PAGE = (CHECKOUT / "docs" / "learned-names.md").read_text("utf-8")
RULES = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| known beside")
]
WAITS = "7601"
RIVAL = "7602"


def test_the_page_has_its_rules() -> None:
    """Each row of the table is tried below."""
    assert len(RULES) == 13


@pytest.mark.parametrize("rule", RULES, ids=[f"{rule[0]} {rule[1]}" for rule in RULES])
def test_each_rule_of_the_page_holds(client: Client, rule: list[str]) -> None:
    """What is known beside the learned name, what is printed, and what becomes of the line."""
    beside, printed_name, status, _why = rule
    learned = teach(client, WAITS, "길동이네")
    amount = next(amounts)
    made = announce(client, WAITS, "홍길동", amount)
    name = beside.split("`")[1] if "`" in beside else ""
    match beside.replace(f"`{name}`", "…"):
        case "nothing":
            pass
        case "… learned of 7101":
            teach(client, WAITS, name)
        case "… announced by 7102":
            announce(client, RIVAL, name, amount)
        case "… announced by 7102 for another amount":
            announce(client, RIVAL, name, amount + 5)
        case "… learned of 7102, who waits for the amount":
            teach(client, RIVAL, name, name="김철수")
            announce(client, RIVAL, "김철수", amount)
        case "… learned of 7102, who waits for nothing":
            teach(client, RIVAL, name, name="김철수")
        case "… removed":
            assert learned is not None
            forget(client, learned)
        case "a second deposit of 7101 for the amount":
            announce(client, WAITS, "홍길동", amount)
        case _:
            raise AssertionError(f"nobody tries {beside}")
    line = notify(client, f"rule-{amount}", printed_name.strip("`"), amount).json()
    assert (line["status"], line["matched_deposit_id"]) == (status, made["id"] if status == "matched" else None)


def test_an_open_line_of_a_name_that_was_learned_since_is_another_line_for_the_deposit(client: Client) -> None:
    """Which of the two lines paid it, the one of the announced name or the one of the learned name, nobody knows."""
    amount = next(amounts)
    made = announce(client, "7611", "홍길동", amount)
    assert notify(client, f"before-{amount}", "길동이네", amount).json()["status"] == "unmatched"
    teach(client, "7611", "길동이네")
    assert notify(client, f"after-{amount}", "홍길동", amount).json()["status"] == "ambiguous"
    assert deposit(client, made["id"])["status"] == "pending"
