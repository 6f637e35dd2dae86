"""Small faults of SQL, each as somebody might write it: a clause that is missing, `<` where `<=` is meant.

SQL is read as a row of tokens. A condition (what follows WHEN, WHERE, ON or CHECK, and what stands in parentheses) is
cut at its ORs, and these at their ANDs; each operand is left out, turned around, and made to hold always. Then each
operator, text, number and column gives way to another one. A fault's label tells what was written in place of what.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

_TOKEN = re.compile(
    r"(?P<skip>\s+|--[^\n]*)|x?'(?:[^']|'')*'|\"[^\"]*\"|\d+|(?:NEW|OLD)\.\w+|IS\s+NOT\b|\w+(?:\.\w+)?|<=|>=|<>|\|\||.",
    re.IGNORECASE | re.DOTALL,
)
_OTHER_OPERATORS = {
    "<=": ("<", "="),
    ">=": (">", "="),
    "<": ("<=", ">"),
    ">": (">=", "<"),
    "=": ("<>", "<=", ">="),
    "<>": ("=",),
    "IS NOT": ("IS",),
    "IS": ("IS NOT",),
    "+": ("-",),
    "-": ("+",),
    "*": ("+",),
    "%": ("+",),
    "&": ("|",),
    "MAX": ("MIN",),
    "MIN": ("MAX",),
}
_WITHOUT_NULL = {"IS NOT": "<>", "IS": "=", "<>": "IS NOT", "=": "IS"}
_ENDS_OF_A_CONDITION = {"BEGIN", "ORDER", "GROUP", "UNION", "WHERE", "JOIN", "LEFT", "ON", ";"}
_HOLDS, _HOLDS_NOT = "1", "0"


class Fault(Struct, frozen=True):
    """A statement with one fault. `label`: what was written in place of what."""

    label: str
    sql: str


class _Edit(Struct, frozen=True):
    """Tokens from `start` to before `end` give way to `text`."""

    start: int
    end: int
    text: str
    kind: str


def tokens(sql: str) -> list[str]:
    """The statement's tokens without comments; IS NOT is one."""
    found = (match for match in _TOKEN.finditer(sql) if match["skip"] is None)
    return ["IS NOT" if match[0].upper().split() == ["IS", "NOT"] else match[0] for match in found]


def faults(
    sql: str,
    *,
    words: Iterable[str] = (),
    columns: Sequence[str] = (),
    never_null: Iterable[str] = (),
    lists: bool = False,
) -> Iterator[Fault]:
    """The faults of `sql`, each with a label of its own.

    `words`: what a list of texts may wrongly hold. `columns`: those of a trigger's table, whose neighbours stand for
    one another. `never_null`: those of them between which IS NOT and <> are the same. `lists`: also what stands in
    lists (of a SELECT, of SET, of ORDER BY), COALESCE, LEFT JOIN, and the whole statement.
    """
    row = tokens(sql)
    seen: Counter[str] = Counter()
    edits = [
        *_of_conditions(row),
        *_of_operators(row, set(never_null)),
        *_of_values(row, list(words)),
        *_of_columns(row, list(columns)),
        *(_of_lists(row) if lists else ()),
    ]
    for edit in edits:
        old = " ".join(row[edit.start : edit.end])
        around = " ".join(row[max(edit.start - 2, 0) : edit.end + 2])
        label = f"{edit.kind}: {old or 'nothing'} -> {edit.text or 'nothing'} in {around}"
        seen[label] += 1
        if seen[label] > 1:
            label = f"{label} ({seen[label]})"
        yield Fault(label, " ".join([*row[: edit.start], edit.text, *row[edit.end :]]))


def _closing(row: list[str], opening: int) -> int:
    """Where the parenthesis that opens at `opening` closes."""
    depth = 0
    for at in range(opening, len(row)):
        depth += (row[at] == "(") - (row[at] == ")")
        if depth == 0:
            return at
    raise ValueError("a parenthesis is never closed")


def _of_conditions(row: list[str]) -> Iterator[_Edit]:
    for at, token in enumerate(row):
        word = token.upper()
        is_join = word == "ON" and row[at + 1 : at + 2] != [] and "(" not in row[at + 1] and _is_join(row, at)
        if word in {"WHEN", "WHERE"} or is_join:
            yield from _of_condition(row, at + 1, _end_of_condition(row, at + 1))
        elif word == "CHECK":
            yield from _of_condition(row, at + 2, _closing(row, at + 1))


