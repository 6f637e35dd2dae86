"""One bank line told again over real HTTP: by a retry, by two watchers, better, after an erasure and a takeover."""

import itertools
import sqlite3
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from service.ledger.bank_lines import BankFacts, derived_id
from tests.ledger_check import broken_invariants
from tests.live import Client, LiveService, passbook
from tests.some import some

AMOUNTS: Iterator[int] = itertools.count(88_000_000, 1000)
ACCOUNT = "427******27104"
PATH = "/v1/bank-notifications"


@pytest.fixture
def client(service: LiveService) -> Client:
    return service.client()


def minute(ago: int = 10) -> str:
    """The beginning of a minute in Korea's time, some minutes ago."""
    return (datetime.now(UTC) + timedelta(hours=9, minutes=-ago)).strftime("%Y-%m-%dT%H:%M")


def line(amount: int, name: str | None = "홍길동", *, at: str | None = None, **more: Any) -> dict[str, Any]:
    return {"depositor_name": name, "amount": amount, "occurred_at": at or f"{minute()}:00+09:00", **more}


def tell(client: Client, body: dict[str, Any]) -> httpx.Response:
    answer = client.write(PATH, body)
    assert answer.status_code in {200, 201}, answer.json()
    assert answer.json()["repeat"] is (answer.status_code == 200)
    return answer


def announce(client: Client, amount: int, user: str = "8801", name: str = "홍길동") -> dict[str, Any]:
    made: dict[str, Any] = client.write(
        "/v1/deposits", {"telegram_id": user, "amount": amount, "depositor_name": name}
    ).json()
    return made


def status_of(client: Client, deposit: dict[str, Any]) -> str:
    return str(client.get(f"/v1/deposits/{deposit['id']}").json()["status"])


def lines_of(service: LiveService, amount: int) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(service.database)) as database:
        return database.execute("SELECT id FROM bank_notifications WHERE amount = ?", (amount,)).fetchall()


def test_a_line_without_an_id_has_the_one_that_the_document_derives(client: Client) -> None:
    """The first answer is 201 and tells the id; a retry under any key is 200, `repeat`, and adds no row to the log."""
    amount, at = next(AMOUNTS), f"{minute()}:00+09:00"
    first = tell(client, line(amount, at=at)).json()
    facts = BankFacts(bank_transaction_id=None, depositor_name="홍길동", amount=amount, occurred_at=at)
    assert (first["bank_transaction_id"], first["repeat"]) == (derived_id(facts), False)
    for body in (line(amount, at=at), line(amount, at=at, bank_transaction_id=None, account=None, balance_after=None)):
        again = tell(client, body)
        assert again.status_code == 200
        assert again.json() == {**first, "audit_log_id": None, "repeat": True}


def variants(amount: int, at: str) -> list[dict[str, Any]]:
    """One transfer as watchers may tell it, without an id."""
    return [
        line(amount, at=f"{at}:00+09:00"),
        line(amount, at=f"{at}:42.5+09:00"),
        line(amount, f" {unicodedata.normalize('NFD', '홍 길동')}\0\0", at=f"{at}:00+09:00", bank_name="하나"),
        line(amount, at=f"{at}:00+09:00", account=ACCOUNT, raw_message="하나 1"),
        line(amount, at=f"{at}:00+09:00", balance_after=-7),
        line(amount, at=f"{at}:00+09:00", account="427-***-104", balance_after=-7),
    ]


def test_one_transfer_is_one_line_in_whatever_order_it_is_told(client: Client, service: LiveService) -> None:
    """Of two deposits that are announced one alone is confirmed, whichever watcher tells of the money first."""
    for order in some(list(itertools.permutations(range(6), 4))[::23]):
        amount = next(AMOUNTS)
        deposits = [announce(client, amount) for _ in range(2)]
        told = [variants(amount, minute())[place] for place in order]
        answers = [tell(client, body) for body in (*told, *told)]
        assert [answer.status_code for answer in answers] == [201] + [200] * 7, order
        assert {answer.json()["id"] for answer in answers} == set(lines_of(service, amount)[0]), order
        assert len(lines_of(service, amount)) == 1, order
        assert [status_of(client, one) for one in deposits] == ["confirmed", "pending"], order
        # Told once more, nothing of it is new.
        assert [answer.json()["audit_log_id"] for answer in answers[4:]] == [None] * 4, order


