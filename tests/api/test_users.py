"""Users, their balance and their passbook."""

import itertools

from tests.contents import contents
from tests.live import LiveService


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
    """The old and the new name are on record."""
    client = service.client()
    client.write("/v1/users", {"telegram_id": "2002", "username": "old"})
    renamed = client.write("/v1/users", {"telegram_id": "2002", "username": "new"})
    assert (renamed.status_code, renamed.json()["username"]) == (200, "new")
    row = client.get(f"/v1/audit-logs/{renamed.json()['audit_log_id']}").json()
    assert row["details"] == {"username_before": "old", "username_after": "new"}


def test_null_and_absent_names_change_nothing(service: LiveService) -> None:
    """A name is replaced only by a name."""
    client = service.client()
    client.write("/v1/users", {"telegram_id": "2003", "username": "stays"})
    for body in ({"telegram_id": "2003"}, {"telegram_id": "2003", "username": None}):
        assert client.write("/v1/users", body).json()["username"] == "stays"


def test_ids_with_and_without_leading_zeros_are_two_users(service: LiveService) -> None:
    """A telegram id is text; nobody gets another's money by a zero."""
    client = service.client()
    client.credit("2004", 500)
    client.write("/v1/users", {"telegram_id": "02004"})
    assert client.get("/v1/users/02004/balance").json()["balance"] == 0


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
    for newer, older in itertools.pairwise(lines):
        assert newer["balance_before"] == older["balance_after"]
    assert client.get("/v1/users/2005/balance").json()["balance"] == lines[0]["balance_after"] == 450
