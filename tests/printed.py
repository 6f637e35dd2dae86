"""Whether a program printed what a page says, and what a page says anew.

A text is read as JSON documents and lines, in order. JSON is compared by its values, in whatever layout, its members in
their order; everything else is compared letter by letter. The exceptions are these:

- `…` stands for one value: letters without a blank; in JSON a number, true, false or a string without a blank. The
  blanks before it, where they are two or more, fill a column up and may be more or fewer.
  It is the program's own, and compared like any letter, at the end of a line behind a blank (`copying …`), behind a
  letter or digit (a cell that was cut), and within a string of JSON.
- `⋮` stands for one line or more on a line of its own, and for one member or more in an object or array of JSON.
- A time, an id of a request, a hash, a prefix of a key, a version and a duration stand for another of the same form
  (`_FORMS`), as a whole. Within a block one of them stands for the same one everywhere, and two ids, hashes or keys
  stay two. A time at midnight is one that somebody typed: it stands for itself, as every other number does.

A traceback and a whole API key fit nothing. `⋮` covers no line that tells an error.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

WIDTH = 116
"""How wide JSON is written."""

_DAY = r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])"
_CLOCK = r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d"
_FORMS = {
    "time_ms": rf"{_DAY}T(?!00:00:00\.000Z){_CLOCK}\.\d\d\dZ",
    "time_s": rf"{_DAY}T(?!00:00:00Z){_CLOCK}Z",
    "stamp": r"\d{8}T\d{6}Z",
    "sha256": r"[0-9a-f]{64}",
    "request_id": r"[0-9a-f]{32}",
    "verifier": r"passbook-[0-9a-f]{8}\+[0-9a-f]{8}\+[A-Za-z0-9+/]{44}",
    "log": r"passbook-[0-9a-f]{8}",
    "key_prefix": r"pbk_[0-9A-Za-z]{8}",
    "base64": r"(?=\S*[A-Z])(?=\S*[a-z])(?:[A-Za-z0-9+/]{4}){10,}[A-Za-z0-9+/]{2}(?:[A-Za-z0-9+/]|=)=",
    "sqlite": r"3\.\d+\.\d+",
    "curl": r"curl/\d+\.\d+\.\d+",
    "duration": r"\d+\.\d s",
}
_CHANCE = {"time_ms", "time_s", "stamp", "sqlite", "curl"}
"""Two of these that differ on a page may be alike elsewhere."""
_WHOLE = r"(?<![\w.+/])(?:{})(?![\w+/=])"
_TOKEN = re.compile("|".join(f"(?P<{kind}>{_WHOLE.format(form)})" for kind, form in _FORMS.items()))
_VALUE = re.compile(r"(?<![^\W_])(?:(?<!\s)…|…(?!$))")
_NEVER = re.compile(r"^\s*Traceback \(most recent call last\)|pbk_[0-9A-Za-z]{8}_[0-9A-Za-z]", re.M)
_ERROR = re.compile(r"\s*(?:Error\b|error\b|[\w.]+(?:Error|Exception)\b)")
_JSON = re.compile(
    r'\s*(?:(?P<string>"(?:[^"\\\x00-\x1f]|\\.)*")'
    r"|(?P<plain>-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|null)|(?P<mark>[][{},:…⋮]))"
)


class _Node(NamedTuple):
    """A line, or a piece of JSON.

    `value` is a line's text, the members of an object (each of kind "member" with its name and node), the items of an
    array, the letters of a string, the spelling of a plain value; None for the marks.
    """

    kind: str
    value: Any = None


_Pairs = list[tuple[str, str, str]]
"""What stood for what: the kind, as the page has it, as it was printed."""
_ONE, _MORE = _Node("…"), _Node("⋮")


def fits(said: str, printed: str) -> bool:
    """Whether `printed` is what `said` says."""
    if _NEVER.search(printed):
        return False
    pairs = _in_order(_read(said, marks=True), _read(printed, marks=False))
    return pairs is not None and _consistent(pairs)


def merged(said: str, printed: str, *, json_kind: bool) -> str:
    """`printed` with the marks of `said` where they still fit; JSON so that it can be read."""
    if not json_kind:
        lines = [_Node("line", line) for line in _lines(printed)]
        plain = "\n".join(_lines(printed))
        kept = "\n".join(_shown(node) for node in _kept([_mark(line) for line in _lines(said)], lines))
    else:
        nodes = _read(printed, marks=False)
        plain = "\n".join(map(_shown, nodes))
        kept = "\n".join(map(_shown, _kept(_read(said, marks=True), nodes)))
    return kept if fits(kept, printed) else plain


def _lines(text: str) -> list[str]:
    return "\n".join(line.rstrip() for line in text.split("\n")).strip("\n").split("\n")


def _mark(line: str) -> _Node:
    return _MORE if line.strip() == "⋮" else _Node("line", line)


def _read(text: str, *, marks: bool) -> list[_Node]:
    """The documents and lines of a text; marks only where it is a page's."""
    text, nodes, at = "\n".join(_lines(text)), [], 0
    while at < len(text):
        if text[at] in "{[" and (found := _json(text, at, marks=marks)):
            node, at = found
            at += len(text) - at - len(text[at:].lstrip())
        else:
            end = text.find("\n", at)
            end = len(text) if end < 0 else end
            node, at = _mark(text[at:end]) if marks else _Node("line", text[at:end]), end + 1
        nodes.append(node)
    return nodes