@pytest.mark.parametrize("first_has_an_id", [False, True])
def test_two_watchers_of_one_bank_credit_once(client: Client, service: LiveService, first_has_an_id: bool) -> None:
    """One has the bank's ids, the other has none. The id's line after the other waits for a person, who alone knows
    whether it is the same money; it is never taken by an announcement after it."""
    amount = next(AMOUNTS)
    deposits = [announce(client, amount) for _ in range(2)]
    own = line(amount, bank_transaction_id=f"거래 {amount}", account=ACCOUNT, balance_after=5)
    told = [own, line(amount)] if first_has_an_id else [line(amount), own]
    first, second = (tell(client, body) for body in told)
    assert first.json()["matched_deposit_id"] == deposits[0]["id"]
    if first_has_an_id:
        assert (second.status_code, second.json()["id"]) == (200, first.json()["id"])
    else:
        assert (second.status_code, second.json()["status"]) == (201, "ambiguous")
    assert announce(client, amount)["status"] == "pending"
    assert status_of(client, deposits[1]) == "pending"
    assert tell(client, own).json()["id"] == (first if first_has_an_id else second).json()["id"]
    assert len(lines_of(service, amount)) == (1 if first_has_an_id else 2)


def test_a_line_that_waits_is_not_taken_once_another_line_told_its_money(client: Client) -> None:
    """A person gives the deposit to the line with an id; the one without is the same money, and an announcement after
    it takes neither."""
    amount = next(AMOUNTS)
    waiting = tell(client, line(amount)).json()
    own = tell(client, line(amount, bank_transaction_id=f"own-{amount}")).json()
    assert (waiting["status"], own["status"]) == ("unmatched", "ambiguous")
    announced = announce(client, amount)
    settled = client.write(f"{PATH}/{own['id']}/match", {"deposit_id": announced["id"]}).json()
    assert (announced["status"], settled["status"]) == ("pending", "matched")
    assert announce(client, amount)["status"] == "pending"
    assert client.get(f"{PATH}/{waiting['id']}").json()["status"] == "unmatched"


@pytest.mark.parametrize(
    "other",
    [
        {"balance_after": 100_001},
        {"account": "428******27104"},
        {"at": f"{minute(11)}:59.999+09:00"},
        {"name": "홍길순"},
    ],
)
def test_other_money_is_another_line(client: Client, service: LiveService, other: dict[str, Any]) -> None:
    """Another balance, account, minute or name: two transfers, and each confirms a deposit."""
    amount = next(AMOUNTS)
    deposits = [announce(client, amount, name=name) for name in ("홍길동", other.get("name", "홍길동"))]
    one = {"account": ACCOUNT, "balance_after": 100_000, "at": f"{minute(10)}:00+09:00"}
    told = [tell(client, line(amount, **{**one, **more})) for more in ({}, other)]
    assert [answer.status_code for answer in told] == [201, 201]
    assert [status_of(client, deposit) for deposit in deposits] == ["confirmed", "confirmed"]
    assert len(lines_of(service, amount)) == 2


@pytest.mark.parametrize("own_id", [None, "같은 거래"])
def test_equal_posts_at_once_are_one_line(service: LiveService, own_id: str | None) -> None:
    """Sixteen connections, each with its own Idempotency-Key: one answers 201, all others 200, one deposit is paid."""
    client, amount = service.client(), next(AMOUNTS)
    deposits = [announce(client, amount) for _ in range(3)]
    body = line(amount, bank_transaction_id=own_id and f"{own_id} {amount}")
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: tell(service.client(), body), range(16)))
    assert sorted(answer.status_code for answer in answers) == [200] * 15 + [201]
    assert len({answer.json()["id"] for answer in answers}) == len(lines_of(service, amount)) == 1
    assert [status_of(client, one) for one in deposits] == ["confirmed", "pending", "pending"]


