"""The service and both verifiers take and refuse the same bytes: three readers, one opinion."""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.ledger.audit_export import ExportError, read_header, read_row
from service.ledger.notes import NoteError, open_checkpoint, open_note, read_verifier_key
from tests.audit import vectors, verifiers

PUBLISHED = json.loads(vectors.FILE.read_text("utf-8"))
KEY = PUBLISHED["keys"]["log"]["verifier"]
COUNT = 2000
PIECES = (
    [bytes([byte]) for byte in range(256)]
    + [character.encode() for character in "\u0085\u00a0\u1680\u2028\u3000\ufeff\u0661\u2014"]
    + [b"\\u0000", b"\\ud83d\\ude00", b"\\ud800", b"\\udc00\\ud800", b"\\/", b"\\x41", b"\xed\xa0\x80", b"\xc0\xaf"]
    + [
        b"-0",
        b"1.0",
        b"1e3",
        b"01",
        b"9007199254740991",
        b"9007199254740992",
        b"NaN",
        b"Infinity",
        b"true",
        b"{}",
        b"[]",
    ]
    + [b'{"integer":"9007199254740992"}', b'{"integer":"5"}', b'{"real":"7ff0000000000000"}', b'{"blob":""}', b"null"]
    + [b'"__proto__":null,', b'"id":5,', b'"commitment":null,', b"\r\n", b"\n\n", b"\n\xe2\x80\x94 x YWJjZGU=\n"]
)


def mutants(originals: list[bytes], choose: random.Random) -> list[bytes]:
    """COUNT of them, most one step away from an original, some as they were with space in between."""
    out = []
    for _ in range(COUNT):
        mutant = choose.choice(originals)
        for _ in range(choose.choice((1, 1, 1, 2, 3))):
            start = choose.randrange(len(mutant) + 1)
            end = min(len(mutant), start + choose.choice((0, 0, 1, 1, 2, 8)))
            values = [*re.finditer(rb"(?<=:)(?:null|[0-9]+|\"[^\"]*\")", mutant)]
            if values and choose.random() < 0.5:
                start, end = choose.choice(values).span()
            mutant = mutant[:start] + choose.choice(PIECES) * choose.choice((1, 1, 1, 2)) + mutant[end:]
        out.append(mutant)
    return out


def test_three_readers_take_and_refuse_the_same(tmp_path: Path) -> None:
    """Lines, headers, notes, checkpoints and keys, changed in every place; the seed is fixed."""
    choose = random.Random(1)
    rows = [case["line"].encode() for case in PUBLISHED["export"]["rows"] if len(case["line"]) < 1000]
    headers = [case["lines"][0].encode() for case in PUBLISHED["exports"]]
    notes = [case["note"].encode() for case in PUBLISHED["checkpoints"]]
    keys = [read_verifier_key(KEY)]
    readers: dict[str, tuple[list[bytes], Callable[[bytes], Any]]] = {
        "rows": (rows, read_row),
        "headers": (headers, read_header),
        "notes": (notes, lambda note: open_note(note, keys)),
        "checkpoints": (notes, lambda note: open_checkpoint(note, keys)),
    }
    asked = {name: mutants(originals, choose) for name, (originals, _) in readers.items()}
    taken = {
        f"refused.{name}[{index}]"
        for name, (_, read) in readers.items()
        for index, mutant in enumerate(asked[name])
        if takes(read, mutant)
    }
    for name in readers:
        share = sum(place.startswith(f"refused.{name}[") for place in taken) / COUNT
        assert 0 < share < 0.9, f"{name}: {share} are taken; the mutants are too like or too unlike the originals"
    cases = {name: [{"hex": mutant.hex(), "keys": [KEY]} for mutant in asked[name]] for name in readers}
    file = tmp_path / "vectors.json"
    empty = {name: [] for name in PUBLISHED if isinstance(PUBLISHED[name], list)}
    refused = {name: [] for name in PUBLISHED["refused"]} | cases
    export = {**PUBLISHED["export"], "rows": []}
    file.write_text(
        json.dumps({**empty, "roots": PUBLISHED["roots"][:1], "export": export, "refused": refused}), "utf-8"
    )
    for name in ("verify.py", "verify.mjs"):
        code, said = verifiers.verifier(name)("--vectors", file)
        assert code == 1, said
        found = set(re.findall(r"^FAILED: (\S+)$", said, re.MULTILINE))
        differing = {place: given(asked, place) for place in found ^ taken}
        assert not differing, f"{name} differs from the service: {differing}"


def takes(read: Callable[[bytes], Any], mutant: bytes) -> bool:
    try:
        read(mutant)
    except (ExportError, NoteError):
        return False
    return True


def given(asked: dict[str, list[bytes]], place: str) -> bytes:
    name, index = place.removeprefix("refused.").removesuffix("]").split("[")
    return asked[name][int(index)]
