"""Every number and every text that a request may hold, at its bounds and one beyond, by the contract alone.

The members come from the OpenAPI document: a new one is asked for here without a line more, or fails for want of it.
"""

import csv
import io
import itertools
import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from service.app import create_app
from service.config import Config
from tests.contract.scenes import REQUESTS, Scene
from tests.live import passbook
from tests.some import some
from tests.stateful.served import CALLERS, Answer

PADDED = "/v1/bank-notifications #/depositor_name"
FILLERS = ("z", "가", "😀", "7")
"""One byte of UTF-8, three, four, and for what takes digits alone."""
_numbers = itertools.count(100_001)


@dataclass(frozen=True)
class Member:
    """A member of a request: the path's template, where it stands in the body, and what the contract says of it."""

    template: str
    place: tuple[str | int, ...]
    schema: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.template} {self.pointer}"

    @property
    def pointer(self) -> str:
        return "#/" + "/".join(map(str, self.place))

    def request(self, scene: Scene, value: object) -> tuple[str, dict[str, Any]]:
        """A path and a body that would be carried out, but for this member, which has that value."""
        path, body = REQUESTS[self.template](scene)
        holder: Any = body
        for step in self.place[:-1]:
            holder = holder[step]
        holder[self.place[-1]] = value
        if self.template.endswith("/match") and self.place[-1] in {"telegram_id", "cancel_deposit_id"}:
            del holder["deposit_id"]  # one of the two is named
            holder.setdefault("telegram_id", "1")
        if isinstance(value, int) and self.template in {"/v1/debits", "/v1/domain-purchases"}:
            holder["telegram_id"] = scene.user(value)
        return path, body


