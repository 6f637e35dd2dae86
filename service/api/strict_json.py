"""Request bodies, strictly: the types as written, each member once, floats only where JSON Schema sees an integer.

Why not Litestar's own conversion: it takes "5" for 5, ignores repeated members, and lets broken UTF-8 and deep nesting
through as errors of the server.
"""

import contextlib
import json
import math
import re
from functools import cache
from typing import Any

import msgspec

from service.api.problems import EdgeError, Violation, invalid, readable
from service.ledger.errors import ErrorCode

_MISSING_OR_UNKNOWN = re.compile(r"Object (missing required|contains unknown) field `([^`]*)`(.*)$", re.DOTALL)
_PATH_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_NAME_CHARACTERS_MAX = 100


class _Duplicate(Exception):
    pass


class _Digits(str):
    """A number as written; told from a JSON string by its type."""


class _Pairs(list[tuple[str, Any]]):
    """An object's members as written, repeated ones too; told from a JSON array by its type."""


@cache
def _decoder(body_type: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(body_type, strict=True)


@cache
def may_be_empty(body_type: Any) -> bool:
    """Whether every member of the body is optional, so that no body at all is understood as {}."""
    try:
        _decoder(body_type).decode(b"{}")
    except msgspec.ValidationError:
        return False
    return True


def decode(body: bytes, body_type: Any) -> Any:
    """`body` as an instance of `body_type`. Raises EdgeError (malformed_json, invalid_request) naming the member."""
    if not body and may_be_empty(body_type):
        body = b"{}"
    try:
        try:
            parsed = _decoder(body_type).decode(body)
        except msgspec.ValidationError as error:
            if "float" not in str(error):
                raise
            parsed = msgspec.convert(_exact.decode(body), body_type, strict=True)
        _unique.decode(body.decode())
    except msgspec.ValidationError as error:
        raise _invalid(str(error), body) from error
    except _Duplicate:
        raise invalid(_duplicate_in(_as_written.decode(body.decode()), "#"), "is given more than once") from None
    except RecursionError:
        raise _malformed("it is nested too deeply") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise _malformed(_reason(body, error)) from error
    return parsed


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise _Duplicate


# Made once: json.loads makes a decoder anew for every body. Numbers stay text, they are read by msgspec.
_unique = json.JSONDecoder(object_pairs_hook=_refuse_duplicates, parse_int=str, parse_float=str)
_as_written = json.JSONDecoder(object_pairs_hook=_Pairs, parse_int=_Digits, parse_float=_Digits)


def _duplicate_in(value: Any, pointer: str) -> str:
    """The pointer of the first repeated member within `value`, which stands at `pointer`; "" when there is none."""
    if not isinstance(value, list):
        return ""
    seen = set()
    for step, member in value if isinstance(value, _Pairs) else enumerate(value):
        name = str(step)
        there = f"{pointer}/{_token(name)}"
        if name in seen:
            return there
        seen.add(name)
        found = _duplicate_in(member, there)
        if found:
            return found
    return ""


def _too_large_in(value: Any, pointer: str) -> str:
    """The pointer of the first number within `value` that no float can hold; "" when there is none."""
    if isinstance(value, _Digits):
        return pointer if math.isinf(float(value)) else ""
    if not isinstance(value, list):
        return ""
    members = value if isinstance(value, _Pairs) else enumerate(value)
    found = (_too_large_in(member, f"{pointer}/{_token(str(step))}") for step, member in members)
    return next(filter(None, found), "")


_NUMBER = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?)([0-9]+))?")
_DIGITS_MAX = 20
_EXPONENT_DIGITS_MAX = 9


def _number(text: str) -> int | float:
    """A number with a point or an exponent: an int where it is whole, as 5.0 is to JSON Schema (draft 2020-12).

    From its digits: as a float, 4999.99999999999999999 would be 5000. One of more than _DIGITS_MAX digits becomes one
    that is too large for every member.
    """
    found = _NUMBER.fullmatch(text)
    assert found is not None  # msgspec has read it
    sign, whole, fraction, exponent_sign, exponent = found.groups(default="")
    digits = (whole + fraction).lstrip("0")
    significant = digits.rstrip("0")
    if not significant:
        return 0
    exponent = exponent.lstrip("0")
    power = int(exponent or "0") if len(exponent) <= _EXPONENT_DIGITS_MAX else 10**_EXPONENT_DIGITS_MAX
    power = (-power if exponent_sign == "-" else power) - len(fraction) + len(digits) - len(significant)
    if power < 0:
        return float(text)
    magnitude: int = int(significant) * 10**power if len(significant) + power <= _DIGITS_MAX else 10**_DIGITS_MAX
    return -magnitude if sign else magnitude


_exact: msgspec.json.Decoder[Any] = msgspec.json.Decoder(float_hook=_number)


def _malformed(reason: str) -> EdgeError:
    violation = Violation("#", f"must be one JSON object; {reason}")
    return EdgeError(ErrorCode.MALFORMED_JSON, f"The body is not a JSON object: {reason}.", errors=[violation])


def _reason(body: bytes, error: Exception) -> str:
    if not body:
        return "it is empty"
    if isinstance(error, UnicodeError):
        return "it is not UTF-8"
    if "truncated" in str(error):
        half = _SURROGATE_ESCAPE.search(body) is not None
        return "half of a surrogate pair stands alone, or it ends too early" if half else "it ends too early"
    return str(error).removeprefix("JSON is malformed: ")


def _invalid(message: str, body: bytes) -> EdgeError:
    text, _, path = message.partition(" - at `")
    pointer = "#" + "".join(f"/{_token(step[0] or step[1])}" for step in _PATH_STEP.findall(path.rstrip("`")))
    if pointer.endswith("...") or "/.../" in pointer:  # msgspec does not name the members of a free object
        with contextlib.suppress(ValueError, RecursionError):  # what follows may be no JSON
            pointer = _too_large_in(_as_written.decode(body.decode()), "#") or pointer
        pointer = pointer.partition("/...")[0]
    found = _MISSING_OR_UNKNOWN.match(text)
    if not found:
        return invalid(pointer, readable(text))
    said = "is required" if found[1] == "missing required" else "is not a member of this body; leave it out"
    said += found[3]
    return invalid(f"{pointer}/{_token(found[2])}", said)


def _token(name: str) -> str:
    """A member's name as a step of a JSON pointer (RFC 6901 §3), cut where it is absurdly long."""
    return name[:_NAME_CHARACTERS_MAX].replace("~", "~0").replace("/", "~1")