def test_what_is_told_later_stands_beside_the_line(client: Client, service: LiveService) -> None:
    """The line keeps what it said; an event and an audit row say what was added, by whom, and nothing twice."""
    amount = next(AMOUNTS)
    at, account = minute(), f"66-{amount}"
    made = tell(client, line(amount, at=f"{at}:00+09:00", bank_transaction_id=f"b-{amount}")).json()
    better = line(
        amount,
        "홍 길동",
        at=f"{at}:30+09:00",
        bank_transaction_id=f"b-{amount}",
        bank_name="하나",
        account=account,
        balance_after=0,
        raw_message="[Web발신]\n하나",
    )
    told = tell(client, better).json()
    assert told["audit_log_id"] is not None
    assert told == {**made, "audit_log_id": told["audit_log_id"], "repeat": True}
    read = client.get(f"{PATH}/{made['id']}").json()
    assert read == {name: made[name] for name in read}
    (row,) = client.get(
        "/v1/audit-logs", params={"action": "bank_notification_told", "resource_id": made["id"]}
    ).json()["items"]
    assert row["id"] == told["audit_log_id"]
    details = dict(row["details"])
    with closing(sqlite3.connect(service.database)) as database:
        events = database.execute(
            "SELECT id, kind, transaction_time, bank_name, depositor_name, account, balance_after, raw_message, actor"
            " FROM bank_notification_events WHERE bank_notification_id = ?",
            (made["id"],),
        ).fetchall()
    seconds = datetime.fromisoformat(f"{at}:30+09:00").astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    assert events == [
        (details["event_id"], "told", seconds, "하나", "홍 길동", account, 0, "[Web발신]\n하나", "first-admin")
    ]
    assert (details["depositor_name"], details["account"], details["bank_balance_after"]) == ("홍 길동", account, 0)
    assert details["occurred_at"] == seconds.replace(" ", "T") + "Z"
    assert tell(client, better).json()["audit_log_id"] is None
    refused = client.write(PATH, {**better, "account": "428******27104", "balance_after": 1, "bank_name": "KB"})
    assert (refused.status_code, refused.json()["differing_fields"]) == (409, ["bank_name", "account", "balance_after"])


def test_an_addition_that_is_changed_by_hand_is_found(own_service: LiveService) -> None:
    """Each column of the event by itself, around the triggers: the ledger no longer adds up, and says where."""
    client = own_service.start().client()
    body = line(5000, at=f"{minute()}:00+09:00", bank_transaction_id="KB-1")
    tell(client, body)
    better = {
        "account": ACCOUNT,
        "balance_after": 7,
        "bank_name": "하나",
        "raw_message": "하나",
        "depositor_name": "홍 길동",
    }
    assert tell(client, {**body, **better, "occurred_at": f"{body['occurred_at'][:17]}42+09:00"}).status_code == 200
    assert client.get("/v1/integrity?max_age=PT0S").json()["status"] == "sound"
    assert own_service.stop() == 0
    with closing(sqlite3.connect(own_service.database)) as database:
        (trigger,) = database.execute(
            "SELECT sql FROM sqlite_master WHERE name = 'bank_notification_events_refuse_update'"
        ).fetchone()
    columns = ("transaction_time", "bank_name", "depositor_name", "account", "balance_after", "raw_message")
    for place, column in enumerate(columns):
        value = f"(SELECT {column} || '1' FROM bank_notification_events)" if place % 2 else "NULL"
        with closing(sqlite3.connect(own_service.database)) as database:
            was = database.execute(f"SELECT {column} FROM bank_notification_events").fetchone()
            database.execute("DROP TRIGGER bank_notification_events_refuse_update")
            database.execute(f"UPDATE bank_notification_events SET {column} = {value}")
            database.execute(trigger)
            database.commit()
        said = passbook("integrity", "--database", str(own_service.database))
        assert said.returncode == 1, (column, value, said)
        assert "Its audit row tells that something else was added." in said.stdout, (column, value, said)
        with closing(sqlite3.connect(own_service.database)) as database:
            database.execute("DROP TRIGGER bank_notification_events_refuse_update")
            database.execute(f"UPDATE bank_notification_events SET {column} = ?", was)
            database.execute(trigger)
            database.commit()


