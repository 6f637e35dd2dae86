"""Everything that must not get in: refused with a 4xx that names the field and says what to do, and nothing changed."""
# ruff: noqa: E501  a table reads best with one kind of input a line

import itertools
import json
import re
import urllib.parse
from typing import Any

import pytest

from service.api.problems import CATALOGUE
from service.ledger.errors import ErrorCode
from tests.api import wire
from tests.contents import contents
from tests.live import LiveService

_numbers = itertools.count()
_INTERNAL = re.compile(r"`|regex|\^\[|msgspec|litestar|Expected|Traceback|codec|sqlite|\\u0000|timedelta|\.py\b")
"""Words of the libraries underneath, which no caller should have to read."""


def deposit(**members: Any) -> bytes:
    """A good announcement, but for `members`."""
    return json.dumps({"telegram_id": "1", "amount": 5, "depositor_name": "홍길동", **members}).encode()


def with_raw(member: str, value: str | bytes) -> bytes:
    """A good announcement with the bytes `value` in the place of one member's value."""
    raw = value if isinstance(value, bytes) else value.encode()
    return deposit(**{member: "\0"}).replace(b'"\\u0000"', raw)


def refused(service: LiveService, answer: wire.Answer, code: ErrorCode, pointer: str | None) -> dict[str, Any]:
    """The problem document of `answer`, checked for what is true of each of them."""
    assert answer.status == CATALOGUE[code].status, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert (problem["code"], problem["status"], problem["title"]) == (code, answer.status, CATALOGUE[code].title)
    assert problem["type"] == f"urn:passbook:problem:{code}"
    assert problem["request_id"] == answer.headers["x-request-id"]
    if pointer is not None:
        assert [violation["pointer"] for violation in problem["errors"]] == [pointer], problem
        assert problem["errors"][0]["message"]
    assert not _INTERNAL.search(problem["detail"] + json.dumps(problem.get("errors", []))), problem
    return problem


def post(service: LiveService, path: str, body: bytes, *headers: str | bytes, without: tuple[str, ...] = ()) -> Any:
    """A POST with an Idempotency-Key of its own unless `headers` bring one."""
    named = any(
        bytes(h, "latin-1", "replace")[:15].lower() == b"idempotency-key" for h in headers if isinstance(h, str)
    )
    if not named and "Idempotency-Key" not in without:
        headers = (*headers, f"Idempotency-Key: bad-{next(_numbers)}")
    return wire.request(service, "POST", path, headers=headers, body=body, without=without)


