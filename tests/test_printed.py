"""What a page says and what was printed are compared whole: only what is marked, and what has a form, may differ."""

import ast

import pytest

from tests.live import CHECKOUT
from tests.printed import fits, merged, stands

REQUEST, OTHER_REQUEST = "01a206ab308c6d946fa467ecf0955e9a", "0" * 31 + "f"
SHA, OTHER_SHA = "45b5ce13" * 8, "f" * 64
ROOT, OTHER_ROOT = "yF17CgimBBzMWwNzSgdsnrNE9MNLeDZMxQR2djWr8rw=", "AAAAaaaa+/AAAAaaaa+/AAAAaaaa+/AAAAaaaa+/AAA="
VERIFIER = "passbook-278f89a8+94db6c41+ATTYG2n6jEcTB7WQunDeheaI4hEceI4cWpTRwEbXcl9q"
SECRET = "pbk_dkNrzHQp_ruZssO3wyEcWvy5l9RAkp9YDb9Bkk4IZ3I72XF"
TIME, OTHER_TIME = "2026-01-19T12:00:00.123Z", "2027-02-20T13:01:02.456Z"
TRACEBACK = 'Traceback (most recent call last):\n  File "x.py", line 1\nValueError: no'

ALIKE = {
    "the same": ("Stopped.", "Stopped.\n"),
    "nothing": ("", "\n"),
    "ends of lines": ("a \nb", "a\r\nb  \r\n"),
    "a number": ("It adds up: … rows.", "It adds up: 1,101 rows."),
    "a word before a dot": ("free in ….", "free in data.dir."),
    "a value at the start": ("… two", "one two"),
    "a value that is a whole line": ("…", "one"),
    "a value behind an equals sign": ("size=…", "size=5"),
    "the value of a padded column": ("schema       … checked", "schema     100 checked"),
    "the program's own mark": ("copying …", "copying …"),
    "the program's own, where a value stands": ("a … b", "a … b"),
    "the program's own, cut": ("reas… x", "reas… x"),
    "lines": ("a\n⋮\nz", "a\nb\n\nc\nz"),
    "one line": ("a\n⋮\nz", "a\nb\nz"),
    "lines at both ends": ("⋮\nm\n⋮", "a\nb\nm\ny"),
    "lines up to the second of two": ("⋮\nz\nend", "a\nz\nb\nz\nend"),
    "a time": (f"at {TIME}: x", f"at {OTHER_TIME}: x"),
    "a time in seconds": ("at 2026-01-19T12:00:00Z", "at 2027-12-31T23:59:59Z"),
    "the same time twice, then two": (f"{TIME} 2026-01-19T12:00:01.000Z", f"{OTHER_TIME} {OTHER_TIME}"),
    "a time typed in": ('{"at": "2026-01-01T00:00:00.000Z"}', '{"at":"2026-01-01T00:00:00.000Z"}'),
    "a stamp in a name": ("x.before-restore-20261123T042621Z", "x.before-restore-20270101T000000Z"),
    "an id of a request": (REQUEST, OTHER_REQUEST),
    "one id twice": (f"{REQUEST} {REQUEST}", f"{OTHER_REQUEST} {OTHER_REQUEST}"),
    "a digest": (f"SHA-256 {SHA}", f"SHA-256 {OTHER_SHA}"),
    "a root": (f"leaf=:{ROOT}:", f"leaf=:{OTHER_ROOT}:"),
    "a log": ("passbook-278f89a8", "passbook-0000ffff"),
    "a public key": (f"--key {VERIFIER} x", f"--key {VERIFIER.replace('278f89a8', '00000000')} x"),
    "a key's prefix": ("Revoked pbk_NmC8VZsk (ops).", "Revoked pbk_00000000 (ops)."),
    "versions": ("SQLite 3.53.4 (x) curl/7.88.1", "SQLite 3.60.12 (x) curl/8.1.0"),
    "a duration": ("rows in 0.8 s.", "rows in 12.3 s."),
    "two durations": ("0.1 s, 0.1 s", "0.1 s, 0.2 s"),
    "JSON reflowed": ('{\n  "a": 1, "b": [1, "x  y"],\n  "c": {}, "d": []\n}', '{"a":1,"b":[1,"x  y"],"c":{},"d":[]}'),
    "JSON and lines": ('200\n{"a": 1}\n{"a": 2}\nlast', '200\n{"a":1}{"a":2}last'),
    "a value of JSON": ('{"a": …, "b": …, "c": …}', '{"a":5,"b":"x","c":false}'),
    "members left out": ('{"a": 1, ⋮}', '{"a":1,"b":{"c":[2]},"d":3}'),
    "members left out between": ('{"a": 1, ⋮, "z": [{"n": 1, ⋮}, ⋮]}', '{"a":1,"b":2,"z":[{"n":1,"o":2},{"n":2}]}'),
    "the program's own mark in JSON": ('{"a": "1, 2, …"}', '{"a":"1, 2, …"}'),
    "tokens of JSON": (f'{{"at": "{TIME}", "detail": "The key pbk_NmC8VZsk is"}}',
                       f'{{"at":"{OTHER_TIME}","detail":"The key pbk_00000000 is"}}'),
    "a line that looks like JSON": ("[ok] a, b", "[ok] a, b"),
    "letters of a pattern": ("a.c (1+1) [x] $5 \\d", "a.c (1+1) [x] $5 \\d"),
}  # fmt: skip