def test_a_line_without_a_name_waits_for_a_person(client: Client) -> None:
    """Left out, null, empty, padding alone: one line, which means nobody, lists the open deposits of the amount, and is
    settled by hand; nothing is learned of it."""
    amount = next(AMOUNTS)
    announced = announce(client, amount)
    body = line(amount)
    nameless = [{**body, "depositor_name": name} for name in (None, "", "\0\0", " \t\u3000")]
    nameless.append({name: value for name, value in body.items() if name != "depositor_name"})
    answers = [tell(client, one) for one in nameless]
    assert [answer.status_code for answer in answers] == [201, 200, 200, 200, 200]
    made = answers[0].json()
    assert (made["depositor_name"], made["status"]) == ("", "unmatched")
    assert [(one["deposit_id"], one["likeness"]) for one in made["candidates"]] == [(announced["id"], "same_amount")]
    assert announce(client, amount, "8802", "김철수")["status"] == "pending"
    settled = client.write(f"{PATH}/{made['id']}/match", {"deposit_id": announced["id"], "remember": True}).json()
    assert (settled["status"], settled["learned_name_id"]) == ("matched", None)
    # The name of a line that had none is told later: that money is not credited again.
    other = tell(client, line(next(AMOUNTS), "", bank_transaction_id=f"n-{amount}")).json()
    waiting = announce(client, other["amount"])
    named = line(other["amount"], "홍길동", at=other["occurred_at"], bank_transaction_id=f"n-{amount}")
    assert tell(client, named).json()["status"] == "unmatched"
    assert status_of(client, waiting) == "pending"


def test_a_gap_in_the_balances_of_an_account_is_told(client: Client) -> None:
    """A line that does not begin with the balance of an earlier one; the missing line, told late, closes the gap."""
    account, amount = f"55-{next(AMOUNTS)}", next(AMOUNTS)

    def told(ago: int, balance: int | None, name: str = "홍길동", **more: Any) -> dict[str, Any]:
        body = line(amount, name, at=f"{minute(ago)}:00+09:00", account=account, balance_after=balance, **more)
        answer: dict[str, Any] = tell(client, body).json()
        assert client.get(f"{PATH}/{answer['id']}").json()["balance_gap"] is answer["balance_gap"]
        return answer

    assert [told(30, amount)["balance_gap"], told(29, 2 * amount)["balance_gap"]] == [False, False]
    gap = told(20, 4 * amount)
    assert gap["balance_gap"] is True
    assert told(19, None)["balance_gap"] is False
    listed = {one["id"]: one["balance_gap"] for one in client.get(PATH, params={"limit": 5}).json()["items"]}
    assert listed[gap["id"]] is True
    # A later line that ends with that balance is not the missing one; the missing one is.
    told(10, 3 * amount, "다른 사람")
    assert client.get(f"{PATH}/{gap['id']}").json()["balance_gap"] is True
    missing = told(25, None, "빠진 사람")
    assert client.get(f"{PATH}/{gap['id']}").json()["balance_gap"] is True
    tell(client, line(amount, "빠진 사람", at=missing["occurred_at"], account=account, balance_after=3 * amount))
    assert client.get(f"{PATH}/{gap['id']}").json()["balance_gap"] is False
    # Another account has balances of its own.
    other = line(amount, at=f"{minute(5)}:00+09:00", account=account + "1", balance_after=99 * amount)
    assert tell(client, other).json()["balance_gap"] is False