def _is_join(row: list[str], at: int) -> bool:
    return any(token.upper() == "JOIN" for token in row[max(at - 5, 0) : at])


def _end_of_condition(row: list[str], start: int) -> int:
    at = start
    while at < len(row):
        if row[at] == ")" or row[at].upper() in _ENDS_OF_A_CONDITION:
            return at
        at = _closing(row, at) + 1 if row[at] == "(" else at + 1
    return at


def _cut(row: list[str], start: int, end: int, word: str) -> list[tuple[int, int]]:
    """The parts of a condition between the occurrences of AND or OR at its own level."""
    parts, begun, at, between = [], start, start, False
    while at < end:
        token = row[at].upper()
        if token == "(":
            at = _closing(row, at)
        elif token == "BETWEEN":
            between = True
        elif token == "AND" and between:
            between = False
        elif token == word:
            parts.append((begun, at))
            begun = at + 1
        at += 1
    return [*parts, (begun, end)]


def _of_condition(row: list[str], start: int, end: int) -> Iterator[_Edit]:
    alternatives = _cut(row, start, end, "OR")
    several = len(alternatives) > 1
    for first, last in alternatives:
        operands = _cut(row, first, last, "AND")
        if several:
            yield _Edit(first, last, _HOLDS_NOT, "left out")
            if first > start:
                yield _Edit(first - 1, first, "AND", "joined")
        for begin, stop in operands:
            if (len(operands) > 1 or not several) and row[begin:stop] != ["true"]:
                yield _Edit(begin, stop, _HOLDS, "always")
            if len(operands) > 1 and begin > first:
                yield _Edit(begin - 1, begin, "OR", "joined")
            if len(operands) > 1 or several or row[begin].upper() not in {"NOT", "EXISTS"}:
                yield _Edit(begin, stop, f"NOT ( {' '.join(row[begin:stop])} )", "turned around")
            yield from _of_parentheses(row, begin, stop)


def _of_parentheses(row: list[str], start: int, end: int) -> Iterator[_Edit]:
    """The conditions in parentheses; those of a SELECT are found by their WHERE."""
    at = start
    while at < end:
        if row[at] == "(":
            closing = _closing(row, at)
            if any(token.upper() in {"AND", "OR"} for token in _own_level(row, at + 1, closing)):
                if row[at + 1].upper() not in {"SELECT", "WITH"}:
                    yield from _of_condition(row, at + 1, closing)
            elif row[at + 1].upper() not in {"SELECT", "WITH"}:
                yield from _of_parentheses(row, at + 1, closing)
            at = closing
        at += 1


def _own_level(row: list[str], start: int, end: int) -> Iterator[str]:
    at = start
    while at < end:
        if row[at] == "(":
            at = _closing(row, at)
        else:
            yield row[at]
        at += 1


def _never_null(token: str, columns: set[str]) -> bool:
    """Whether `token` is a text, a number, or one of `columns`."""
    return token[0] == "'" or token[:2] == "x'" or token.isdecimal() or token.rpartition(".")[2] in columns


def _assignments(row: list[str]) -> set[int]:
    """Where `=` gives a column its value."""
    found, within = set(), False
    for at, token in enumerate(row):
        within = token.upper() == "SET" or (within and token.upper() not in {"WHERE", ";"})
        if within and token == "=" and row[at - 2].upper() in {"SET", ","}:
            found.add(at)
    return found


def _of_operators(row: list[str], never_null: set[str]) -> Iterator[_Edit]:
    given = _assignments(row)
    for at, token in enumerate(row):
        word = token.upper()
        for other in _OTHER_OPERATORS.get(word, ()):
            is_of_null = row[at + 1].upper() == "NULL" and other not in {"IS", "IS NOT"}
            if not is_of_null and at not in given and row[at - 1 : at + 2] != ["(", "*", ")"]:
                yield _Edit(at, at + 1, other, "operator")
        if word in _WITHOUT_NULL and row[at + 1].upper() != "NULL" and at not in given:
            sides = [_never_null(side, never_null) for side in (row[at - 1], row[at + 1])]
            if not (all(sides) if word[:2] == "IS" else any(sides)):
                yield _Edit(at, at + 1, _WITHOUT_NULL[word], "null")
        if word == "NOT" and row[at + 1].upper() in {"EXISTS", "IN", "("}:
            yield _Edit(at, at + 1, "", "operator")
        if word[:4] in {"NEW.", "OLD."}:
            yield _Edit(at, at + 1, ("OLD" if word[:3] == "NEW" else "NEW") + token[3:], "row")