def _json(text: str, start: int, *, marks: bool) -> tuple[_Node, int] | None:
    """The JSON at `start` and where it ends; None where there is none."""
    found = _JSON.match(text, start)
    if not found:
        return None
    at = found.end()
    if found["string"] is not None:
        return _Node("string", json.loads(found["string"])), at
    if found["plain"] is not None:
        return _Node("plain", found["plain"]), at
    if found["mark"] in "…⋮":
        return (_Node(found["mark"]), at) if marks else None
    if found["mark"] not in "[{":
        return None
    end = {"[": "]", "{": "}"}[found["mark"]]
    inner: list[_Node] = []
    while True:
        found_next = _JSON.match(text, at)
        if found_next and found_next["mark"] == end and not inner:
            return _Node(found["mark"], inner), found_next.end()
        if not (item := _member(text, at, marks=marks) if end == "}" else _json(text, at, marks=marks)):
            return None
        inner.append(item[0])
        following = _JSON.match(text, item[1])
        if not following or following["mark"] not in {",", end}:
            return None
        at = following.end()
        if following["mark"] == end:
            return _Node(found["mark"], inner), at


def _member(text: str, start: int, *, marks: bool) -> tuple[_Node, int] | None:
    name = _json(text, start, marks=marks)
    if not name or name[0] == _MORE:
        return name
    colon = _JSON.match(text, name[1])
    if name[0].kind != "string" or not colon or colon["mark"] != ":":
        return None
    value = _json(text, colon.end(), marks=marks)
    if not value or value[0] == _MORE:
        return None
    return _Node("member", (name[0].value, value[0])), value[1]


def _in_order(said: Sequence[_Node], printed: Sequence[_Node]) -> _Pairs | None:
    """The pairs of two sequences that fit, else None."""
    pairs: _Pairs = []
    for at, node in enumerate(said):
        if node == _MORE:
            for end in range(at + 1, len(printed) + 1):
                skipped = printed[end - 1]
                if skipped.kind == "line" and _ERROR.match(skipped.value):
                    return None
                if (rest := _in_order(said[at + 1 :], printed[end:])) is not None:
                    return pairs + rest
            return None
        if at >= len(printed) or (found := _alike(node, printed[at])) is None:
            return None
        pairs += found
    return pairs if len(said) == len(printed) else None


def _alike(said: _Node, printed: _Node) -> _Pairs | None:
    if said == _ONE:
        value = printed.kind == "plain" and printed.value != "null"
        value |= printed.kind == "string" and re.fullmatch(r"[^\s…]+", printed.value) is not None
        return [] if value else None
    if said.kind != printed.kind:
        return None
    if said.kind == "member":
        return _alike(said.value[1], printed.value[1]) if said.value[0] == printed.value[0] else None
    if said.kind in "{[":
        return _in_order(said.value, printed.value)
    if said.kind == "plain":
        return [] if said.value == printed.value else None
    return _words(said.value, printed.value, values=said.kind == "line")


def _words(said: str, printed: str, *, values: bool) -> _Pairs | None:
    pattern, tokens, at = "", [], 0
    for found in _pieces(said, values=values):
        pattern += re.escape(said[at : found.start()])
        if found.lastgroup is None:
            pattern = re.sub(r"(?:\\ ){2,}$", " +", pattern) + r"(?:[^\s…]+|…)"
        else:
            tokens.append((found.lastgroup, found[0]))
            pattern += f"({_WHOLE.format(_FORMS[found.lastgroup])})"
        at = found.end()
    whole = re.fullmatch(pattern + re.escape(said[at:]), printed)
    if not whole:
        return None
    pairs = [(kind, token, other) for (kind, token), other in zip(tokens, whole.groups(), strict=True)]
    return pairs if all(_same_form(*pair) for pair in pairs) else None


