"""docs/errors.md and the catalogue are what the code does."""

import ast
import re
from collections import defaultdict
from typing import Any

import pytest

from service.api.problems import CATALOGUE, Problem
from service.ledger import errors
from service.ledger.errors import ErrorCode
from tests.live import CHECKOUT, Client, LiveService, passbook
from tests.some import some

PAGE = (CHECKOUT / "docs" / "errors.md").read_text("utf-8")
COMMON = ("type", "title", "status", "detail", "code", "request_id")
CLASSES = {name: found.code for name, found in vars(errors).items() if hasattr(found, "code")}


def test_the_page_is_what_the_command_prints() -> None:
    """Byte for byte; the code has the words."""
    printed = passbook("errors")
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout == PAGE, "Write docs/errors.md anew: make docs"


def test_every_code_is_in_the_catalogue_and_on_the_page() -> None:
    """Once each, under its status, with its title, remedy and members."""
    assert CATALOGUE.keys() == set(ErrorCode)
    sections = dict(re.findall(r"^## (\d{3}) .*?\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
    for code, kind in some(CATALOGUE.items()):
        rows = [row for row in sections[str(kind.status)].splitlines() if row.startswith(f"| `{code}` |")]
        (row,) = rows
        _, _, what, members, retry, _ = re.split(r" ?\| ?", row)
        assert what == f"{kind.title}. {kind.remedy}"
        assert re.findall(r"`(\w+)`", members) == [*kind.members]
        assert retry == ("yes" if kind.retry else "no")
        unknown = {*re.findall(r"`(\w+)`", kind.remedy)} - {*kind.members, *COMMON}
        assert not unknown, f"the remedy of {code} tells of them"


def test_every_member_is_described() -> None:
    """Each member of a problem document stands in the first table, and belongs to a code."""
    table = re.findall(r"^\| `(\w+)` \| .+ \|$", PAGE.partition("## 400")[0], re.MULTILINE)
    assert [*Problem.__struct_fields__] == table
    used = {name for kind in CATALOGUE.values() for name in kind.members}
    assert used == set(table) - set(COMMON)


def raised() -> dict[ErrorCode, set[str]]:
    """The members that the code gives with each error, by where it is made in the source."""
    found: dict[ErrorCode, set[str]] = defaultdict(set)
    for path in (CHECKOUT / "service").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            codes = [CLASSES[name]] if name in CLASSES else []
            if name == "EdgeError":
                codes = [ErrorCode[arg.attr] for arg in node.args if _is_code(arg)]
            for code in codes:
                found[code] |= {keyword.arg for keyword in node.keywords if keyword.arg} - {"headers", "retry_after_s"}
    return found


def _is_code(node: Any) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ErrorCode"


def test_the_members_are_those_that_the_code_gives() -> None:
    """What an error is made with is in the catalogue; `index` comes on top where a batch can meet it."""
    made = raised()
    assert len(made) > 30
    for code, members in some(made.items()):
        assert members <= set(CATALOGUE[code].members), code
        if code in CLASSES.values():
            assert set(CATALOGUE[code].members) - {"index"} == members, code


@pytest.mark.parametrize("status", sorted({kind.status for kind in CATALOGUE.values()}))
def test_what_can_be_retried_goes_by_the_status(status: int) -> None:
    """503, 429 and 408 can; what the caller did wrong cannot. Of 500, a contradicted log needs people."""
    retried = {code for code, kind in CATALOGUE.items() if kind.status == status and kind.retry}
    every = {code for code, kind in CATALOGUE.items() if kind.status == status}
    expected = {503: every, 429: every, 408: every, 500: {ErrorCode.INTERNAL_ERROR}}
    assert retried == expected.get(status, set())


def _provoked(client: Client) -> list[dict[str, Any]]:
    client.credit("1", 100)
    pending = client.write("/v1/deposits", {"telegram_id": "1", "amount": 5, "depositor_name": "홍"}).json()["id"]
    change = {"telegram_id": "1", "amount": 1, "reason": "x", "reference": "r"}
    assert client.write("/v1/balance-changes", {"changes": [change]}).status_code == 200
    debit = {"telegram_id": "1", "amount": 1000, "reason": "x"}
    assert client.write("/v1/debits", debit, key="k").status_code == 409
    return [
        client.write("/v1/debits", {**debit, "amount": 1}, key="k").json(),
        client.write("/v1/debits", debit).json(),
        client.write("/v1/debits", {**debit, "telegram_id": "2"}).json(),
        client.write("/v1/debits", b"{").json(),
        client.write("/v1/debits", {}).json(),
        client.write("/v1/balance-changes", {"changes": [change]}).json(),
        client.write("/v1/balance-changes", {"changes": [{**change, "amount": -1000, "reference": "s"}]}).json(),
        client.write(f"/v1/transactions/{pending}/reverse").json(),
        client.write("/v1/transactions/1/reverse", {}, **{"Content-Type": "text/plain"}).json(),
        client.get("/nothing").json(),
        client.get("/v1/users/1", headers={"Authorization": "Bearer x"}).json(),
    ]


def test_answers_have_the_members_of_their_code(service: LiveService) -> None:
    """Of a running service: the type is the code's name, and beyond the six nothing that the page does not list."""
    answers = _provoked(service.client())
    assert len({answer["code"] for answer in answers}) > 8
    for answer in some(answers):
        kind = CATALOGUE[ErrorCode(answer["code"])]
        assert answer["type"] == f"urn:passbook:problem:{answer['code']}"
        assert (answer["status"], answer["title"]) == (kind.status, kind.title)
        extra = answer.keys() - set(COMMON)
        assert extra <= set(kind.members), answer
        assert extra >= set(kind.members) - {"index"}, answer
