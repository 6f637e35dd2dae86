"""Numbers in bodies, in every spelling that JSON has: taken when they are whole and in bounds, else 400 by name."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.api.problems import EdgeError
from service.api.strict_json import decode
from service.ledger.debits import DebitPost
from tests.live import LiveService

EXAMPLES = 150
PLACES: dict[str, tuple[str, str, str, int, int]] = {
    "a debit": ("/v1/debits", '{"telegram_id": "9", "amount": %s, "reason": "x"}', "#/amount", 1, 10**12),
    "a deposit": ("/v1/deposits", '{"telegram_id": "1", "amount": %s, "depositor_name": "x"}', "#/amount", 1, 10**12),
    "a change": (
        "/v1/balance-changes",
        '{"changes": [{"telegram_id": "9", "amount": %s, "reason": "x", "reference": "r"}], "atomic": false}',
        "#/changes/0/amount",
        -(10**12),
        10**12,
    ),
    "a price": ("/v1/domain-purchases", '{"telegram_id": "9", "domain": "a.kr", "price": %s}', "#/price", 1, 10**12),
    "a bank line": (
        "/v1/bank-notifications",
        '{"bank_transaction_id": "b", "depositor_name": "x", "amount": %s, "occurred_at": "2026-01-19T12:00:00Z"}',
        "#/amount",
        1,
        10**12,
    ),
    "a match": ("/v1/bank-notifications/999999/match", '{"deposit_id": %s}', "#/deposit_id", 1, 999_999_999_999_999),
    "a resource": ("/v1/audit-logs", '{"action": "x", "resource_id": %s}', "#/resource_id", 1, 999_999_999_999_999),
}
"""Where a whole number goes: path, body, its pointer, the least and the most that is taken."""

_runs = st.builds(
    lambda zeros, digits, more: "0" * zeros + digits + "0" * more,
    st.sampled_from([0, 0, 0, 1, 30, 400]),
    st.text("0123456789", max_size=25),
    st.sampled_from([0, 0, 0, 3, 12, 20, 400, 3000]),
)
_whole = st.one_of(_runs.map(lambda run: run.lstrip("0") or "0"), st.sampled_from(["0", "1", "5", "1000000000000"]))
_fraction = st.one_of(st.just(""), _runs.map(lambda run: f".{run}" if run else ""))
_exponents = st.one_of(
    st.integers(-30, 30).map(str),
    st.sampled_from(["0", "00000000000005", "-0005", "308", "309", "99999", "-99999", "999999999", "-9999999999"]),
    st.sampled_from(["99999999999999999999", "-99999999999999999999", "+99999999999999999999", "9" * 5000]),
)
_exponent = st.one_of(st.just(""), st.builds("{}{}".format, st.sampled_from("eE"), _exponents))
spellings = st.one_of(
    st.builds("{}{}{}{}".format, st.sampled_from(["", "", "-"]), _whole, _fraction, _exponent),
    st.sampled_from(
        [
            *(
                "1e-99999999999999999999",
                "0e99999999999999999999",
                "-0",
                "-0.0",
                "0e0",
                "1e99999",
                "5.0",
                "50e-1",
                "1e3",
            ),
            *("4999.99999999999999999", "1e400", "-1e400", "9223372036854775808", "1.0000000000000000000001", "1E+3"),
            "9" * 5000,
        ]
    ),
)
"""What the grammar of JSON calls a number (RFC 8259 §6)."""
no_numbers = st.sampled_from(
    ["NaN", "Infinity", "-Infinity", "01", "-01", "1.", ".5", "1e", "+1", "0x10", "1_0", "--1"]
)


def exactly(text: str) -> int | None:
    """The whole number that `text` is, cut where it is beyond everything; None where it is none."""
    if text == "9" * 5000:
        return 10**30  # Python's int would not read it
    mantissa, _, exponent = text.lower().partition("e")
    value = Fraction(mantissa)
    if value == 0:
        return 0
    digits = exponent.lstrip("+-").lstrip("0") or "0"
    power = min(int(digits[:12]) if len(digits) <= 12 else 10**12, 20_000)
    if exponent.startswith("-"):
        return None if power == 20_000 else _whole_of(value / 10**power)
    return (10**30 if value > 0 else -(10**30)) if power == 20_000 else _whole_of(value * 10**power)


def _whole_of(value: Fraction) -> int | None:
    return int(value) if value.denominator == 1 else None


@pytest.mark.parametrize("place", PLACES)
def test_a_number_is_taken_exactly_or_refused_by_name(service: LiveService, place: str) -> None:
    """Every spelling, over HTTP: never an error of the service, and never another number than was written."""
    path, body, pointer, least, most = PLACES[place]
    client = service.client()

    @settings(max_examples=EXAMPLES, derandomize=True, database=None)
    @given(spellings)
    def ask(text: str) -> None:
        answer = client.write(path, (body % text).encode())
        number = exactly(text)
        fits = number is not None and least <= number <= most and not (number == 0 and place == "a change")
        if fits:
            assert answer.status_code != 400, (text, answer.text)
            assert answer.status_code < 500, (text, answer.text)
        else:
            document = answer.json()
            assert (answer.status_code, document["code"]) == (400, "invalid_request"), (text, answer.text)
            assert document["errors"][0]["pointer"] == pointer, (text, answer.text)

    ask()


@settings(max_examples=EXAMPLES * 4, derandomize=True, database=None)
@given(spellings)
def test_what_is_taken_is_the_number_that_was_written(text: str) -> None:
    """Compared with a fraction of whole numbers."""
    number = exactly(text)
    body = f'{{"telegram_id": "1", "amount": {text}, "reason": "x"}}'.encode()
    if number is not None and 1 <= number <= 10**12:
        assert decode(body, DebitPost).amount == number
        return
    with pytest.raises(EdgeError) as caught:
        decode(body, DebitPost)
    assert caught.value.members["errors"][0].pointer == "#/amount"


@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_number_is_400(service: LiveService, place: str) -> None:
    """Whether it is told as broken JSON or as a number that is out of bounds."""
    path, body, *_ = PLACES[place]
    for text in ("NaN", "Infinity", "-Infinity", "01", "-01", "1.", ".5", "1e", "+1", "0x10", "1_0", "--1"):
        answer = service.client().write(path, (body % text).encode())
        assert answer.status_code == 400, (text, answer.text)
        assert answer.json()["errors"], text


def test_numbers_in_details_keep_their_value_or_are_refused_by_name(service: LiveService) -> None:
    """Also beside a member that is written as 5.0; nothing becomes null or infinite."""
    client = service.client()
    for resource in ("5", "5.0"):
        for text, kept in (
            ("1.5", 1.5),
            ("5.0", 5),
            ("-0", 0),
            ("1e-99999999999999999999", 0),
            ("0e99999999999999", 0),
        ):
            body = f'{{"action": "x", "resource_id": {resource}, "details": {{"a": [{text}]}}}}'
            answer = client.write("/v1/audit-logs", body.encode())
            assert (answer.status_code, answer.json().get("details")) == (201, {"a": [kept]}), (body, answer.text)
        for text in (
            "1e400",
            "-1e400",
            "1e99999999999999999999",
            "1e20",
            "9007199254740993",
            "9" * 5000,
            "9" * 400 + ".0",
        ):
            body = f'{{"action": "x", "resource_id": {resource}, "details": {{"a": [{text}]}}}}'
            answer = client.write("/v1/audit-logs", body.encode())
            assert answer.status_code == 400, (body, answer.text)
            assert answer.json()["errors"][0]["pointer"].startswith("#/details"), (body, answer.text)


@pytest.mark.parametrize("tail", ["", "}", ', "b": nul', ', "b": "\\ud800"}', ', "b": ' + "[" * 100_000])
def test_a_number_beyond_all_bounds_in_broken_json_is_400(service: LiveService, tail: str) -> None:
    """Whatever follows."""
    answer = service.client().write("/v1/audit-logs", f'{{"action": "x", "details": {{"a": 1e400{tail}'.encode())
    assert answer.status_code in {400, 413}, answer.text