def _pieces(said: str, *, values: bool) -> Iterator[re.Match[str]]:
    found = [*_TOKEN.finditer(said), *(_VALUE.finditer(said) if values else [])]
    return iter(sorted(found, key=lambda match: match.start()))


def _same_form(kind: str, said: str, printed: str) -> bool:
    """Whether a hash has as many letters and as many = as the other; the other forms say so themselves."""
    return kind != "base64" or (len(said), said.count("=")) == (len(printed), printed.count("="))


def _consistent(pairs: _Pairs) -> bool:
    """Whether each token of a page stands for the same one everywhere, and two ids, hashes or keys for two."""
    there = {(kind, said, printed) for kind, said, printed in pairs if kind != "duration"}
    saids = {(kind, said) for kind, said, _ in there}
    printeds = {(kind, printed) for kind, said, printed in there if kind not in _CHANCE}
    return len(there) == len(saids) and len(printeds) == len([pair for pair in there if pair[0] not in _CHANCE])


def _kept(said: Sequence[_Node], printed: Sequence[_Node]) -> list[_Node]:
    """`printed` with the … of `said`, and with its ⋮ where what follows is found again."""
    shown, at, waiting = [], 0, list(printed)
    while waiting:
        node = waiting.pop(0)
        if at < len(said) and said[at] == _MORE:
            after = said[at + 1 : at + 2]
            until = [n for n, other in enumerate(waiting) if not after or _kin(after[0], other)]
            if until or not after:
                shown.append(_MORE)
                waiting = waiting[until[0] :] if after else []
                at += 1
                continue
        place = next((n for n in range(at, len(said)) if _kin(said[n], node)), None)
        shown.append(node if place is None else _renewed(said[place], node))
        at = at if place is None else place + 1
    return shown


def _kin(said: _Node, printed: _Node) -> bool:
    """Whether both tell of the same: members of one name, documents of one kind, and else what fits."""
    if said.kind == printed.kind == "member":
        return bool(said.value[0] == printed.value[0])
    if printed.kind in "{[":
        return said.kind == printed.kind
    return _alike(said, printed) is not None


def _renewed(said: _Node, printed: _Node) -> _Node:
    if said == _ONE:
        return said if _alike(said, printed) is not None else printed
    if said.kind != printed.kind:
        return printed
    if said.kind == "member":
        return _Node("member", (printed.value[0], _renewed(said.value[1], printed.value[1])))
    if said.kind in "{[":
        return _Node(said.kind, _kept(said.value, printed.value))
    return said if said.kind == "line" and _VALUE.search(said.value) else printed


def _shown(node: _Node, indent: str = "", name: str = "") -> str:
    """A line, or JSON: on one line where it has room behind its name, else broken up so that it can be read."""
    flat = _flat(node)
    if node.kind not in "{[" or not node.value or len(indent) + len(name) + len(flat) <= WIDTH:
        return flat
    inner = indent + "  "
    if node.kind == "[":
        return "[\n" + ",\n".join(inner + _shown(item, inner) for item in node.value) + f"\n{indent}]"
    lines, line = [], ""
    for member in node.value:
        name = "" if member == _MORE else f"{_spelt(member.value[0])}: "
        piece = name + _shown(member if member == _MORE else member.value[1], inner, name)
        if line and ("\n" in piece or "\n" in line or len(inner) + len(line) + 2 + len(piece) >= WIDTH):
            lines.append(line)
            line = piece
        else:
            line = f"{line}, {piece}" if line else piece
    return "{\n" + ",\n".join(inner + line for line in [*lines, line]) + f"\n{indent}}}"


def _flat(node: _Node) -> str:
    match node.kind:
        case "line" | "plain":
            return str(node.value)
        case "string":
            return _spelt(node.value)
        case "member":
            return f"{_spelt(node.value[0])}: {_flat(node.value[1])}"
        case "[":
            return f"[{', '.join(map(_flat, node.value))}]"
        case "{":
            return f"{{{', '.join(map(_flat, node.value))}}}"
        case _:
            return node.kind


def _spelt(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def stands(words: str, text: str) -> bool:
    """Whether `words` stand in a text whole: no word and no number at their ends goes on, as "5 rows" in "15 rows"."""
    start = r"(?<!\w)(?<!\d[.,])" if re.match(r"\w", words) else ""
    end = r"(?!\w)(?![.,]\d)" if re.search(r"\w$", words) else ""
    return re.search(start + re.escape(words) + end, text) is not None
