"""Users, their balance and their passbook."""

import contextlib
import itertools
import json
import sqlite3
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.contents import contents
from tests.live import CHECKOUT, LiveService, passbook
from tests.some import some
from tests.storage.broken import by_hand


def test_a_user_is_made_once_and_returned_after(service: LiveService) -> None:
    """201 with an audit row, then 200 without one: nothing changed."""
    client = service.client()
    made = client.write("/v1/users", {"telegram_id": "2001", "username": "gildong"})
    assert (made.status_code, made.headers["Location"]) == (201, "/v1/users/2001")
    assert (made.json()["balance_after"], made.json()["version"]) == (0, 0)
    again = client.write("/v1/users", {"telegram_id": "2001"})
    assert (again.status_code, again.json()["username"], again.json()["audit_log_id"]) == (200, "gildong", None)
    assert client.get("/v1/users/2001").json()["username"] == "gildong"
    rows = client.get("/v1/audit-logs?telegram_id=2001").json()["items"]
    assert [row["action"] for row in rows] == ["user_created"]


def test_another_name_is_taken_over_and_audited(service: LiveService) -> None:
    """The old and the new name are on record; the name that is there already changes nothing."""
    client = service.client()
    client.write("/v1/users", {"telegram_id": "2002", "username": "old"})
    renamed = client.write("/v1/users", {"telegram_id": "2002", "username": "new"})
    assert (renamed.status_code, renamed.json()["username"]) == (200, "new")
    row = client.get(f"/v1/audit-logs/{renamed.json()['audit_log_id']}").json()
    assert row["details"] == {"username_before": "old", "username_after": "new"}
    again = client.write("/v1/users", {"telegram_id": "2002", "username": "new"})
    assert (again.status_code, again.json()["audit_log_id"]) == (200, None)
    rows = client.get("/v1/audit-logs", params={"telegram_id": "2002", "action": "user_renamed"}).json()["items"]
    assert len(rows) == 1, "the name that is there already is no change"


def test_null_and_absent_names_change_nothing(service: LiveService) -> None:
    """A name is replaced only by a name."""
    client = service.client()
    client.write("/v1/users", {"telegram_id": "2003", "username": "stays"})
    for body in ({"telegram_id": "2003"}, {"telegram_id": "2003", "username": None}):
        assert client.write("/v1/users", body).json()["username"] == "stays"


DOORS: dict[str, tuple[str, str, Callable[[str], dict[str, Any]]]] = {
    "a user": ("/v1/users", "#/telegram_id", lambda user: {"telegram_id": user}),
    "a deposit": (
        "/v1/deposits",
        "#/telegram_id",
        lambda user: {"telegram_id": user, "amount": 5, "depositor_name": "홍길동"},
    ),
    **{
        f"a change, atomic {atomic}": (
            "/v1/balance-changes",
            "#/changes/1/telegram_id",
            lambda user, atomic=atomic: {  # type: ignore[misc]
                "changes": [
                    {"telegram_id": owner, "amount": 5, "reason": "x", "reference": str(uuid.uuid4())}
                    for owner in ("2004", user)
                ],
                "atomic": atomic,
            },
        )
        for atomic in (True, False)
    },
}
"""What makes a user who is not there: path, pointer and body for a telegram id."""


@pytest.mark.parametrize("telegram_id", ["0", "02004", "007", "00000000000000000000"])
@pytest.mark.parametrize("door", DOORS)
def test_no_new_user_begins_with_a_zero(service: LiveService, door: str, telegram_id: str) -> None:
    """400 with the member, from every door that makes users; nothing is done and nothing is on record."""
    client = service.client()
    client.write("/v1/users", {"telegram_id": "2004"})
    path, pointer, body = DOORS[door]
    before = contents(service.database)
    for _ in range(2):
        answer = client.write(path, body(telegram_id), key=f"padded-{path.replace('/', '-')}-{telegram_id}")
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), answer.text
        assert answer.json()["errors"][0]["pointer"] == pointer
    assert contents(service.database) == before
    assert client.get(f"/v1/users/{telegram_id}").status_code == 404
    debit = client.write("/v1/debits", {"telegram_id": telegram_id, "amount": 1, "reason": "x"})
    assert debit.status_code == 404


