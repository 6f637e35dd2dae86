"""Documents that are run: the bash blocks of a page, in order, in one shell, and what each of them prints.

A fence of json, text, http or csv that follows a bash fence, with only a blank line between, is what that block prints.
What differs from run to run (times, ids of requests, keys, hashes) is compared by its form, JSON by its value, and a
line or a piece that is … stands for anything. `python -m tests.documents PAGE…` runs the pages and writes into them
what was printed; pieces that are … stay where they still fit.
"""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.live import CHECKOUT

PORT = "8000"
"""The documents' port, for which a free one is used."""
WIDTH = 116
_TIMEOUT_S = 240
_FENCE = re.compile(
    r"^```bash\n(?P<code>.*?)^```$(\n\n^```(?P<kind>json|text|http|csv)\n(?P<output>.*?)^```$)?", re.S | re.M
)
_END = "\x1e"
_VOLATILE = (
    (r"\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", "<time>"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?", "<time>"),
    (r"\b\d{8}T\d{6}Z", "<time>"),
    (r"\b\d{4}-\d\d-\d\d\b", "<day>"),
    (r"\b[0-9a-f]{32}\b", "<request id>"),
    (r"\bpbk_\w+", "<key>"),
    (r"\bpassbook-[0-9a-f]{8,}\b", "<log>"),
    (r"[A-Za-z0-9+/]{43,}={0,2}", "<hash>"),
    (r"\b3\.\d+\.\d+\b|\bcurl/[\d.]+", "<version>"),
    (r"\b[\d,]+(\.\d+)? (seconds|s|ms|[kMG]i?B|bytes)\b", "<figure>"),
    (r'("duration_ms":) ?\d+', r"\1 0"),
)


@dataclass(frozen=True)
class Setting:
    """Where a page is run: variables, among them a PATH to look in first, and texts that stand for others."""

    environment: Mapping[str, str] = field(default_factory=dict)
    replaced: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Block:
    """One bash fence; `output` is what the page says that it prints, None where it says nothing."""

    code: str
    kind: str | None
    output: str | None


def blocks(page: str) -> list[Block]:
    """The bash fences of a page, in order."""
    return [Block(found["code"], found["kind"], found["output"]) for found in _FENCE.finditer(page)]


def run(page: str, folder: Path, setting: Setting) -> list[str]:
    """Runs the blocks in `folder`, as bash does with `set -euo pipefail`; what each printed. Raises AssertionError."""
    binaries = folder / ".bin"
    binaries.mkdir()
    command = binaries / "passbook"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m service.cli "$@"\n')
    command.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    ended = f"\nprintf '{_END}'\n"
    script = (
        ended.join(["set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT", *_codes(page)]) + ended
    )
    for text, other in {**setting.replaced, f"127.0.0.1:{PORT}": f"127.0.0.1:{port}"}.items():
        script = script.replace(text, other)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PASSBOOK_")} | setting.environment
    own = {"PATH": f"{binaries}:{kept['PATH']}", "PYTHONPATH": str(CHECKOUT), "PASSBOOK_PORT": port, "PYTHONUTF8": "1"}
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={**kept, **own},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        timeout=_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    printed = (
        done.stdout.replace(f"127.0.0.1:{port}", f"127.0.0.1:{PORT}")
        .replace(f"{folder}/", "")
        .replace(str(folder), ".")
    )
    return printed.split(_END)[1:-1]


def _codes(page: str) -> list[str]:
    return [block.code for block in blocks(page)]


def differences(page: str, printed: list[str]) -> list[str]:
    """What a page says and what was printed, for each block where they do not fit."""
    return [
        f"{block.code}\nis said to print:\n{block.output}\nand prints:\n{out}"
        for block, out in zip(blocks(page), printed, strict=True)
        if block.output is not None and not fits(block.output, out)
    ]


def fits(said: str, printed: str) -> bool:
    """Whether `printed` is what `said` says, but for what differs from run to run."""
    pieces = [re.escape(_plain(piece)) for piece in said.split("…")]
    return re.fullmatch(r"\s*" + ".*?".join(pieces) + r"\s*", _plain(printed), re.S) is not None


def _plain(text: str) -> str:
    """Without what differs, and without white space around JSON's marks and at the ends of lines."""
    for pattern, name in _VOLATILE:
        text = re.sub(pattern, name, text, flags=re.M)
    text = re.sub(r"\r?\n", "\n", text)
    # As a line or reflowed, JSON has the same marks and values.
    return re.sub(r'\s*([\[\]{},:"])\s*', r"\1", text).strip()


def rewritten(page: str, printed: list[str]) -> str:
    """The page with what was printed in the place of what does not fit."""
    waiting = iter(printed)

    def replace(found: re.Match[str]) -> str:
        out = next(waiting)
        if found["output"] is None or (found["output"].strip() and fits(found["output"], out)):
            return found[0]
        shown = _reflowed(out) if found["kind"] == "json" else out.replace("\r", "").strip("\n")
        return f"```bash\n{found['code']}```\n\n```{found['kind']}\n{shown}\n```"

    return _FENCE.sub(replace, page)


def _reflowed(text: str) -> str:
    """Every JSON document on lines of its own, broken up so that it can be read; what is no JSON as it is."""
    shown, rest = [], text.strip()
    while rest:
        if rest[0] in "{[":
            value, end = json.JSONDecoder().raw_decode(rest)
            shown.append(_lines(value))
            rest = rest[end:].lstrip()
        else:
            line, _, rest = rest.partition("\n")
            shown.append(line)
    return "\n".join(shown)


def _lines(value: Any, indent: str = "") -> str:
    flat = json.dumps(value, ensure_ascii=False)
    if len(flat) + len(indent) <= WIDTH or not isinstance(value, dict | list) or not value:
        return flat
    inner = indent + "  "
    if isinstance(value, list):
        return "[\n" + ",\n".join(inner + _lines(item, inner) for item in value) + f"\n{indent}]"
    lines, line = [], ""
    for name, member in value.items():
        piece = f"{json.dumps(name, ensure_ascii=False)}: {_lines(member, inner)}"
        if line and ("\n" in piece or "\n" in line or len(inner) + len(line) + 2 + len(piece) >= WIDTH):
            lines.append(line)
            line = piece
        else:
            line = f"{line}, {piece}" if line else piece
    return "{\n" + ",\n".join(inner + line for line in [*lines, line]) + f"\n{indent}}}"


def main(names: list[str]) -> None:
    """Runs the pages of these names and writes what they print into them."""
    from tests.test_documents import PAGES

    for name in names or PAGES:
        path = CHECKOUT / name
        text = path.read_text("utf-8")
        with tempfile.TemporaryDirectory() as folder:
            path.write_text(rewritten(text, run(text, Path(folder), PAGES[name](Path(folder)))), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
