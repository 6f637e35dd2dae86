"""What users announce and banks print, case by case, with what a person expects. Over HTTP, each of its own amount."""

import itertools
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.live import Client, LiveService

MATCH, CANDIDATE, AMBIGUOUS = "match", "candidate", "ambiguous"
AMOUNTS: Iterator[int] = itertools.count(77_000_000)
CASES: list[tuple[tuple[str, ...], tuple[str, ...], str]] = [
    (
        ("홍길동",),
        ("홍 길 동", "홍길동 ", "홍길동\u3000", "홍\u3000길동", unicodedata.normalize("NFD", "홍길동"), "홍\u200b길동"),
        MATCH,
    ),
    (("ＨＯＮＧ",), ("HONG", "hong", "Ｈong"), MATCH),
    (("Hong Gildong",), ("HONG GIL DONG", "ＨＯＮＧ　ＧＩＬＤＯＮＧ"), MATCH),
    (("(주)가나",), ("（주）가나", "㈜가나", "㈜ 가나"), MATCH),
    (("㈜가나",), ("(주)가나", "（주）가나"), MATCH),
    (("ｶﾅ",), ("カナ",), MATCH),
    (("ガ",), ("ｶﾞ", "カ\u3099"), MATCH),
    (("李小龍",), ("\uf9e1小龍",), MATCH),
    (("１２３가게",), ("123가게", "①②③가게"), MATCH),
    (("주식회사코딩하는사람들",), ("주식회사코딩하", "주식회사 코딩"), MATCH),
    (("㈜코딩하는사람들",), ("(주)코딩하는사",), MATCH),
    (("홍길동5678", "홍길동"), ("홍길동",), AMBIGUOUS),
    (("주식회사가나다", "주식회사가나다라마바"), ("주식회사가나다",), AMBIGUOUS),
    (("홍길동", "홍길동"), ("홍길동", "홍 길동"), AMBIGUOUS),
    (("ＨＯＮＧ", "Hong"), ("hong",), AMBIGUOUS),
    (("㈜한빛", "(주)한빛"), ("（주）한빛",), AMBIGUOUS),
    (("김철수",), ("김철",), CANDIDATE),
    (("Michael Kim",), ("Michael",), CANDIDATE),
    (("김철수", "김철"), ("김철수",), MATCH),
    (
        ("홍길동",),
        ("홍길동(국민)", "홍길동-토스", "토스 홍길동", "국민홍길동", "홍길동님", "홍길동1234", "홍길동/카카오"),
        CANDIDATE,
    ),
    (("(주)철수상사",), ("주)철수상사", "주식회사철수상사", "철수상사"), CANDIDATE),
    (("홍길동",), ("홍*동",), CANDIDATE),
    (("Hong Gil-dong",), ("HONG GILDONG",), CANDIDATE),
    (("Hong, Gildong",), ("HONG GILDONG",), CANDIDATE),
    (("Gildong Hong",), ("HONG GILDONG",), CANDIDATE),
    (("홍길동",), ("카카오뱅크",), CANDIDATE),
    (("홍길동",), ("홍길동\0\0", "홍길동\t", "\0\t 홍길동 \t\0\u3000"), MATCH),
    (("홍길동",), ("", "\0\0", " \t\u3000"), CANDIDATE),
]
"""Announced, each by a user of its own -> printed, each by itself -> what becomes of the first one."""


@pytest.fixture
def client(service: LiveService) -> Client:
    """A caller that may do everything."""
    return service.client()


def outcome(client: Client, names: tuple[str, ...], printed: str) -> str:
    """What a line becomes that is told of after the announcements; the refusal where it is none."""
    amount = next(AMOUNTS)
    made = [
        client.write("/v1/deposits", {"telegram_id": f"77{place}", "amount": amount, "depositor_name": name}).json()
        for place, name in enumerate(names)
    ]
    line: dict[str, Any] = {
        "bank_transaction_id": f"lines-{amount}",
        "depositor_name": printed,
        "amount": amount,
        "occurred_at": datetime.now(UTC).isoformat(),
    }
    told = client.write("/v1/bank-notifications", line).json()
    if "code" in told:
        return str(told["code"])
    listed = [candidate["deposit_id"] for candidate in told["candidates"]]
    if told["status"] == "matched":
        return MATCH if told["matched_deposit_id"] == made[0]["id"] else "another is matched"
    if told["status"] == "ambiguous":
        return AMBIGUOUS if {deposit["id"] for deposit in made} <= set(listed) else "not all are listed"
    return CANDIDATE if listed[:1] == [made[0]["id"]] else "it is not the first candidate"


@pytest.mark.parametrize(
    ("names", "printed", "expected"),
    [(names, printed, expected) for names, every, expected in CASES for printed in every],
)
def test_a_line_becomes_what_a_person_expects(
    client: Client, names: tuple[str, ...], printed: str, expected: str
) -> None:
    """Matched at once with the first announced, ambiguous with all of them listed, or that one the first candidate."""
    assert outcome(client, names, printed) == expected


def test_of_one_users_equal_deposits_the_older_is_matched(client: Client) -> None:
    """Announced twice, printed twice: first the older one, then the other."""
    amount = next(AMOUNTS)
    deposit = {"telegram_id": "7790", "amount": amount, "depositor_name": "홍길동"}
    made = [client.write("/v1/deposits", deposit).json()["id"] for _ in range(2)]
    line = {"depositor_name": "홍길동", "amount": amount, "occurred_at": datetime.now(UTC).isoformat()}
    told = [client.write("/v1/bank-notifications", {**line, "bank_transaction_id": f"t-{amount}-{n}"}) for n in "ab"]
    assert [one.json()["matched_deposit_id"] for one in told] == made


def test_a_name_that_a_person_settled_once_is_matched_the_next_time(client: Client) -> None:
    """Another name than was announced: a candidate at first, and with "remember" the user's from then on."""
    deposit = {"telegram_id": "7791", "depositor_name": "홍길동"}
    line = {"depositor_name": "길동이네", "occurred_at": datetime.now(UTC).isoformat()}
    told = []
    for number in "ab":
        amount = next(AMOUNTS)
        made = client.write("/v1/deposits", {**deposit, "amount": amount}).json()["id"]
        body = {**line, "amount": amount, "bank_transaction_id": f"learned-{amount}-{number}"}
        told.append(client.write("/v1/bank-notifications", body).json())
        if number == "a":
            assert (told[0]["status"], [one["deposit_id"] for one in told[0]["candidates"]]) == ("unmatched", [made])
            match = {"deposit_id": made, "remember": True}
            settled = client.write(f"/v1/bank-notifications/{told[0]['id']}/match", match).json()
    assert (told[1]["status"], told[1]["matched_deposit_id"]) == ("matched", made)
    forgotten = client.delete(
        f"/v1/learned-names/{settled['learned_name_id']}", headers={"Idempotency-Key": f"forget-{made}"}
    )
    assert forgotten.status_code == 200