def test_a_user_who_was_taken_over_with_zeros_stays_reachable(tmp_path: Path) -> None:
    """Told by the import; read, credited, debited and renamed as ever, and not taken for the one without zeros."""
    old = tmp_path / "old.db"
    with contextlib.closing(sqlite3.connect(old)) as bots:
        bots.executescript((CHECKOUT / "migrations" / "000_baseline.sql").read_text("utf-8"))
        for number, telegram_id in enumerate(("00123", "123", "0"), start=1):
            bots.execute("INSERT INTO users (id, telegram_id) VALUES (?, ?)", (number, telegram_id))
            bots.execute("INSERT INTO user_deposits (user_id, balance) VALUES (?, ?)", (number, 100 * number))
        bots.commit()
    found = tmp_path / "found.ndjson"
    database = tmp_path / "passbook.db"
    imported = passbook("import", str(old), "--database", str(database), "--report", str(found))
    assert imported.returncode == 0, imported.stderr
    assert "users whose telegram_id begins with 0: 2 (00123, 0)" in imported.stdout
    rows = [json.loads(line) for line in found.read_text("utf-8").splitlines()]
    named = [(row["row"], row["value"]) for row in rows if row["kind"] == "padded_telegram_id"]
    assert named == [(1, "00123"), (3, "0")]
    service = LiveService(database).start()
    try:
        client = service.client()
        for telegram_id in ("00123", "0"):
            for path, _, body in DOORS.values():
                answer = client.write(path, body(telegram_id))
                assert answer.status_code in {200, 201}, answer.text
            client.credit(telegram_id, 50)
            debit = client.write("/v1/debits", {"telegram_id": telegram_id, "amount": 1, "reason": "x"})
            assert debit.status_code == 201
            named = client.write("/v1/users", {"telegram_id": telegram_id, "username": f"n{telegram_id}"})
            assert named.status_code == 200
        balances = [client.get(f"/v1/users/{name}/balance").json()["balance"] for name in ("00123", "123", "0")]
        assert balances == [100 + 10 + 50 - 1, 200, 300 + 10 + 50 - 1]
        assert client.write("/v1/users", {"telegram_id": "0123"}).status_code == 400
    finally:
        assert service.stop() == 0, service.said


def test_a_user_who_was_made_with_zeros_keeps_the_answer_after_an_erasure(tmp_path: Path) -> None:
    """A retry is told what became of it, not that its body is wrong; a new request is."""
    service = LiveService(tmp_path / "passbook.db").start()
    client = service.client()
    body = {"telegram_id": "7", "username": "kim"}
    assert client.write("/v1/users", body, key="once").status_code == 201
    key = client.headers["Authorization"].removeprefix("Bearer ")
    assert service.stop() == 0
    by_hand(
        service.database,
        "UPDATE users SET telegram_id = '007' WHERE telegram_id = '7';"
        "UPDATE idempotency_answers SET request = replace(request, '\"7\"', '\"007\"');",
    )
    client = service.start().client(key)
    body = {**body, "telegram_id": "007"}
    assert client.write("/v1/users", body, key="once").status_code == 201
    assert passbook("users", "erase", "007", "--yes", "--database", str(service.database)).returncode == 0
    again = client.write("/v1/users", body, key="once")
    assert (again.status_code, again.json()["code"]) == (409, "answer_erased")
    assert client.write("/v1/users", body).status_code == 400
    assert service.stop() == 0


def test_an_unknown_user_is_404_everywhere_and_not_made_by_reading(service: LiveService) -> None:
    """Reading leaves no trace."""
    client = service.client()
    before = contents(service.database)
    for tail in ("", "/balance", "/transactions"):
        answer = client.get(f"/v1/users/2999{tail}")
        assert (answer.status_code, answer.json()["code"]) == (404, "user_not_found")
    assert contents(service.database) == before


def test_the_passbook_pages_without_gap_or_repeat(service: LiveService) -> None:
    """Newest first, each line once, each balance continuing the one below it."""
    client = service.client()
    for amount in (100, 200, 300):
        client.credit("2005", amount)
        client.write("/v1/debits", {"telegram_id": "2005", "amount": 50, "reason": "fee"})
    lines, path = [], "/v1/users/2005/transactions?limit=4"
    while path:
        page = client.get(path)
        lines += page.json()["items"]
        path = page.headers.get("Link", "").partition(">")[0].lstrip("<")
    assert [line["version"] for line in lines] == [6, 5, 4, 3, 2, 1]
    for newer, older in some(itertools.pairwise(lines)):
        assert newer["balance_before"] == older["balance_after"]
    assert client.get("/v1/users/2005/balance").json()["balance"] == lines[0]["balance_after"] == 450