def _members() -> Iterator[Member]:
    document = create_app(Config()).openapi_schema.to_schema()
    schemas = document["components"]["schemas"]

    def walk(schema: dict[str, Any], place: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
        while "$ref" in schema:
            schema = schemas[schema["$ref"].rpartition("/")[2]]
        for one in () if "properties" in schema else schema.get("anyOf", ()):  # shapes only say what is needed
            yield from walk(one, place)
        for name, one in schema.get("properties", {}).items():
            yield from walk(one, (*place, name))
        if "items" in schema:
            yield from walk(schema["items"], (*place, 0))
        if schema.get("type") in ("integer", "string") and "enum" not in schema:
            yield place, schema

    for template, item in document["paths"].items():
        if "post" in item:
            (content,) = item["post"]["requestBody"]["content"].values()
            for place, schema in walk(content["schema"], ()):
                yield Member(template, place, schema)


MEMBERS = list(_members())
NUMBERS = [member for member in MEMBERS if member.schema["type"] == "integer"]
TEXTS = [member for member in MEMBERS if member.schema["type"] == "string"]
AMOUNTS = [member for member in NUMBERS if member.place[-1] in ("amount", "price")]


def refused(scene: Scene, answer: Answer, member: Member, what: object) -> None:
    """It is a 400 that names the member, or says that the whole is no JSON."""
    told = answer.json()
    assert (answer.status, told["code"]) == (400, "invalid_request"), (str(member), what, told)
    assert [error["pointer"] for error in told["errors"]] == [member.pointer], (what, told)


def test_every_member_is_asked_for_here() -> None:
    """There are as many as the contract has, and each number and each text has bounds."""
    assert {member.template for member in MEMBERS} == set(REQUESTS)
    assert len(AMOUNTS) == 5
    assert all({"minimum", "maximum"} <= member.schema.keys() for member in some(NUMBERS))
    assert all("maxLength" in member.schema for member in some(TEXTS))


@pytest.mark.parametrize("member", NUMBERS, ids=str)
def test_a_number_at_its_bounds_is_taken_and_one_beyond_is_refused(scene: Scene, member: Member) -> None:
    """At the bound an amount is stored as it was sent. Beyond it the member is named, and nothing is changed."""
    least, most = member.schema["minimum"], member.schema["maximum"]
    for value in (least, most):
        path, body = member.request(scene, value)
        if value < 0 and "changes" in body:  # is taken from what is there
            body["changes"][0]["telegram_id"] = scene.user(-value)
        answer = scene.post(path, body)
        if member in AMOUNTS:
            assert answer.status == (201 if "balance-changes" not in path else 200), (value, answer)
            table = "bank_notifications" if "bank" in path else "deposit_transactions"
            assert scene.service.rows(f"SELECT amount FROM {table} ORDER BY id DESC LIMIT 1") == [(abs(value),)]
        else:  # an id: perhaps nobody's, and perhaps of one that is matched already
            assert answer.status in {200, 201, 404, 409}, (value, answer)
    path, body = member.request(scene, 1)
    before = scene.state()
    not_this = [member.schema["not"]["const"]] if "not" in member.schema else []
    for value in (least - 1, most + 1, -(2**63), 2**53, 2**63 - 1, 2**63, 2**64, *not_this):
        holder: Any = body["changes"][0] if "changes" in body else body
        holder[member.place[-1]] = value
        refused(scene, scene.post(path, body), member, value)
    assert scene.state() == before


def _of_labels(start: str, length: int) -> str:
    """A domain name of that length: no label has more than 63 characters."""
    text = start + "a" * (length - len(start))
    for dot in range(60, length - 3, 61):
        text = f"{text[:dot]}.{text[dot + 1 :]}"
    return text


def longest(member: Member) -> list[str]:
    """Texts of the greatest length that the member takes, of each kind of character that it takes; each is unlike all
    others from its first characters on."""
    length, found = member.schema["maxLength"], []
    for start, filler in itertools.product(("{}", "q{}"), FILLERS):
        head = start.format(next(_numbers))
        text = head + filler * (length - len(head))
        if member.place[-1] == "domain":
            text = _of_labels(head, length) if filler == "z" else ""
        if member.place[-1] == "occurred_at":  # its pattern takes less than its length
            text = "2026-01-19T12:00:00.123456789+09:00"
        if re.search(member.schema["pattern"], text):
            found.append(text)
    return found


@pytest.mark.parametrize("member", TEXTS, ids=str)
def test_a_text_beyond_its_bounds_is_refused_by_name(scene: Scene, member: Member) -> None:
    """One character more, of any kind; nothing; NUL in it, at its end, alone; half a character. Nothing is changed."""
    texts = longest(member)
    assert texts, member
    path, body = member.request(scene, "")
    holder: Any = body["changes"][0] if "changes" in body else body
    before = scene.state()
    beyond = (
        [text + text[-1] for text in texts] if member.place[-1] != "occurred_at" else [texts[0][:-6] + "0" * 9 + "Z"]
    )
    # The name that a bank prints may be padded, and there may be none.
    padded = ("", "\0", *(f"{text[:-1]}\0" for text in texts)) if str(member) != PADDED else ()
    for text in (*padded, *beyond, f"{texts[0][0]}\0{texts[0][2:]}"):
        holder[member.place[-1]] = text
        refused(scene, scene.post(path, body), member, text)
    for half in (r"\ud83d", r"\ude00", r"z\ud83d", r"\ude00\ud83d"):
        holder[member.place[-1]] = "HALF"
        raw = json.dumps(body).replace('"HALF"', f'"{half}"')
        answer = scene.service.post(CALLERS[0], f"half-{next(_numbers)}", path, raw, f"half-{scene.number()}")
        assert (answer.status, answer.json()["code"]) == (400, "malformed_json"), (str(member), half, answer)
    assert scene.state() == before


@pytest.fixture(scope="module")
def kept(scene: Scene) -> dict[str, Member]:
    """Each longest text of each member, once it was taken; times are left out, which are respelled."""
    taken = {}
    for member in some(TEXTS):
        for text in some(longest(member)):
            path, body = member.request(scene, text)
            answer = scene.post(path, body)
            # A telegram_id may be nobody's; the refusal names it.
            assert answer.status in ({200, 201, 404} if member.place[-1] == "telegram_id" else {200, 201}), (
                text,
                answer,
            )
            if member.place[-1] != "occurred_at":
                taken[text] = member
    assert {filler for filler in FILLERS for text in taken if text.endswith(filler)} == set(FILLERS)
    return taken


def strings(value: Any) -> Iterator[str]:
    """All texts in `value`; a text that is itself an object of JSON is opened."""
    if isinstance(value, str):
        if value.startswith(("{", "[")):
            yield from strings(json.loads(value))
        else:
            yield value
    elif isinstance(value, dict):
        yield from strings([*value, *value.values()])
    elif isinstance(value, list | tuple):
        for one in value:
            yield from strings(one)


def whole(kept: dict[str, Member], value: Any) -> set[str]:
    """Which of the texts are in `value`. One that is there in part, or changed, fails."""
    by_head = {text[:7]: text for text in kept}
    there = {one: by_head[one[:7]] for one in strings(value) if one[:7] in by_head}
    assert {str(kept[text]): one for one, text in there.items() if one != text} == {}
    return set(there.values())


def test_a_text_at_its_bound_is_stored_and_read_back_exactly(scene: Scene, kept: dict[str, Member]) -> None:
    """In every row of every table that has it; in the lists, and in the log as pages, NDJSON and CSV."""
    tables = scene.state()
    assert whole(kept, tables) == set(kept)
    lists = ("deposits", "bank-notifications", "domain-purchases", "audit-logs")
    read = [item for path in lists for item in _items(scene, f"/v1/{path}")]
    in_log = whole(kept, tables["audit_logs"])
    users = {text for text, member in kept.items() if member.place[-1] == "username"}
    there = {row[0] for row in scene.service.rows("SELECT telegram_id FROM users")}
    for telegram_id in there:
        read += [scene.service.get(f"/v1/users/{telegram_id}").json()]
        read += _items(scene, f"/v1/users/{telegram_id}/transactions")
        read += _items(scene, f"/v1/users/{telegram_id}/balance/explain")
    missing = set(kept) - whole(kept, read)
    assert not missing, [str(kept[text]) for text in missing]
    assert users <= whole(kept, read)
    for media_type, parse in _FORMS.items():
        text = scene.service.ask("GET", "/v1/audit-logs", headers={"Accept": media_type}).body.decode()
        assert whole(kept, parse(text)) == in_log, media_type


_FORMS: dict[str, Callable[[str], Any]] = {
    "application/x-ndjson": lambda text: [json.loads(line) for line in text.split("\n") if line],
    "text/csv": lambda text: list(csv.DictReader(io.StringIO(text.lstrip("\ufeff"), newline=""))),
}


def _items(scene: Scene, path: str) -> list[Any]:
    items, cursor = [], ""
    while True:
        page = scene.service.get(f"{path}?limit=100{cursor}").json()
        items += page["items"]
        if page["next_cursor"] is None:
            return items
        cursor = f"&cursor={page['next_cursor']}"


def test_a_text_at_its_bound_comes_back_from_a_backup_and_an_export(
    scene: Scene, kept: dict[str, Member], tmp_path: Path
) -> None:
    """A backup that is restored is the database, value for value; an export, loaded, has every text that
    the tables it is of have."""
    source = ("--database", str(scene.service.path))
    for command in (
        ("backup", *source, "--to", str(tmp_path / "copy.db"), "--no-proof"),
        ("restore", "--database", str(tmp_path / "back.db"), "--no-proof", str(tmp_path / "copy.db")),
        ("export", *source, str(tmp_path / "all.sql")),
    ):
        done = passbook(*command)
        assert done.returncode == 0, (command, done.stderr)
    tables = scene.state()
    with closing(sqlite3.connect(tmp_path / "back.db")) as back:
        assert {name: back.execute(f'SELECT * FROM "{name}" ORDER BY 1, 2').fetchall() for name in tables} == tables
    with closing(sqlite3.connect(":memory:")) as loaded:
        loaded.executescript((tmp_path / "all.sql").read_text("utf-8"))
        names = [row[0] for row in loaded.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        assert {"users", "deposit_transactions", "bank_notifications", "user_domains", "audit_logs"} <= set(names)
        rows = {name: loaded.execute(f'SELECT * FROM "{name}"').fetchall() for name in names}
    assert whole(kept, rows) == whole(kept, {name: tables.get(name, []) for name in names})