INVALID, MALFORMED = ErrorCode.INVALID_REQUEST, ErrorCode.MALFORMED_JSON
BODIES: dict[str, tuple[bytes, ErrorCode, str]] = {
    **{
        f"amount {raw[:20]}": (with_raw("amount", raw), INVALID, "#/amount")
        for raw in (
            *(
                "0",
                "-1",
                "-0",
                "-0.0",
                "1.5",
                "1E-2",
                "4999.99999999999999999",
                "999999999999.99999",
                "1000000000001",
                "1e13",
                "9007199254740993",
                "9223372036854775808",
            ),
            *("18446744073709551616", "1" + "0" * 4299, "1" + "0" * 5000, "1e400", "-1e400", "1e308"),
            *("true", "false", "null", '"1"', '"1e3"', "[]", "[1]", "{}", '{"a":1}', "100000000000000000000.0"),
        )
    },
    **{
        f"no number {raw[:20]}": (with_raw("amount", raw), MALFORMED, "#")
        for raw in ("NaN", "Infinity", "-Infinity", "01", "+1", ".5", "5.", "1_000", "1,000", "١", "--1", "")
    },
    **{
        f"name {name}": (with_raw("depositor_name", json.dumps(text)), INVALID, "#/depositor_name")
        for name, text in {
            "empty": "",
            "spaces": "   ",
            "nbsp": "\u00a0",
            "ideographic space": "\u3000",
            "zero width": "\u200b\u200c\u200d",
            "byte order mark": "\ufeff",
            "hangul filler": "\u3164",
            "jungseong filler": "\u1160",
            "braille blank": "\u2800",
            "soft hyphen": "\u00ad",
            "variation selector": "\ufe0f",
            "nul": "a\0b",
            "only nul": "\0",
            "newline": "a\n",
            "tab": "a\tb",
            "delete": "a\x7f",
            "c1": "a\x85b",
            "line separator": "a\u2028b",
            "right-to-left override": "gnp.exe\u202eabc",
            "isolate": "a\u2066b",
            "non-character": "a\uffff",
            "too long": "가" * 51,
        }.items()
    },
    **{
        f"telegram_id {json.dumps(text)[:20]}": (deposit(telegram_id=text), INVALID, "#/telegram_id")
        for text in (
            "",
            "abc",
            "-1",
            "1" * 21,
            "1\n",
            " 1",
            "1 ",
            "١٢٣",
            "１",
            "1.0",
            "1e3",
            "0x1",
            "1' OR '1'='1",
            "\0",
            1,
            None,
            ["1"],
        )
    },
    **{
        f"unknown {name[:12]!r}": (deposit(**{name: 1}), INVALID, f"#/{pointer}")
        for name, pointer in {
            "extra": "extra",
            "Amount": "Amount",
            "": "",
            "a/b~c": "a~1b~0c",
            "x" * 5000: "x" * 100,
            "__proto__": "__proto__",
            "balance": "balance",
            "user_id": "user_id",
            "actor": "actor",
            "status": "status",
            "'; DROP TABLE users;--": "'; DROP TABLE users;--",
        }.items()
    },
    "missing": (b"{}", INVALID, "#/telegram_id"),
    "repeated": (b'{"telegram_id":"1","amount":5,"amount":5,"depositor_name":"a"}', INVALID, "#/amount"),
    "repeated, escaped": (b'{"telegram_id":"1","amount":5,"\\u0061mount":6,"depositor_name":"a"}', INVALID, "#/amount"),
    "array": (b"[]", INVALID, "#"),
    "null": (b"null", INVALID, "#"),
    "text": (b'"x"', INVALID, "#"),
    "number": (b"1", INVALID, "#"),
    "deep value": (with_raw("amount", "[" * 30_000 + "]" * 30_000), INVALID, "#/amount"),
    "deep unknown": (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, INVALID, "#/a"),
    "lone high surrogate": (with_raw("depositor_name", '"\\ud800"'), MALFORMED, "#"),
    "lone low surrogate": (with_raw("depositor_name", '"a\\udc00b"'), MALFORMED, "#"),
    "swapped surrogates": (with_raw("depositor_name", '"\\udc00\\ud800"'), MALFORMED, "#"),
    "lone surrogate as a name": (b'{"\\ud800":1}', MALFORMED, "#"),
    "not UTF-8": (with_raw("depositor_name", b'"\xff\xfe"'), MALFORMED, "#"),
    "overlong UTF-8": (with_raw("depositor_name", b'"\xc0\xaf"'), MALFORMED, "#"),
    "surrogate in UTF-8": (with_raw("depositor_name", b'"\xed\xa0\x80"'), MALFORMED, "#"),
    "cut UTF-8": (with_raw("depositor_name", b'"\xed\x99"'), MALFORMED, "#"),
    "EUC-KR": (with_raw("depositor_name", '"홍길동"'.encode("euc-kr")), MALFORMED, "#"),
    "UTF-16": (deposit().decode().encode("utf-16"), MALFORMED, "#"),
    "byte order mark first": (b"\xef\xbb\xbf" + deposit(), MALFORMED, "#"),
    "raw NUL": (with_raw("depositor_name", b'"a\0b"'), MALFORMED, "#"),
    "raw newline": (with_raw("depositor_name", b'"a\nb"'), MALFORMED, "#"),
    "empty": (b"", MALFORMED, "#"),
    "blank": (b" \r\n", MALFORMED, "#"),
    "cut": (deposit()[:-1], MALFORMED, "#"),
    "two": (deposit() * 2, MALFORMED, "#"),
    "trailing comma": (b'{"telegram_id":"1",}', MALFORMED, "#"),
    "comment": (b"{/**/}", MALFORMED, "#"),
    "single quotes": (b"{'telegram_id':'1'}", MALFORMED, "#"),
    "form": (b"telegram_id=1&amount=5", MALFORMED, "#"),
    "deep": (b"[" * 60_000, INVALID, "#"),
    "10^5 deep": (b"[" * 100_000, ErrorCode.BODY_TOO_LARGE, "#"),
    "too large": (b" " * 65_537, ErrorCode.BODY_TOO_LARGE, "#"),
}


@pytest.mark.parametrize("case", BODIES)
def test_a_bad_body_is_refused_and_changes_nothing(service: LiveService, case: str) -> None:
    """The member at fault is named by a JSON pointer, or "#" when the whole is no JSON."""
    body, code, pointer = BODIES[case]
    before = contents(service.database)
    refused(service, post(service, "/v1/deposits", body), code, pointer)
    assert contents(service.database) == before


DEEP = {
    "lists": (b"[", b"]"),
    "objects": (b'{"a":', b"}"),
    "lists beside a number with a fraction": (b"[1.0,[", b"]]"),
    "lists that never end": (b"[", b""),
}