def test_an_erased_line_told_again_is_credited_to_nobody(own_service: LiveService) -> None:
    """Its id is found again. Told better it cannot be recognised, and waits; names and messages are not kept again."""
    client = own_service.start().client()
    announce(client, 5000)
    body = line(5000, raw_message="홍길동 5,000")
    first = tell(client, body).json()
    assert first["status"] == "matched"
    tell(client, {**body, "depositor_name": "홍 길 동", "raw_message": "하나 홍길동"})
    assert client.get("/v1/integrity?max_age=PT0S").json()["status"] == "sound"
    assert own_service.stop() == 0
    erased = passbook("users", "erase", "8801", "--yes", "--force", "--database", str(own_service.database))
    assert erased.returncode == 0, erased.stderr
    client = own_service.start().client()
    another = announce(client, 5000, "8802")
    for again in (body, {**body, "account": ACCOUNT}):
        told = tell(client, again).json()
        if told["repeat"]:
            assert (told["id"], told["depositor_name"], told["raw_message"]) == (first["id"], None, None)
        else:
            assert told["status"] == "ambiguous"
    assert status_of(client, another) == "pending"
    with closing(sqlite3.connect(own_service.database)) as database:
        kept = database.execute(
            "SELECT depositor_name, raw_message FROM bank_notification_events WHERE bank_notification_id = ?",
            (first["id"],),
        ).fetchall()
    assert kept == [(None, None)]
    assert client.get("/v1/integrity?max_age=PT0S").json()["status"] == "sound"
    assert own_service.stop() == 0
    assert broken_invariants(own_service.database) == []


def test_money_that_the_bot_had_booked_is_not_credited_again(own_service: LiveService) -> None:
    """The watcher sends the bot's last lines again, without ids: each is the bot's own line. One whose name the bot did
    not keep may be it, and waits for a person."""
    database = str(own_service.database)
    assert passbook("migrate", "up", "--to", "1", "--database", database).returncode == 0
    at = (datetime.now(UTC) - timedelta(minutes=10)).strftime("%Y-%m-%d %H:%M:00")
    with closing(sqlite3.connect(database)) as bot, bot:
        bot.execute("INSERT INTO users (telegram_id) VALUES ('8801')")
        bot.execute("INSERT INTO user_deposits (user_id, balance) VALUES (1, 5000)")
        bot.execute(
            "INSERT INTO deposit_transactions (user_id, type, amount, status, depositor_name, created_at, confirmed_at)"
            " VALUES (1, 'deposit', 5000, 'confirmed', '길동이네', ?, ?)",
            (at, at),
        )
        bot.executemany(
            "INSERT INTO bank_notifications (depositor_name, amount, balance_after, transaction_time,"
            " matched_transaction_id) VALUES (?, ?, ?, ?, ?)",
            [("홍 길동", 5000, None, at, 1), ("홍길동", 6000, 70, at, None), (None, 7000, None, at, None)],
        )
    assert passbook("migrate", "up", "--database", database).returncode == 0
    made = passbook("keys", "create", "--name", "a", "--role", "admin", "--database", database)
    own_service.admin_key = made.stdout.strip()
    client = own_service.start().client()
    deposits = [announce(client, amount) for amount in (5000, 6000, 6000, 7000)]
    occurred_at = f"{at.replace(' ', 'T')}Z"
    repeated = [tell(client, line(amount, at=occurred_at)) for amount in (5000, 6000)]
    assert [(one.status_code, one.json()["id"]) for one in repeated] == [(200, 1), (200, 2)]
    assert tell(client, line(7000, at=occurred_at)).json()["status"] == "ambiguous"
    assert tell(client, line(6000, at=occurred_at, bank_transaction_id="KB-1")).json()["status"] == "ambiguous"
    assert [status_of(client, one) for one in deposits] == ["pending"] * 4
    # Another balance is other money.
    other = tell(client, line(6000, at=occurred_at, balance_after=71)).json()
    assert (other["status"], [status_of(client, one) for one in deposits[1:3]]) == ("ambiguous", ["pending"] * 2)
    assert client.get("/v1/integrity?max_age=PT0S").json()["status"] == "sound"
    assert own_service.stop() == 0