UNLIKE = {
    "another word": ("Stopped.", "Started."),
    "nothing where something is said": ("Stopped.", ""),
    "something where nothing is said": ("", "Stopped."),
    "a line more": ("a", "a\nb"),
    "a line less": ("a\nb", "a"),
    "lines in another order": ("a\nb", "b\na"),
    "no dot, but any letter": ("a.c", "abc"),
    "blanks within a line": ("a b", "a  b"),
    "blanks at the start of a line": ("  a", "a"),
    "two values for one": ("It adds up: … rows.", "It adds up: 1 or 2 rows."),
    "no value": ("It adds up: … rows.", "It adds up:  rows."),
    "a value over lines": ("a … b", "a x\ny b"),
    "a column without a value": ("schema       … checked", "schema             checked"),
    "the program's own mark is no value": ("copying …", "copying data/passbook.db"),
    "the program's own mark is no nothing": ("copying …", "copying"),
    "what was cut is no value": ("reas… x", "reason x"),
    "no line for lines": ("a\n⋮\nz", "a\nz"),
    "lines with an end that is missing": ("a\n⋮\nz", "a\nb\nc"),
    "lines of a traceback": ("a\n⋮\nz", f"a\n{TRACEBACK}\nz"),
    "lines of an error": ("a\n⋮\nz", "a\nError: No such command\nz"),
    "lines of an exception": ("a\n⋮\nz", "a\nsqlite3.OperationalError: locked\nz"),
    "a traceback behind what is said": ("a\n⋮", f"a\n{TRACEBACK}"),
    "a number by its start": ("waits 5 seconds", "waits 500 seconds"),
    "a number by its end": ("waits 500 seconds", "waits 5 seconds"),
    "another number of a unit": ("waits 5 s", "waits 7 s"),
    "another count": ("13 of 13 rows", "13 of 14 rows"),
    "another amount of bytes": ("3,559 bytes", "3,811 bytes"),
    "another unit": ("rows in 0.8 s.", "rows in 0.8 ms."),
    "a duration of other digits": ("rows in 0.8 s.", "rows in 0.83 s."),
    "a day": ("on 2026-01-19", "on 2026-01-20"),
    "a time of other digits": (TIME, "2026-01-19T12:00:00Z"),
    "a time elsewhere": (TIME, "2026-01-19T12:00:00.123+09:00"),
    "no time": (TIME, "2026-13-40T99:00:00.123Z"),
    "more than a time": (TIME, f"{TIME}Z"),
    "another time typed in": ('{"at": "2026-01-01T00:00:00.000Z"}', '{"at":"2026-02-01T00:00:00.000Z"}'),
    "now for a time typed in": ('{"at": "2026-01-01T00:00:00.000Z"}', f'{{"at":"{TIME}"}}'),
    "two times for one": (f"{TIME} {TIME}", f"{TIME} {OTHER_TIME}"),
    "a shorter id of a request": (REQUEST, REQUEST[:-1]),
    "a longer id of a request": (REQUEST, REQUEST + "0"),
    "two ids for one": (f"{REQUEST} {REQUEST}", f"{REQUEST} {OTHER_REQUEST}"),
    "one id for two": (f"{REQUEST} {OTHER_REQUEST}", f"{REQUEST} {REQUEST}"),
    "one id for two, in JSON": (f'["{REQUEST}", "{OTHER_REQUEST}"]', f'["{REQUEST}","{REQUEST}"]'),
    "a digest's start": (SHA, SHA[:63]),
    "a root of other length": (ROOT, "A" + ROOT),
    "a root without its end": (ROOT, ROOT[:-1]),
    "a secret for a key's prefix": ("Revoked pbk_NmC8VZsk (ops).", f"Revoked {SECRET} (ops)."),
    "a secret for itself": (SECRET, SECRET),
    "a secret for a value": ("key … made", f"key {SECRET} made"),
    "a secret among lines": ("a\n⋮\nz", f"a\n{SECRET}\nz"),
    "a secret among members": ('{"a": 1, ⋮}', f'{{"a":1,"b":"{SECRET}"}}'),
    "a private key for a public one": (VERIFIER, VERIFIER + "AAAA"),
    "a version by its start": ("SQLite 3.53.4 (x)", "SQLite 3.53 (x)"),
    "JSON with a member more": ('{"a": 1}', '{"a":1,"b":2}'),
    "JSON with a member less": ('{"a": 1, "b": 2}', '{"a":1}'),
    "JSON with a member twice": ('{"a": 1}', '{"a":1,"a":1}'),
    "JSON in another order": ('{"a": 1, "b": 2}', '{"b":2,"a":1}'),
    "JSON of another type": ('{"a": 1}', '{"a":"1"}'),
    "JSON spelt otherwise": ('{"a": 1}', '{"a":1.0}'),
    "null for nothing": ('{"a": null}', "{}"),
    "null for a value": ('{"a": …}', '{"a":null}'),
    "an object for a value": ('{"a": …}', '{"a":{}}'),
    "words for a value": ('{"a": …}', '{"a":"a b"}'),
    "a value for more members": ('{"a": 1, ⋮}', '{"a":1}'),
    "a member left out that is said": ('{"a": 1, ⋮, "z": 2}', '{"a":1,"b":2,"z":3}'),
    "items left out where none are said to be": ('{"a": [1]}', '{"a":[1,2]}'),
    "members left out where none are said to be": ('{"a": {"b": 1}, ⋮}', '{"a":{"b":1,"c":2},"d":3}'),
    "blanks in a string of JSON": ('{"a": "x , y"}', '{"a":"x,y"}'),
    "the program's own mark in JSON is no value": ('{"a": "1, 2, …"}', '{"a":"1, 2, 3"}'),
    "JSON that is cut": ('{"a": 1}', '{"a":1'),
    "JSON and more": ('{"a": 1}', '{"a":1}more'),
}  # fmt: skip