def _of_values(row: list[str], words: list[str]) -> Iterator[_Edit]:
    for at, token in enumerate(row):
        if token.startswith("'") and row[at + 1 : at + 2] != [";"]:
            yield _Edit(at, at + 1, "'no such word'", "text")
        if token.isdecimal() and row[at - 1].upper() != "SELECT":
            yield _Edit(at, at + 1, str(int(token) + 1), "number")
            if int(token) > 0:
                yield _Edit(at, at + 1, str(int(token) - 1), "number")
        if token.upper() == "IN" and row[at + 2].startswith("'"):
            closing = _closing(row, at + 1)
            members = row[at + 2 : closing : 2]
            for number, member in enumerate(members):
                rest = members[:number] + members[number + 1 :]
                yield _Edit(at + 2, closing, " , ".join(rest), f"without {member}")
            for word in words:
                if f"'{word}'" not in members:
                    yield _Edit(at + 2, closing, " , ".join([*members, f"'{word}'"]), f"with {word}")


def _of_columns(row: list[str], columns: list[str]) -> Iterator[_Edit]:
    for at, token in enumerate(row):
        prefix, dot, name = token.rpartition(".")
        if prefix.upper() in {"NEW", "OLD"} and name in columns:
            for step in (1, -1):
                other = columns[(columns.index(name) + step) % len(columns)]
                yield _Edit(at, at + 1, f"{prefix}{dot}{other}", "column")


_ENDS_OF_A_LIST = {"FROM", "WHERE", "ON", ";", "GROUP", "ORDER", "DO", "RETURNING"}


def _of_lists(row: list[str]) -> Iterator[_Edit]:
    """The statement is gone; a value is null or its neighbour's; a setting, an order or a JOIN's LEFT is left out."""
    if "CREATE" not in row:
        yield _Edit(0, len(row), "SELECT 1", "gone")
    for at, token in enumerate(row):
        word = token.upper()
        if word in {"SELECT", "SET"}:
            yield from _of_list(row, _parts(row, at + 1), word)
        elif word in {"COALESCE", "JSON_OBJECT"} and row[at + 1] == "(":
            items = _parts(row, at + 2)
            yield from _of_list(row, items[1::2] if word == "JSON_OBJECT" else items, word)
        elif word == "BY" and row[at - 1].upper() == "ORDER":
            first, _ = _parts(row, at + 1)[0]
            end = _parts(row, at + 1)[-1][1]
            yield _Edit(first, end, f"{' '.join(row[first:end])} DESC", "order")
        elif word == "LEFT" and row[at + 1].upper() == "JOIN":
            yield _Edit(at, at + 1, "", "join")


def _parts(row: list[str], start: int) -> list[tuple[int, int]]:
    """The items between commas from `start` to the end of a list."""
    parts, begun, at = [], start, start
    while at < len(row) and row[at] != ")" and row[at].upper() not in _ENDS_OF_A_LIST:
        if row[at] == "(":
            at = _closing(row, at)
        elif row[at] == ",":
            parts.append((begun, at))
            begun = at + 1
        at += 1
    return [*parts, (begun, at)]


def _of_list(row: list[str], items: list[tuple[int, int]], word: str) -> Iterator[_Edit]:
    for number, (first, last) in enumerate(items):
        text = " ".join(row[first:last])
        if word == "SET":
            column = row[first]
            yield _Edit(first, last, f"{column} = {column}", "kept")
        elif text not in {"1", "NULL"}:
            yield _Edit(first, last, "NULL", "null")
            if len(items) > 1 and word != "COALESCE":
                other = items[(number + 1) % len(items)]
                yield _Edit(first, last, " ".join(row[other[0] : other[1]]), "neighbour")
