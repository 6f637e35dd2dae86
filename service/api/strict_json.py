"""Request bodies, strictly: the types as written, each member once, floats only where JSON Schema sees an integer.

Why not Litestar's own conversion: it takes "5" for 5, ignores repeated members, and lets broken UTF-8 and deep nesting
through as errors of the server.
"""

import json
import re
from functools import cache
from typing import Any

import msgspec

from service.api.problems import EdgeError, Violation, invalid, readable
from service.ledger.errors import ErrorCode

_MISSING_OR_UNKNOWN = re.compile(r"Object (missing required|contains unknown) field `(.*)`$", re.DOTALL)
_PATH_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")


class _Duplicate(Exception):
    pass


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
            parsed = msgspec.convert(_integral(msgspec.json.decode(body)), body_type, strict=True)
        json.loads(body, object_pairs_hook=_refuse_duplicates)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from error
    except _Duplicate as error:
        raise invalid(f"#/{error}", "is given more than once") from error
    except RecursionError as error:
        raise EdgeError(ErrorCode.MALFORMED_JSON, "The body is nested too deeply.") from error
    except (msgspec.DecodeError, ValueError) as error:
        reason = "it is empty" if not body else "it is not UTF-8" if isinstance(error, UnicodeError) else str(error)
        raise EdgeError(ErrorCode.MALFORMED_JSON, f"The body is not a JSON object: {reason}.") from error
    return parsed


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> None:
    seen = set()
    for name, _ in pairs:
        if name in seen:
            raise _Duplicate(name)
        seen.add(name)


def _integral(value: Any) -> Any:
    """`value` with every float that is a whole number as an int: 5.0 is an integer to JSON Schema (draft 2020-12)."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {name: _integral(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_integral(member) for member in value]
    return value


def _invalid(message: str) -> EdgeError:
    text, _, path = message.partition(" - at `")
    pointer = "#" + "".join(f"/{step[0] or step[1]}" for step in _PATH_STEP.findall(path.rstrip("`")))
    found = _MISSING_OR_UNKNOWN.match(text)
    if found:
        said = "is required" if found[1] == "missing required" else "is not a member of this body"
        violation = Violation(f"{pointer}/{found[2]}", said)
    else:
        violation = Violation(pointer, readable(text))
    return EdgeError(ErrorCode.INVALID_REQUEST, f"{violation.pointer}: {violation.message}"[:1000], errors=[violation])