@pytest.mark.parametrize("kind", DEEP)
def test_details_that_are_nested_too_deeply_are_400(service: LiveService, kind: str) -> None:
    """At every depth, also below what the parser itself can follow: the ledger's bound, or no JSON that can be read."""
    opened, closed = DEEP[kind]
    before = contents(service.database)
    for depth in (17, 100, 900, 1000, 3000, 8000):
        nested = opened * depth + b"1" + closed * depth
        answer = post(service, "/v1/audit-logs", b'{"action":"deep","details":{"a":%b}}' % nested)
        assert answer.status == 400, f"{depth} levels: {answer.status}"
        assert answer.json()["code"] in {INVALID, MALFORMED}, depth
    assert contents(service.database) == before


GOOD = {
    "1e3": (with_raw("amount", "1e3"), "amount", 1000),
    "1.0": (with_raw("amount", "1.0"), "amount", 1),
    "1e12": (with_raw("amount", "1e12"), "amount", 10**12),
    "0.1e1": (with_raw("amount", "0.1e1"), "amount", 1),
    "largest": (deposit(amount=10**12), "amount", 10**12),
    "20 digits": (deposit(telegram_id="9" * 20), "telegram_id", "9" * 20),
    **{
        name: (deposit(depositor_name=text), "depositor_name", text)
        for name, text in {
            "right to left": "אבג",
            "NFC": "\u00e9가",
            "NFD": "e\u0301\u1100\u1161",
            "joined emoji": "👩‍👩‍👧‍👦",
            "50 astral": "😀" * 50,
            "SQL": "'; DROP TABLE users;--",
            "format": "%s %n {0} ${x} {{7*7}}",
            "markup": "<script>alert(1)</script>",
            "formula": "=1+1",
            "quotes": "\"'`\\",
            "inner spaces": "홍 길\u3000동",
        }.items()
    },
}


@pytest.mark.parametrize("case", GOOD)
def test_what_is_only_unusual_is_kept_as_it_is(service: LiveService, case: str) -> None:
    """Whole numbers in any JSON spelling, and any text that can be seen, come back as they were sent."""
    body, member, value = GOOD[case]
    answer = post(service, "/v1/deposits", body)
    assert answer.status == 201, answer.body
    kept = service.client().get(answer.headers["location"]).json()[member]
    assert (kept, type(kept)) == (value, type(value))


SQL = "1' OR '1'='1'; DROP TABLE users;--"


def test_sql_in_every_field_is_text(service: LiveService) -> None:
    """What looks like SQL is refused where digits belong and kept as text elsewhere; no table is gone."""
    client = service.client()
    client.credit("31", 100)
    debit = client.write("/v1/debits", {"telegram_id": "31", "amount": 1, "reason": SQL, "reference": SQL})
    assert (debit.json()["reason"], debit.json()["reference"]) == (SQL, SQL)
    assert client.write("/v1/users", {"telegram_id": "31", "username": SQL}).json()["username"] == SQL
    announced = client.write("/v1/deposits", {"telegram_id": "31", "amount": 1, "depositor_name": SQL}).json()
    assert client.write(f"/v1/deposits/{announced['id']}/cancel", {"note": SQL}, key="a';--").status_code == 200
    quoted = urllib.parse.quote(SQL, safe="")
    before = contents(service.database)
    for path in (
        *(f"/v1/deposits?{name}={quoted}" for name in ("status", "telegram_id", "limit", "cursor")),
        *(f"/v1/audit-logs?{name}={quoted}" for name in ("action", "resource_type", "resource_id", "since", "cursor")),
        *(f"/v1/{place}/{quoted}" for place in ("users", "deposits", "transactions", "audit-logs")),
    ):
        assert client.get(path).status_code == 400, path
    assert contents(service.database) == before


