"""Where the price of a domain purchase is, over real HTTP: held, registered, given back; and what is left of before."""

import itertools
import json
import os
import random
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests import earlier
from tests.ledger_check import broken_invariants
from tests.live import CHECKOUT, Client, LiveService, passbook

PRICE = 9000
ROUNDS = 30
_domains = itertools.count()


def hold(client: Client, telegram_id: str, *, hold: bool = True, credit: bool = True) -> Any:
    """A new name taken up for PRICE won that the user has just got."""
    if credit:
        client.credit(telegram_id, PRICE)
    body = {"telegram_id": telegram_id, "domain": f"price-{next(_domains)}.kr", "price": PRICE, "hold": hold}
    made = client.write("/v1/domain-purchases", body)
    assert made.status_code == 201, made.text
    return made.json()


def money(client: Client, telegram_id: str) -> tuple[int, int]:
    """Balance and held, in won."""
    found = client.get(f"/v1/users/{telegram_id}/balance").json()
    return found["balance"], found["held"]


def refused(client: Client, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """The problem document of a 409."""
    answer = client.write(path, body or {})
    assert answer.status_code == 409, answer.text
    document: dict[str, Any] = answer.json()
    return document


def faults(service: LiveService) -> list[str]:
    """What the proof says of domain purchases; nothing else may be wrong."""
    report = service.client().get("/v1/integrity?max_age=PT0S").json()
    wrong = {check["name"]: check for check in report["checks"] if check["failed"]}
    assert wrong.keys() <= {"domain_purchases"}, wrong
    return [
        f"{example['telegram_id']}: purchase {example['row_id']}: {example['said']}"
        for check in wrong.values()
        for example in check["examples"]
    ]


def test_what_a_held_name_stands_on_cannot_be_reversed(service: LiveService) -> None:
    """Refused by name and on record, whatever is said; the name can still be completed, for its price."""
    client = service.client()
    held = hold(client, "8101")
    for body in ({}, {"goodwill": True}):
        found = refused(client, f"/v1/transactions/{held['transaction_id']}/reverse", body)
        assert (found["code"], found["domain_purchase_id"], found["domain"]) == (
            "payment_held",
            held["id"],
            held["domain"],
        )
    assert money(client, "8101") == (0, PRICE)
    logged = client.get("/v1/audit-logs", params={"telegram_id": "8101", "action": "*_failed"}).json()["items"]
    assert [(row["action"], row["details"]["code"], row["details"]["domain_purchase_id"]) for row in logged] == [
        ("transaction_reverse_failed", "payment_held", held["id"])
    ] * 2
    completed = client.write(f"/v1/domain-purchases/{held['id']}/complete").json()
    assert (completed["status"], completed["payment_reversed"]) == ("registered", False)
    assert money(client, "8101") == (0, 0)


def test_the_price_of_a_registered_name_is_given_back_as_goodwill_alone(service: LiveService) -> None:
    """It takes a word, stays registered, and every view of the purchase says so; taken again, they say that."""
    client = service.client()
    bought = hold(client, "8102", hold=False)
    payment = f"/v1/transactions/{bought['transaction_id']}/reverse"
    for body in ({}, {"goodwill": False}, {"note": "sorry"}):
        found = refused(client, payment, body)
        assert (found["code"], found["domain_purchase_id"]) == ("payment_registered", bought["id"])
    assert bought["payment_reversed"] is False
    back = client.write(payment, {"goodwill": True, "note": "sorry"})
    assert (back.status_code, back.json()["balance_after"]) == (201, PRICE)
    row = client.get(f"/v1/audit-logs/{back.json()['audit_log_id']}").json()
    assert (row["action"], row["details"]["goodwill"]) == ("transaction_reversed", True)

    def views() -> list[tuple[str, bool]]:
        one = client.get(f"/v1/domain-purchases/{bought['id']}").json()
        (listed,) = client.get("/v1/domain-purchases", params={"telegram_id": "8102"}).json()["items"]
        return [(view["status"], view["payment_reversed"]) for view in (one, listed)]

    assert views() == [("registered", True)] * 2
    again = client.write(f"/v1/transactions/{back.json()['id']}/reverse").json()
    assert (again["balance_after"], views()) == (0, [("registered", False)] * 2)
    assert refused(client, f"/v1/transactions/{again['id']}/reverse")["code"] == "payment_registered"
    assert client.write(f"/v1/transactions/{again['id']}/reverse", {"goodwill": True}).status_code == 201
    assert (money(client, "8102"), views()) == ((PRICE, 0), [("registered", True)] * 2)


def test_a_refund_is_never_taken_back(service: LiveService) -> None:
    """A name that was given up stays paid back: refused by name, with the status."""
    client = service.client()
    held = hold(client, "8103")
    released = client.write(f"/v1/domain-purchases/{held['id']}/release").json()
    assert (released["status"], released["payment_reversed"]) == ("released", True)
    refund = client.get("/v1/users/8103/transactions", params={"limit": 1}).json()["items"][0]
    found = refused(client, f"/v1/transactions/{refund['id']}/reverse", {"goodwill": True})
    assert (found["code"], found["domain_purchase_id"], found["current_status"]) == (
        "refund_final",
        held["id"],
        "released",
    )
    assert money(client, "8103") == (PRICE, 0)


def test_a_name_is_never_registered_for_nothing_however_they_race(service: LiveService) -> None:
    """Reverse, complete and release at once, thirty times, in any order: the name has its price, or the user has."""
    client = service.client()
    order = random.Random(1)
    outcomes = []
    for number in range(ROUNDS):
        telegram_id = str(8200 + number)
        held = hold(client, telegram_id)
        paths = [
            f"/v1/transactions/{held['transaction_id']}/reverse",
            f"/v1/domain-purchases/{held['id']}/complete",
            f"/v1/domain-purchases/{held['id']}/release",
        ]
        order.shuffle(paths)
        with ThreadPoolExecutor(3) as pool:
            answers = dict(zip(paths, pool.map(client.write, paths), strict=True))
        # Of completing and releasing one comes first, and the other is refused.
        assert sorted(answers[path].status_code for path in paths if not path.endswith("reverse")) == [200, 409]
        taken_back = answers[f"/v1/transactions/{held['transaction_id']}/reverse"]
        assert taken_back.json()["code"] in {"payment_held", "payment_registered", "transaction_reversed"}
        purchase = client.get(f"/v1/domain-purchases/{held['id']}").json()
        outcomes.append((purchase["status"], money(client, telegram_id), purchase["payment_reversed"]))
    assert len(outcomes) == ROUNDS
    assert set(outcomes) <= {("registered", (0, 0), False), ("released", (PRICE, 0), True)}
    assert faults(service) == []


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[LiveService]:
    """A service that can be stopped, for what an earlier one did."""
    service = LiveService(tmp_path / "passbook.db").start()
    yield service
    if service.process is not None:
        assert service.stop() == 0, service.said


def test_a_held_name_whose_payment_went_back_before_is_found_and_settled(alone: LiveService) -> None:
    """Named with user and amount; not held any more, not to be completed; released, or paid again and completed."""
    client = alone.client()
    held = [hold(client, telegram_id) for telegram_id in ("1", "2", "3")]
    alone.stop()
    backs = []
    for purchase in held:
        with earlier.at_work(alone.database) as work:
            earlier.reverse(work, purchase["transaction_id"])
            backs.append(work.tx.execute("SELECT MAX(id) FROM deposit_transactions").fetchone()[0])
    client = alone.start().client()
    assert faults(alone) == [
        f"{purchase['telegram_id']}: purchase {purchase['id']}:"
        f" It is pending, and transaction {back} gave its {PRICE} won back."
        for purchase, back in zip(held, backs, strict=True)
    ]
    assert passbook("integrity", "--quick", "--database", str(alone.database)).returncode == 1
    assert any("price of a purchase" in wrong for wrong in broken_invariants(alone.database))
    for purchase, back in zip(held, backs, strict=True):
        assert money(client, purchase["telegram_id"]) == (PRICE, 0)
        assert client.get(f"/v1/domain-purchases/{purchase['id']}").json()["payment_reversed"] is True
        found = refused(client, f"/v1/domain-purchases/{purchase['id']}/complete")
        assert (found["code"], found["reversed_by_id"]) == ("payment_reversed", back)
    released = client.write(f"/v1/domain-purchases/{held[0]['id']}/release").json()
    assert (released["status"], released["balance_before"], released["balance_after"]) == ("released", PRICE, PRICE)
    for purchase, back, verb, left in zip(held[1:], backs[1:], ("complete", "release"), (0, PRICE), strict=True):
        again = client.write(f"/v1/transactions/{back}/reverse").json()
        assert money(client, purchase["telegram_id"]) == (0, PRICE)
        found = refused(client, f"/v1/transactions/{again['id']}/reverse", {"goodwill": True})
        assert found["code"] == "payment_held"
        assert client.write(f"/v1/domain-purchases/{purchase['id']}/{verb}").status_code == 200
        assert money(client, purchase["telegram_id"]) == (left, 0)
        explained = client.get(f"/v1/users/{purchase['telegram_id']}/balance/explain").json()
        assert (explained["proved"], explained["difference"]) == (True, 0)
    assert faults(alone) == []
    assert broken_invariants(alone.database) == []


def test_a_name_that_was_registered_for_nothing_is_found_and_mended(alone: LiveService) -> None:
    """The one that was completed after its price went back is named; goodwill, which came later, is not."""
    client = alone.client()
    bought, given = hold(client, "1"), hold(client, "2")
    assert client.write(f"/v1/domain-purchases/{given['id']}/complete").status_code == 200
    assert client.write(f"/v1/transactions/{given['transaction_id']}/reverse", {"goodwill": True}).status_code == 201
    alone.stop()
    with earlier.at_work(alone.database) as work:
        earlier.reverse(work, bought["transaction_id"])
        earlier.complete(work, bought["id"])
        back = work.tx.execute("SELECT MAX(id) FROM deposit_transactions").fetchone()[0]
    client = alone.start().client()
    named = [f"1: purchase {bought['id']}: It was registered when transaction {back} had given its {PRICE} won back."]
    assert faults(alone) == named
    assert any("registered when its price was back" in wrong for wrong in broken_invariants(alone.database))
    assert client.write(f"/v1/transactions/{back}/reverse").status_code == 201
    assert (money(client, "1"), faults(alone)) == ((0, 0), [])
    assert broken_invariants(alone.database) == []


def test_the_guides_commands_mend_what_integrity_names(alone: LiveService) -> None:
    """docs/operating.md, typed as it stands: it shows what is printed, and afterwards it adds up."""
    section = (CHECKOUT / "docs/operating.md").read_text("utf-8").partition("### A name whose price went back")[2]
    section = section.partition("\n### ")[0]
    (printed,) = re.findall(r"^```text\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    client = alone.client()
    free, held = hold(client, "123456"), hold(client, "777")
    alone.stop()
    with earlier.at_work(alone.database) as work:
        earlier.reverse(work, free["transaction_id"])
        earlier.complete(work, free["id"])
        earlier.reverse(work, held["transaction_id"])
    client = alone.start().client()
    spent = client.write("/v1/debits", {"telegram_id": "123456", "amount": PRICE, "reason": "another name"})
    assert spent.status_code == 201
    command = ("integrity", "--quick", "--examples", "1000", "--database", str(alone.database))
    told = passbook(*command)
    assert (told.returncode, printed in told.stdout) == (1, True), told.stdout
    answers = []
    for code in re.findall(r"^```sh\n(.*?)^```", section, re.DOTALL | re.MULTILINE):
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", code],
            env={
                **os.environ,
                "URL": alone.url,
                "BACK": "5",
                **dict.fromkeys(("BOT", "OPS", "SERVICE"), alone.admin_key),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        answers.append(ran.stdout)
    assert [('"code":"insufficient_funds"' in answer) for answer in answers] == [False, True, False]
    assert (faults(alone), broken_invariants(alone.database)) == ([], [])
    assert (money(client, "123456"), money(client, "777")) == ((0, 0), (PRICE, 0))


def test_integrity_names_as_many_as_it_is_asked_for(alone: LiveService) -> None:
    """Five, unless told otherwise; the others are counted."""
    client = alone.client()
    held = [hold(client, str(number)) for number in range(1, 8)]
    alone.stop()
    with earlier.at_work(alone.database) as work:
        for purchase in held:
            earlier.reverse(work, purchase["transaction_id"])
    for arguments, named in (((), 5), (("--examples", "6"), 6), (("--examples", "1000"), 7)):
        told = passbook("integrity", "--quick", "--json", *arguments, "--database", str(alone.database))
        assert told.returncode == 1, told.stderr
        (check,) = [check for check in json.loads(told.stdout)["checks"] if check["failed"]]
        assert (check["failed"], len(check["examples"])) == (7, named)


def test_a_proof_tells_goodwill_from_a_free_name_when_the_audit_rows_are_archived(
    alone: LiveService, tmp_path: Path
) -> None:
    """By what is left of the log, or by the times."""
    client = alone.client()
    free, given = hold(client, "1"), hold(client, "2")
    assert client.write(f"/v1/domain-purchases/{given['id']}/complete").status_code == 200
    alone.stop()
    with earlier.at_work(alone.database) as work:
        earlier.reverse(work, free["transaction_id"])
    client = alone.start().client()

    def archive(name: str) -> None:
        now = client.get("/v1/audit-logs?limit=1").json()["items"][0]["created_at"]
        arguments = ("--before", now, "--archive", str(tmp_path / name), "--yes")
        pruned = passbook("audit", "prune", *arguments, "--database", str(alone.database))
        assert pruned.returncode == 0, pruned.stderr

    archive("first.ndjson")
    alone.stop()
    with earlier.at_work(alone.database) as work:
        earlier.complete(work, free["id"])
    client = alone.start().client()
    assert client.write(f"/v1/transactions/{given['transaction_id']}/reverse", {"goodwill": True}).status_code == 201
    client.credit("3", 1)
    named = faults(alone)
    assert [said.partition(": It")[0] for said in named] == [f"1: purchase {free['id']}"]
    archive("second.ndjson")
    client.credit("3", 1)
    assert faults(alone) == named
