"""The sealed export of the audit log: lines of JSON from which anyone can recompute the whole tree.

UTF-8 without a byte order mark; every line is one JSON object and ends with a line feed, the last one too. The first:

    {"passbook_audit_export":1,"first_index":N,"previous_leaf":"<hex>","frontier":["<hex>",…]}

N is 0 for a complete log. Otherwise it is the number of the oldest rows that are left out because they were archived.
The member previous_leaf is the leaf before the first row, or 64 zeros if there is none. The member frontier has the
roots of the complete subtrees that the first N leaves make up, the largest first: one for every 1 in the binary form of
N.

Then comes a line for each row, in the order of leaf_index without a gap, and with rising id. Its members may have any
order. Each is there once, and there are no others: leaf_index; the columns of audit_logs by their names; salt,
public_details and leaf; commitment if, and only if, salt is null; rule if, and only if, it is not 1. Salt and hashes
are hex, in small letters, or null. Columns hold their values as SQLite stores them:

    NULL     null
    TEXT     a string
    INTEGER  a number from -(2^53-1) to 2^53-1; any other one {"integer":"-9223372036854775808"}
    REAL     {"real":"<16 hex>"}, IEEE 754, big-endian; never a NaN
    BLOB     {"blob":"<hex>"}
"""

import json
import math
import re
import struct
from collections.abc import Sequence
from typing import Any, Never

import msgspec
from msgspec import Struct

from service.ledger.audit_chain import COLUMNS, NO_LEAF, Frontier, Sealed, Value
from service.ledger.sealing_rules import FIRST_RULE, RULES

VERSION = 1
LINE_BYTES_MAX = 64 * 1024 * 1024
EXACT_INTEGER_MAX = 2**53 - 1
"""The largest integer that every reader of JSON holds exactly (RFC 8259, section 6)."""

_HASHES = ("salt", "public_details", "commitment", "leaf")
_MEMBERS = ("leaf_index", *COLUMNS, *_HASHES)
_ERASED = frozenset(_MEMBERS)
_WITH_SALT = _ERASED - {"commitment"}
_HEADER = frozenset({"passbook_audit_export", "first_index", "previous_leaf", "frontier"})
_BYTES = {"salt": 16, "public_details": 32, "commitment": 32, "leaf": 32}
_HEX = re.compile(r"(?:[0-9a-f]{2})*", re.ASCII)
_INTEGER = re.compile(r"-?[1-9][0-9]{0,18}", re.ASCII)


class ExportError(ValueError):
    """A line that is not as the format has it. The text says why."""


class ExportHeader(Struct, frozen=True):
    """What comes before the first row: how many leaves, the last of them, and their frontier."""

    first_index: int
    previous_leaf: bytes
    frontier: Frontier


def header_line(first_index: int, previous_leaf: bytes, frontier: Sequence[bytes]) -> bytes:
    """The first line of an export."""
    header = {
        "passbook_audit_export": VERSION,
        "first_index": first_index,
        "previous_leaf": previous_leaf.hex(),
        "frontier": [root.hex() for root in frontier],
    }
    return msgspec.json.encode(header) + b"\n"


def row_line(sealed: Sealed) -> bytes:
    """The line of one row. Raises UnicodeEncodeError for text that is not Unicode, which SQLite does not give."""
    members: dict[str, Any] = {"leaf_index": sealed[0]}
    members.update(zip(COLUMNS, map(_json, sealed[1:-5]), strict=True))
    *hashes, rule, leaf = sealed[-5:]
    for name, value in zip(_HASHES, (*hashes, leaf), strict=True):
        members[name] = None if value is None else value.hex()
    if members["salt"] is not None:
        del members["commitment"]
    if rule != FIRST_RULE:
        members["rule"] = rule
    return msgspec.json.encode(members) + b"\n"


def _json(value: Value) -> Any:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return value if -EXACT_INTEGER_MAX <= value <= EXACT_INTEGER_MAX else {"integer": str(value)}
    if isinstance(value, float):
        return {"real": struct.pack(">d", value).hex()}
    return {"blob": value.hex()}