QUERIES: dict[str, tuple[str, str]] = {
    **{
        f"/v1/deposits?{name}={value}": (f"/v1/deposits?{name}={value}", f"query/{name}")
        for name, value in (
            *(
                ("limit", v)
                for v in (
                    "0",
                    "-1",
                    "1001",
                    "",
                    "abc",
                    "1_0",
                    "%2B1",
                    "01",
                    "null",
                    "true",
                    "%D9%A1",
                    "5%0A",
                    "%205",
                    "1.5",
                    "5.0",
                    "1e1",
                )
            ),
            *(("limit", v) for v in ("9223372036854775808", "1" + "0" * 5000, "%00", "%ff", "%zz", "%", "1;cursor=2")),
            *(
                ("cursor", v)
                for v in ("0", "-1", "", "a", "01", "9999999999999999", "9223372036854775808", "1%0A", "%D9%A1")
            ),
            *(("status", v) for v in ("", "null", "PENDING", "pending%00", "pending,confirmed", "%C3%28")),
            *(("telegram_id", v) for v in ("", "abc", "1" * 21, "1%0A", "%EF%BC%91")),
        )
    },
    **{
        f"/v1/audit-logs?{name}={value}": (f"/v1/audit-logs?{name}={value}", f"query/{name}")
        for name, value in (
            ("since", "2026-02-30T00:00:00Z"),
            ("since", "2026-13-01T00:00:00Z"),
            ("since", "0000-01-01T00:00:00Z"),
            ("since", "0001-01-01T00:00:00%2B01:00"),
            ("until", "9999-12-31T23:59:59-01:00"),
            ("since", "2026-12-31T23:59:60Z"),
            ("since", "2026-01-01T24:00:00Z"),
            ("since", "2026-01-01T00:00:00%2B99:99"),
            ("since", "2026-01-01T00:00:00%2B00:60"),
            ("since", "2026-01-01T00:00:00-24:00"),
            ("since", "2026-01-01T00:00:00+09:00"),  # an unescaped + is a space
            ("since", "2026-01-01T00:00:00"),
            ("since", "2026-01"),
            ("since", "2026-01-01 00:00:00Z".replace(" ", "%20")),
            ("since", "0.5"),
            ("since", "null"),
            ("since", "now"),
            ("since", "%D9%A2%D9%A0%D9%A2%D9%A6-01-01T00:00:00Z"),
            ("since", "2026-01-01T00:00:00.1234567890Z"),
            ("action", "*"),
            ("action", "a*b"),
            ("action", "%25"),
            ("action", "[a-z]"),
            ("action", "a" * 65),
            ("resource_type", "A"),
            ("resource_id", "0"),
            ("resource_id", "9223372036854775808"),
            ("limit", "1001"),
        )
    },
    **{
        f"/v1/audit-logs/suspicious?{name}={value}": (f"/v1/audit-logs/suspicious?{name}={value}", f"query/{name}")
        for name, value in (
            *(
                ("window", v)
                for v in ("P", "PT", "P1Y", "-PT1H", "1H", "PT1H%0A", "pt1h", "PT%D9%A1H", "PT99999H", "PT1.5H")
            ),
            *(("threshold", v) for v in ("-1", "1000001", "abc", "9223372036854775808")),
        )
    },
    "unknown": ("/v1/deposits?x=1", "query/x"),
    "unknown, in capitals": ("/v1/deposits?Limit=1", "query/Limit"),
    "unknown, brackets": ("/v1/deposits?status%5B%5D=pending", "query/status[]"),
    "unknown, long": (f"/v1/deposits?{'x' * 5000}=1", f"query/{'x' * 100}"),
    "unknown, empty": ("/v1/deposits?=1", "query/"),
    "on a path that takes none": ("/v1/users/1?limit=1", "query/limit"),
    "twice": ("/v1/deposits?limit=1&limit=1", "query/limit"),
    "twice, escaped": ("/v1/deposits?limit=1&%6Cimit=2", "query/limit"),
    "very many": ("/v1/deposits?" + "a=1&" * 1000, "query"),
    **{
        f"deposit {text}": (f"/v1/deposits/{text}", "path/deposit_id")
        for text in (
            "0",
            "01",
            "-1",
            "1_0",
            "1.0",
            "%D9%A1",
            "9999999999999999",
            "9223372036854775808",
            "1%0A",
            "1%00",
            "%ff",
            "%zz",
            "%2e%2e",
            "null",
            "1%20",
        )
    },
    **{
        f"user {text}": (f"/v1/users/{text}", "path/telegram_id")
        for text in ("abc", "-1", "1" * 21, "%0A", "1%0A", "1%00", "%F0%9F%98%80", "%25", "%D9%A1")
    },
    "user's list": ("/v1/users/abc/transactions", "path/telegram_id"),
    "transaction": ("/v1/transactions/x", "path/transaction_id"),
    "audit log": ("/v1/audit-logs/x", "path/audit_log_id"),
}


@pytest.mark.parametrize("case", QUERIES, ids=lambda case: case[:60])
def test_a_bad_query_or_path_is_refused_by_name(service: LiveService, case: str) -> None:
    """The parameter at fault is named, and what it takes."""
    target, pointer = QUERIES[case]
    refused(service, wire.request(service, "GET", target), INVALID, pointer)