@pytest.mark.parametrize("name", ALIKE)
def test_what_may_differ_fits(name: str) -> None:
    """Values, lines and members that are left out; times, ids, hashes and versions; JSON's layout."""
    assert fits(*ALIKE[name])


@pytest.mark.parametrize("name", UNLIKE)
def test_what_may_not_differ_does_not_fit(name: str) -> None:
    """A fault that prints this is noticed."""
    assert not fits(*UNLIKE[name])


@pytest.mark.parametrize("name", ALIKE)
def test_what_fits_is_written_as_it_was_said(name: str) -> None:
    """Marks stay: what is written anew for a page that fits says no more than before, and fits again."""
    said, printed = ALIKE[name]
    for json_kind in (False, True):
        again = merged(said, printed, json_kind=json_kind)
        assert fits(again, printed)
        if json_kind:
            assert [again.count(mark) for mark in "…⋮"] == [said.count(mark) for mark in "…⋮"]


@pytest.mark.parametrize("name", UNLIKE)
def test_what_does_not_fit_is_written_so_that_it_fits(name: str) -> None:
    """But for a traceback and a secret, which no page may show."""
    said, printed = UNLIKE[name]
    shown = "pbk_dk" in printed or "Traceback" in printed
    for json_kind in (False, True):
        assert fits(merged(said, printed, json_kind=json_kind), printed) is not shown


@pytest.mark.parametrize(
    ("said", "printed", "written"),
    [
        ('{"a": 1, ⋮, "z": …}', '{"a":2,"b":3,"z":4}', '{"a": 2, ⋮, "z": …}'),
        ('{"a": [{"n": 1, ⋮}, ⋮]}', '{"a":[{"n":2,"o":3},{"n":4}]}', '{"a": [{"n": 2, ⋮}, ⋮]}'),
        ('one …\n{"a": …}', 'two …\n{"a":5}', 'two …\n{"a": …}'),
        ("a\n⋮\nz …\nx", "a\nc\nd\nz …\ny", "a\n⋮\nz …\ny"),
        ("in … s: … rows\nx", "in 5 s: 7 rows\ny", "in … s: … rows\ny"),
        (
            "{}",
            '{"' + "a" * 60 + '":1,"' + "b" * 60 + '":2}',
            '{\n  "' + "a" * 60 + '": 1,\n  "' + "b" * 60 + '": 2\n}',
        ),
    ],
)
def test_marks_stay_where_they_fit(said: str, printed: str, written: str) -> None:
    """What changed beside a mark is written anew, the mark is not."""
    assert merged(said, printed, json_kind="{" in said) == written


@pytest.mark.parametrize("text", ["5 rows to 7", "the 5 rows to 7.", "5 rows to 7, or 8", "=5 rows to 7\n"])
def test_words_stand_in_a_text_whole(text: str) -> None:
    """At its ends, between blanks and before punctuation."""
    assert stands("5 rows to 7", text)
    assert stands("rows", text)


@pytest.mark.parametrize(
    "text", ["15 rows to 7", "5 rows to 77", "1,5 rows to 7", "1.5 rows to 7", "5 rows to 7.5", "5 rows to 7,000"]
)
def test_words_do_not_stand_within_longer_numbers(text: str) -> None:
    """A number that goes on is another one."""
    assert not stands("5 rows to 7", text)
    assert not stands("row", text)


def test_no_test_takes_the_start_or_the_end_of_a_number_for_the_number() -> None:
    """What is looked for by `in` neither begins nor ends with a digit: "5 rows" is in "15 rows", but for `stands`."""
    loose = []
    for path in sorted((CHECKOUT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Assert(
                    test=ast.Compare(left=ast.Constant(value=str(words)), ops=[ast.In()], comparators=[right])
                ):
                    whole = isinstance(right, ast.Set | ast.List | ast.Tuple | ast.Dict)
                    if not whole and (words[:1].isdigit() or words[-1:].isdigit()):
                        loose.append(f"{path.relative_to(CHECKOUT)}:{node.lineno}: {words!r}")
    assert loose == []
