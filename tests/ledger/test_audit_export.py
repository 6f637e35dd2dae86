"""A line of the export is read as it was written, and nothing else is read."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.ledger.audit_chain import COLUMNS, NO_LEAF
from service.ledger.audit_export import ExportError, header_line, read_header, read_row, row_line
from service.ledger.sealing_rules import RULES
from tests.audit.log import sealed_rows
from tests.ledger.test_audit_chain import VALUES, leaves_of, same
from tests.some import some

ROW: list[Any] = [1, 5, None, "2026-01-19 12:00:00", "통장", "123", "{}", "a", None, None, None, None, None, None]
(SEALED,) = sealed_rows([ROW])
(ERASED,) = sealed_rows([ROW], {0})


@given(st.lists(VALUES, min_size=len(COLUMNS), max_size=len(COLUMNS)), st.booleans())
def test_a_row_is_read_as_it_was_written(values: list[Any], erased: bool) -> None:
    """To the last bit: reals, blobs, and integers that JSON's readers would round."""
    sealed = [0, *values, *(ERASED if erased else SEALED)[-5:]]
    line = row_line(sealed)
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert all(some(map(same, read_row(line), sealed)))


@given(st.integers(0, 300))
def test_a_header_is_read_as_it_was_written(size: int) -> None:
    """With as many roots as the number of leaves has ones."""
    roots = leaves_of(size.bit_count())
    header = read_header(header_line(size, NO_LEAF, roots))
    assert (header.first_index, header.previous_leaf, header.frontier.roots) == (size, NO_LEAF, roots)


def test_commitment_is_there_only_without_a_salt() -> None:
    """An erased row keeps it in the salt's stead."""
    assert "commitment" not in json.loads(row_line(SEALED))
    assert json.loads(row_line(ERASED))["salt"] is None
    assert json.loads(row_line(ERASED))["commitment"] == ERASED[-3].hex()


def test_a_line_names_its_rule_unless_it_is_the_first() -> None:
    """Lines of rule 1 are byte for byte those that were written before there was another."""
    for rule in some(RULES):
        (sealed,) = sealed_rows([ROW], rules=lambda _, rule=rule: rule)  # type: ignore[misc]
        assert json.loads(row_line(sealed)).get("rule", 1) == rule
        assert ("rule" in json.loads(row_line(sealed))) == (rule != 1)
        assert read_row(row_line(sealed)) == sealed


def changed(**members: Any) -> bytes:
    whole = {**json.loads(row_line(SEALED)), **members}
    return json.dumps({name: value for name, value in whole.items() if value is not ...}).encode() + b"\n"


LINE = row_line(SEALED)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (LINE[:-1], "does not end in a line feed"),
        (LINE[:-10], "does not end in a line feed"),
        (LINE[:-10] + b"\n", "one JSON object"),
        (LINE[:-1] + b"\r\n", "one JSON object"),
        (b"\xef\xbb\xbf" + LINE, "one JSON object"),
        (b"\n", "one JSON object"),
        (b"[]\n", "one JSON object"),
        (b"{}{}\n", "not JSON"),
        (b"{\n}\n", "'action' is missing"),
        (LINE.replace("통".encode(), b"\xff"), "not JSON"),
        (b'{"id":1,' + LINE[1:], "twice"),
        (changed(extra=1), "'extra' does not belong"),
        (changed(actor=...), "'actor' is missing"),
        (changed(commitment="00" * 32), "'commitment' does not belong"),
        (changed(salt=None), "'commitment' is missing"),
        (changed(salt="00" * 15), "salt is not 32 digits"),
        (changed(leaf=None), "leaf is not 64 digits"),
        (changed(leaf="A" * 64), "leaf is not 64 digits"),
        (changed(public_details=5), "public_details is not"),
        (changed(rule=1), "rule 1 is written by leaving it out"),
        (changed(rule=9), "sealed by rule 9, which this program does not know"),
        (changed(rule=True), "sealed by rule True"),
        (changed(rule="2"), "sealed by rule '2'"),
        (changed(rule=None), "sealed by rule None"),
        (changed(leaf_index=-1), "leaf_index is not a number"),
        (changed(leaf_index=True), "leaf_index is not a number"),
        (changed(leaf_index="0"), "leaf_index is not a number"),
        (changed(user_id=1.0), "not an integer"),
        (changed(user_id=1e400), "not an integer"),
        (changed(user_id=float("nan")), "not an integer"),
        (changed(user_id=2**53), "user_id is not a value"),
        (changed(user_id=7777).replace(b"7777", b"7" * 5000), "not JSON"),
        (changed(user_id=True), "user_id is not a value"),
        (changed(user_id=[]), "user_id is not a value"),
        (changed(user_id={}), "user_id is not a value"),
        (changed(user_id={"integer": "5"}), "user_id is not a value"),
        (changed(user_id={"integer": "9223372036854775808"}), "user_id is not a value"),
        (changed(user_id={"integer": "+9223372036854775807"}), "user_id is not a value"),
        (changed(user_id={"integer": 9223372036854775807}), "user_id is not a value"),
        (changed(user_id={"real": "7ff8000000000000"}), "user_id is not a value"),
        (changed(user_id={"real": "00"}), "user_id is not 16 digits"),
        (changed(user_id={"blob": "0"}), "user_id is not hex"),
        (changed(user_id={"blob": "", "real": ""}), "user_id is not a value"),
        (changed(actor="\ud800"), "half a surrogate pair"),
        (b'{"id":' + b"[" * 100_000 + b"}\n", "not JSON"),
    ],
)
def test_what_is_no_row_is_told_what_is_wrong(line: bytes, said: str) -> None:
    """Each of these another reader might take for a row."""
    with pytest.raises(ExportError, match=said):
        read_row(line)


HEADER = header_line(3, NO_LEAF, leaves_of(2))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (LINE, "no sealed export"),
        (HEADER.replace(b'export":1', b'export":2'), "another version"),
        (HEADER.replace(b'export":1', b'export":true'), "another version"),
        (HEADER.replace(b":3", b":4"), "a tree of 4 leaves has 1 such roots, not 2"),
        (HEADER.replace(b":3", b":-3"), "first_index is not"),
        (HEADER.replace(b"first_index", b"first"), "'first_index' is missing"),
        (HEADER.replace(b"}", b',"x":1}'), "'x' does not belong"),
        (HEADER.replace(b'00"', b'"'), "previous_leaf is not 64 digits"),
        (header_line(0, b"\x01" * 32, []), "not 64 zeros"),
        (header_line(0, NO_LEAF, []).replace(b"[]", b"null"), "frontier is not a list"),
    ],
)
def test_what_is_no_header_is_told_what_is_wrong(line: bytes, said: str) -> None:
    """Always there, so that a file without its beginning is not taken for a whole log."""
    with pytest.raises(ExportError, match=said):
        read_header(line)