HEADERS: dict[str, tuple[list[str | bytes], tuple[str, ...], ErrorCode, str]] = {
    **{
        f"Idempotency-Key {value[:12]!r}": ([f"Idempotency-Key: {value}"], (), INVALID, "header/Idempotency-Key")
        for value in ("", '""', "a b", "a\tb", "x" * 256, "한글", "a\u00ff")
    },
    "no Idempotency-Key": ([], ("Idempotency-Key",), ErrorCode.IDEMPOTENCY_KEY_REQUIRED, "header/Idempotency-Key"),
    "two Idempotency-Keys": (["Idempotency-Key: a", "idempotency-key: b"], (), INVALID, "header/Idempotency-Key"),
    **{
        f"X-Request-ID {value[:12]!r}": ([f"X-Request-ID: {value}"], (), INVALID, "header/X-Request-ID")
        for value in ("x" * 129, "a b", "é", "x" * 8000)
    },
    "two X-Request-IDs": (["X-Request-ID: a", "X-Request-ID: a"], (), INVALID, "header/X-Request-ID"),
    "two keys": (["Authorization: Bearer x"], (), INVALID, "header/Authorization"),
    "two Content-Types": (["Content-Type: application/json"], (), INVALID, "header/Content-Type"),
    "two Hosts": (["Host: a"], (), INVALID, "header/Host"),
    "no Host": ([], ("Host",), INVALID, "header/Host"),
    "bad Host": (["Host: a/b<"], ("Host",), INVALID, "header/Host"),
    **{
        f"Content-Type {value}": ([f"Content-Type: {value}"], ("Content-Type",), ErrorCode.UNSUPPORTED_MEDIA_TYPE, "header/Content-Type")
        for value in (
            *("text/plain", "", "application/json; charset=latin-1", "application/json; charset=euc-kr", "multipart/form-data"),
            *("application/x-www-form-urlencoded", "application/problem+json", "application/json, text/plain", "json", "*/*"),
        )
    },
    "no Content-Type": ([], ("Content-Type",), ErrorCode.UNSUPPORTED_MEDIA_TYPE, "header/Content-Type"),
    "gzip": (["Content-Encoding: gzip"], (), ErrorCode.UNSUPPORTED_MEDIA_TYPE, "header/Content-Encoding"),
    "gzip in a list": (
        ["Content-Encoding: identity,, gzip"],
        (),
        ErrorCode.UNSUPPORTED_MEDIA_TYPE,
        "header/Content-Encoding",
    ),
    **{
        f"Accept {value}": ([f"Accept: {value}"], (), ErrorCode.NOT_ACCEPTABLE, "header/Accept")
        for value in ("text/html", "*/*;q=0", "application/json;q=0", "application/json;q=0, */*", "application/json;q=NaN", "application/json;q=-1", "garbage", "text/*")
    },
    "no key": ([], ("Authorization",), ErrorCode.API_KEY_REQUIRED, "header/Authorization"),
    **{
        f"Authorization {value[:20]!r}": ([b"Authorization: " + value], ("Authorization",), code, "header/Authorization")
        for value, code in (
            *((v, ErrorCode.API_KEY_REQUIRED) for v in (b"", b"Bearer", b"Bearer ", b"Basic eDp5", b"pbk_x", b"Token x")),
            *((v, ErrorCode.API_KEY_UNKNOWN) for v in (b"Bearer x", b"Bearer \xff\xfe", b"Bearer pbk_x", b"bearer " + b"x" * 9000)),
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("case", HEADERS)
def test_a_bad_header_is_refused_and_changes_nothing(service: LiveService, case: str) -> None:
    """The header at fault is named as it is documented, whatever its spelling in the request."""
    headers, without, code, pointer = HEADERS[case]
    before = contents(service.database)
    problem = refused(service, post(service, "/v1/deposits", deposit(), *headers, without=without), code, pointer)
    assert (problem["status"] == 401) == ("Authorization" in pointer and code != INVALID)
    assert contents(service.database) == before


@pytest.mark.parametrize(
    "header",
    [
        "Accept: application/*",
        "Accept: text/csv, */*;q=0.1",
        "Accept:",
        "Accept: ,",
        "Accept: application/json;version=2",
        "X-Request-ID:",
        "X-Unknown: \u00ff",
        "Expect: 100-continue",
        "Expect: 200-ok",
        "Content-Encoding: identity",
        "Content-Encoding:",
        "Content-Encoding: ,identity ,",
        "Upgrade: websocket",
        "User-Agent: " + "x" * 5000,
        b"User-Agent: \xff\xfe",
        "Range: bytes=0-1",
        "Cookie: a=b",
    ],
    ids=lambda header: str(header[:30]),
)
def test_a_harmless_header_is_no_reason_to_refuse(service: LiveService, header: str | bytes) -> None:
    """What HTTP lets a server ignore is ignored."""
    assert post(service, "/v1/deposits", deposit(), header).status == 201


@pytest.mark.parametrize(
    "media_type", ["APPLICATION/JSON", "application/json;charset=UTF-8", 'application/json; charset="utf-8"']
)
def test_every_spelling_of_json_in_utf_8_is_taken(service: LiveService, media_type: str) -> None:
    """Media types are compared without regard to case, and charset may be quoted (RFC 9110 §8.3)."""
    answer = post(service, "/v1/deposits", deposit(), f"Content-Type: {media_type}", without=("Content-Type",))
    assert answer.status == 201


def test_an_idempotency_key_is_the_same_with_and_without_quotes(service: LiveService) -> None:
    """ "abc" as a structured header field and abc are one key."""
    first = post(service, "/v1/deposits", deposit(), 'Idempotency-Key: "quoted-1"')
    again = post(service, "/v1/deposits", deposit(), "Idempotency-Key: quoted-1")
    assert first.body == again.body
    assert again.headers["idempotency-replayed"] == "true"


def test_a_given_request_id_comes_back_and_is_on_record(service: LiveService) -> None:
    """The caller's X-Request-ID is on the answer and in the audit row; without one a new one is made."""
    answer = post(service, "/v1/deposits", deposit(), "X-Request-ID: caller-77")
    assert answer.headers["x-request-id"] == "caller-77"
    row = service.client().get(f"/v1/audit-logs/{answer.json()['audit_log_id']}").json()
    assert row["request_id"] == "caller-77"
    assert re.fullmatch(r"[0-9a-f]{32}", post(service, "/v1/deposits", deposit()).headers["x-request-id"])


@pytest.mark.parametrize("verb", ["confirm", "cancel"])
def test_no_body_is_an_empty_object_where_all_is_optional(service: LiveService, verb: str) -> None:
    """curl -X POST without -d confirms and cancels; elsewhere it is a 400 (in BODIES)."""
    made = post(service, "/v1/deposits", deposit()).json()
    answer = post(service, f"/v1/deposits/{made['id']}/{verb}", b"", without=("Content-Type", "Content-Length"))
    assert answer.status == 200, answer.body


def _framed(service: LiveService, headers: str, body: bytes, *, half_close: bool = False) -> wire.Answer:
    head = (
        f"POST /v1/deposits HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {service.admin_key}\r\n"
        f"Content-Type: application/json\r\nIdempotency-Key: framed-{next(_numbers)}\r\n{headers}\r\n"
    )
    return wire.send(service, head.encode() + body, half_close=half_close)


def _chunks(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (*parts, b""))


def test_chunked_bodies_are_read_and_bounded(service: LiveService) -> None:
    """A chunked body is a body; one that never ends is cut at the limit."""
    body = deposit()
    assert _framed(service, "Transfer-Encoding: chunked\r\n", _chunks(body[:7], body[7:])).status == 201
    endless = _framed(service, "Transfer-Encoding: chunked\r\n", _chunks(*[b" " * 16_384] * 5))
    refused(service, endless, ErrorCode.BODY_TOO_LARGE, "#")


@pytest.mark.parametrize(
    ("headers", "body", "code"),
    [
        ("Transfer-Encoding: chunked\r\n", b"zz\r\n{}", ErrorCode.MALFORMED_HTTP),
        ("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", _chunks(b"{}"), ErrorCode.MALFORMED_HTTP),
        ("Transfer-Encoding: gzip, chunked\r\n", _chunks(b"{}"), INVALID),
        ("Transfer-Encoding: identity\r\nContent-Length: 2\r\n", b"{}", ErrorCode.MALFORMED_HTTP),
        ("Content-Length: -1\r\n", b"{}", ErrorCode.MALFORMED_HTTP),
        ("Content-Length: +2\r\n", b"{}", ErrorCode.MALFORMED_HTTP),
        ("Content-Length: abc\r\n", b"{}", ErrorCode.MALFORMED_HTTP),
        ("Content-Length: 99999999999999999999\r\n", b"{}", ErrorCode.MALFORMED_HTTP),
        ("Content-Length: 999999999999\r\n", b"{}", ErrorCode.BODY_TOO_LARGE),
        ("Content-Length: 2\r\nContent-Length: 2\r\n", b"{}", ErrorCode.MALFORMED_HTTP),
        ("Content-Length: 2, 2\r\n", b"{}", ErrorCode.MALFORMED_HTTP),
        ("Expect: 100-continue\r\nContent-Length: 100000\r\n", b"", ErrorCode.BODY_TOO_LARGE),
        ("X Y: 1\r\n", b"", ErrorCode.MALFORMED_HTTP),
        ("X-Y: \0\r\n", b"", ErrorCode.MALFORMED_HTTP),
        ("X-Y: a\r\n folded\r\n", b"", ErrorCode.MALFORMED_HTTP),
        ("X-Y: a\rb\r\n", b"", ErrorCode.MALFORMED_HTTP),
        ("no colon\r\n", b"", ErrorCode.MALFORMED_HTTP),
    ],
)
def test_bad_framing_is_refused_and_changes_nothing(
    service: LiveService, headers: str, body: bytes, code: ErrorCode
) -> None:
    """What two servers could read in two ways, one of them hidden, is read in none."""
    before = contents(service.database)
    refused(service, _framed(service, headers, body), code, None)
    assert contents(service.database) == before


def test_a_body_shorter_or_longer_than_announced_changes_nothing(service: LiveService) -> None:
    """A cut body is no body, even where what came is complete JSON; what is beyond Content-Length is no part of it."""
    before = contents(service.database)
    body = deposit()
    assert _framed(service, f"Content-Length: {len(body) + 1}\r\n", body, half_close=True).status in {0, 400}
    assert _framed(
        service, "Transfer-Encoding: chunked\r\n", b"%x\r\n%s" % (len(body), body), half_close=True
    ).status in {0, 400}
    refused(service, _framed(service, f"Content-Length: {len(body) - 1}\r\n", body), MALFORMED, "#")
    assert contents(service.database) == before
    service.client().get("/readyz").raise_for_status()


def test_a_client_that_goes_away_is_no_error_of_the_service(own_service: LiveService) -> None:
    """No stack trace in the log for every upload that a mobile network cuts."""
    service = own_service.start()
    _framed(service, "Content-Length: 100\r\n", b'{"telegram_id"', half_close=True)
    assert service.stop() == 0
    assert "Traceback" not in service.said
    assert "ERROR" not in service.said


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"hello\r\n\r\n",
        b"get /livez HTTP/1.1\r\nHost: x\r\n\r\n",
        b"FOO /livez HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /li vez HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /livez HTTP/9.9\r\nHost: x\r\n\r\n",
        b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_what_is_no_http_is_told_so(service: LiveService, data: bytes) -> None:
    """A problem document, and the connection is closed."""
    refused(service, wire.send(service, data), ErrorCode.MALFORMED_HTTP, None)


@pytest.mark.parametrize(
    "headers",
    [
        [f"X-Long: {'x' * 17_000}"],
        [f"X-Long-{n}: {'x' * 1000}" for n in range(17)],
        [f"X-{n}: 1" for n in range(101)],
        [f"X-Long: {'x' * 200_000}"],
    ],
    ids=["one long", "several", "many", "one very long"],
)
def test_heads_are_bounded(service: LiveService, headers: list[str]) -> None:
    """More than 16 KiB or 100 headers: 431. Also for an open path, before any key is looked at."""
    refused(service, wire.request(service, "GET", "/livez", headers=headers), ErrorCode.HEADERS_TOO_LARGE, None)


def test_a_long_request_target_is_refused(service: LiveService) -> None:
    """The target counts with the headers."""
    refused(service, wire.request(service, "GET", "/v1/users/" + "1" * 17_000), ErrorCode.HEADERS_TOO_LARGE, None)


def test_a_head_that_never_ends_is_cut_off(service: LiveService) -> None:
    """A header that goes on for megabytes is not collected in memory."""
    answer = wire.send(service, b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Endless: " + b"x" * 4_000_000)
    assert answer.status in {0, 431}
    service.client().get("/livez").raise_for_status()


def test_large_bodies_on_one_connection_do_not_count_as_heads(service: LiveService) -> None:
    """Pipelined requests with bodies near the limit are all answered."""
    body = deposit().ljust(60_000)
    one = (
        f"POST /v1/deposits HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {service.admin_key}\r\n"
        "Content-Type: application/json\r\nIdempotency-Key: pipelined-{}\r\nContent-Length: 60000\r\n{}\r\n"
    )
    data = b"".join(one.format(n, "Connection: close\r\n" if n == 5 else "").encode() + body for n in range(6))
    answer = wire.send(service, data)
    assert answer.status == 201
    assert answer.body.count(b"HTTP/1.1 201") == 5


@pytest.mark.parametrize("method", ["TRACE", "PATCH", "PUT", "DELETE", "PROPFIND", "QUERY"])
def test_an_unknown_method_is_405_with_allow(service: LiveService, method: str) -> None:
    """Allow lists every method of the path, not of one handler; nothing of the request comes back, as TRACE would."""
    answer = wire.request(service, method, "/v1/deposits")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS, POST")
    assert service.admin_key.encode() not in answer.body


def test_options_lists_the_methods_without_a_key(service: LiveService) -> None:
    """OPTIONS on a path answers for all of its handlers, and is a 404 where there is nothing."""
    answer = wire.request(service, "OPTIONS", "/v1/deposits", without=("Authorization",))
    assert (answer.status, answer.headers["allow"], answer.body) == (204, "GET, HEAD, OPTIONS, POST", b"")
    assert wire.request(service, "OPTIONS", "/nope").status == 404


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "TRACE"])
@pytest.mark.parametrize(
    "path",
    [
        "/nope",
        "/v1",
        "/v1/deposits/1%2F2",
        "/V1/deposits",
        "/v1/deposits;a=b",
        "/v1/../livez",
        "/nope%ff",
        "/" + "x" * 9000,
    ],
)
def test_an_unknown_path_is_404_for_every_method(service: LiveService, method: str, path: str) -> None:
    """A problem document, never a page in HTML, never the whole of a long path again."""
    problem = refused(service, wire.request(service, method, path), ErrorCode.ROUTE_NOT_FOUND, None)
    assert len(problem["detail"]) < 300


@pytest.mark.parametrize(
    "path", ["/v1/deposits/", "//v1//deposits", "http://other.example/v1/deposits", "/v1/deposits?", "/v1/deposits?&&"]
)
def test_other_spellings_of_a_path_are_the_path(service: LiveService, path: str) -> None:
    """Slashes that are doubled or at the end, and the absolute form (RFC 9112 §3.2.2), change nothing."""
    assert wire.request(service, "GET", path).status == 200


def test_a_replay_over_another_spelling_of_the_path_is_the_same_request(service: LiveService) -> None:
    """/v1/deposits/ with the key of /v1/deposits: the stored answer, not a second deposit and not a 409."""
    first = post(service, "/v1/deposits", deposit(), "Idempotency-Key: spelling-1")
    again = post(service, "//v1/deposits/", deposit(), "Idempotency-Key: spelling-1")
    assert (again.status, again.body) == (first.status, first.body)


def test_http_1_0_is_answered(service: LiveService) -> None:
    """Without Host and with the connection closed after it."""
    answer = wire.request(service, "GET", "/v1/deposits", without=("Host", "Connection"), version="1.0")
    assert answer.status == 200


def test_an_upgrade_is_answered_as_http(service: LiveService) -> None:
    """There are no web sockets here; Upgrade may be ignored (RFC 9110 §7.8)."""
    headers = ["Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    answer = wire.request(
        service, "GET", "/livez", headers=["Connection: Upgrade, close", *headers], without=("Connection",)
    )
    assert answer.status == 200


def test_a_repeated_member_is_named_with_its_whole_pointer() -> None:
    """Deep inside a list too, and however its name is escaped."""
    from service.api.problems import EdgeError
    from service.api.strict_json import decode

    for body, pointer in (
        (b'{"changes": [{"a": 1}, {"b": {"c/d": 1, "c\\/d": 2}}]}', "#/changes/1/b/c~1d"),
        (b'[[{"x": 1, "x": 1}]]', "#/0/0/x"),
        (b'{"a": {"a": {}, "a": {}}}', "#/a/a"),
    ):
        with pytest.raises(EdgeError) as caught:
            decode(body, Any)
        assert caught.value.members["errors"][0].pointer == pointer


def test_a_long_user_agent_is_cut_where_it_is_put_on_record(service: LiveService) -> None:
    """It is the client's to choose, and no reason to refuse: its first 512 characters are kept."""
    client = service.client()
    made = client.write("/v1/users", {"telegram_id": "6512"}, **{"User-Agent": "x" * 600}).json()
    kept = client.get(f"/v1/audit-logs/{made['audit_log_id']}").json()["user_agent"]
    assert len(kept) == 512
    assert set(kept) == {"x"}


@pytest.mark.parametrize("written", ["01", "1.0", "1e1", "+1", "%D9%A1", ""])
def test_a_number_in_a_query_is_told_how_it_is_written(service: LiveService, written: str) -> None:
    """Whatever is wrong with it, the message does not call it something that the caller did not write."""
    refused = service.client().get(f"/v1/users/1/transactions?limit={written}")
    assert refused.status_code == 400
    assert refused.json()["errors"] == [
        {"pointer": "query/limit", "message": "must be a whole number in digits, without leading zeros"}
    ]