def read_header(line: bytes) -> ExportHeader:
    """What `header_line` was given. Raises ExportError."""
    members = _read_line(line)
    if "passbook_audit_export" not in members:
        raise ExportError("this is no sealed export: its first line does not say passbook_audit_export")
    if members["passbook_audit_export"] != VERSION or isinstance(members["passbook_audit_export"], bool):
        raise ExportError(f"this export is of another version; {VERSION} can be read")
    _require_members(members, _HEADER)
    first_index, roots = _count(members, "first_index"), members["frontier"]
    if not isinstance(roots, list):
        raise ExportError("frontier is not a list")
    stored = b"".join(_bytes(root, 32, "frontier") for root in roots)
    try:
        frontier = Frontier(first_index, stored)
    except ValueError as error:
        raise ExportError(str(error)) from error
    previous = _bytes(members["previous_leaf"], 32, "previous_leaf")
    if first_index == 0 and previous != NO_LEAF:
        raise ExportError("previous_leaf is not 64 zeros, yet nothing is left out before the first row")
    return ExportHeader(first_index, previous, frontier)


def read_row(line: bytes) -> Sealed:
    """What `row_line` was given. Raises ExportError."""
    members = _read_line(line)
    erased = members.get("salt") is None
    rule = _rule(members.pop("rule")) if "rule" in members else FIRST_RULE
    _require_members(members, _ERASED if erased else _WITH_SALT)
    values: list[Any] = [_count(members, "leaf_index")]
    values += [_value(members[name], name) for name in COLUMNS]
    for name in _HASHES:
        value = members.get(name)
        optional = name in {"public_details", "salt" if erased else "commitment"}
        values.append(None if value is None and optional else _bytes(value, _BYTES[name], name))
    values.insert(-1, rule)
    return values


def _rule(value: object) -> int:
    if type(value) is not int or value not in RULES:
        raise ExportError(f"it is sealed by rule {value!r}, which this program does not know")
    if value == FIRST_RULE:
        raise ExportError(f"rule {FIRST_RULE} is written by leaving it out")
    return value


def _read_line(line: bytes) -> dict[str, Any]:
    if len(line) > LINE_BYTES_MAX:
        raise ExportError(f"the line has more than {LINE_BYTES_MAX} bytes")
    if not line.endswith(b"\n"):
        raise ExportError("the line does not end in a line feed: the file was cut")
    if not line.startswith(b"{") or not line.endswith(b"}\n"):
        raise ExportError("the line is not one JSON object and a line feed")
    try:
        members = json.loads(
            line.decode(), object_pairs_hook=_members, parse_float=_no_fraction, parse_constant=_no_fraction
        )
    except ExportError:
        raise
    except (ValueError, RecursionError) as error:
        raise ExportError(f"the line is not JSON: {error}") from error
    assert isinstance(members, dict)
    return members


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ExportError("a member is there twice")
    return members


def _no_fraction(_: str) -> Never:
    raise ExportError('a number is not an integer; a real is {"real":"<16 hex>"}')


def _require_members(members: dict[str, Any], names: frozenset[str]) -> None:
    for wrong, said in ((names - members.keys(), "is missing"), (members.keys() - names, "does not belong there")):
        if wrong:
            raise ExportError(f"{min(wrong)!r} {said}")


def _count(members: dict[str, Any], name: str) -> int:
    value = members[name]
    if type(value) is not int or not 0 <= value <= EXACT_INTEGER_MAX:
        raise ExportError(f"{name} is not a number from 0 on")
    return value


def _bytes(text: object, length: int | None, name: str) -> bytes:
    if not isinstance(text, str) or not _HEX.fullmatch(text) or (length is not None and len(text) != 2 * length):
        raise ExportError(f"{name} is not {'hex' if length is None else f'{2 * length} digits of hex'}")
    return bytes.fromhex(text)


def _value(value: Any, name: str) -> Value:
    if value is None:
        return None
    if isinstance(value, str):
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise ExportError(f"{name} has half a surrogate pair, which is not Unicode")
        return value
    if type(value) is int and -EXACT_INTEGER_MAX <= value <= EXACT_INTEGER_MAX:
        return value
    if isinstance(value, dict) and len(value) == 1:
        ((kind, text),) = value.items()
        if kind == "integer" and isinstance(text, str) and _INTEGER.fullmatch(text):
            number = int(text)
            if abs(number) > EXACT_INTEGER_MAX and -(2**63) <= number < 2**63:
                return number
        if kind == "blob":
            return _bytes(text, None, name)
        if kind == "real":
            real: float = struct.unpack(">d", _bytes(text, 8, name))[0]
            if not math.isnan(real):
                return real
    raise ExportError(f"{name} is not a value as this format writes it")
