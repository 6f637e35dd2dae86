"""Documents that are run: the bash blocks of a page, in order, in one shell, and what each of them prints.

A fence of json, text, http or csv that follows a bash fence, with only a blank line between, is what that block prints;
a block without one prints nothing. `tests/printed.py` tells what … and ⋮ stand for, and what differs from run to run.

Every command ends with 0, and so does what still runs behind the page when it is told to stop. One that is to fail is
followed by a remark in the block: `# ends with 1`.

`python -m tests.documents PAGE…` runs the pages and writes into them what was printed; … and ⋮ stay where they fit.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.live import CHECKOUT
from tests.printed import fits, merged

PORT = "8000"
"""The documents' port, for which a free one is used."""
_TIMEOUT_S = 240
_FENCE = re.compile(
    r"^```bash\n(?P<code>.*?)^```$(\n\n^```(?P<kind>json|text|http|csv)\n(?P<output>.*?)^```$)?", re.S | re.M
)
_END = "\x1e"
_ENDS_WITH = re.compile(r"# ends with (\d+)$", re.M)
_PROLOGUE = f"""
set -uo pipefail
trap 'trap - ERR; kill $(jobs -p) 2>/dev/null; wait' EXIT
_failed() {{  # is told of each command that fails: the next status to come, or the end
  local status=$?
  if [ "${{_to_come[0]:-none}}" != "$status" ]; then
    printf '\\n%s\\nended with %s; it is said to end with %s\\n' "$BASH_COMMAND" "$status" "${{_to_come[0]:-0}}"
    exit 1
  fi
  _told=$status _to_come=("${{_to_come[@]:1}}")
}}
_block_ended() {{
  if [ "$1" != 0 ] && [ "${{_told:-0}}" != "$1" ]; then printf '\\nthe block ended with %s\\n' "$1"; exit 1; fi
  if [ -n "${{_to_come[*]}}" ]; then printf '\\nnothing ended with %s\\n' "${{_to_come[0]}}"; exit 1; fi
  _told=0
  printf '{_END}'
}}
trap _failed ERR
"""
_EPILOGUE = """
_to_come=()
for job in $(jobs -p); do kill "$job" 2>/dev/null || true; wait "$job"; done
"""


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


def run(page: str, folder: Path, setting: Setting, timeout_s: float = _TIMEOUT_S) -> list[str]:
    """Runs the blocks in `folder`; what each printed. Raises AssertionError where one ends otherwise than it says."""
    binaries = folder / ".bin"
    binaries.mkdir()
    command = binaries / "passbook"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m service.cli "$@"\n')
    command.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    script = _script(blocks(page))
    for text, other in {**setting.replaced, f"127.0.0.1:{PORT}": f"127.0.0.1:{port}"}.items():
        script = script.replace(text, other)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PASSBOOK_")} | dict(
        setting.environment
    )
    own = {"PATH": f"{binaries}:{kept['PATH']}", "PYTHONPATH": str(CHECKOUT), "PASSBOOK_PORT": port, "PYTHONUTF8": "1"}
    status, output = _bash(script, folder, kept | own, timeout_s)
    assert status == 0, f"{output[-4000:]}\nended with {status}"
    assert output.count(_END) == len(blocks(page)), f"{output[-4000:]}\nthe page ended within a block"
    logs = {log: log.read_text("utf-8") for log in folder.rglob("*.log")}
    told = "".join(f"{log}:\n{text[-4000:]}" for log, text in logs.items() if "Traceback" in text)
    assert not told, told
    printed = (
        output.replace(f"127.0.0.1:{port}", f"127.0.0.1:{PORT}").replace(f"{folder}/", "").replace(str(folder), ".")
    )
    return printed.split(_END)[:-1]


def _script(all_blocks: list[Block]) -> str:
    """The blocks as one script, which stops at the first command whose status is another than its block says."""
    parts = [_PROLOGUE]
    for block in all_blocks:
        statuses = " ".join(_ENDS_WITH.findall(block.code))
        parts.append(f"_to_come=({statuses})\n{block.code}\n_block_ended $?\n")
    return "".join([*parts, _EPILOGUE])


def _bash(script: str, folder: Path, environment: Mapping[str, str], timeout_s: float) -> tuple[int, str]:
    """The script's status and what it printed. Whatever it started is killed if it takes too long."""
    with subprocess.Popen(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        start_new_session=True,
    ) as shell:
        try:
            output, _ = shell.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(shell.pid, signal.SIGKILL)
            output, _ = shell.communicate()
            raise AssertionError(f"{output[-4000:]}\nnot ended after {timeout_s} s") from None
        return shell.returncode, output


def differences(page: str, printed: list[str]) -> list[str]:
    """What a page says and what was printed, for each block where they do not fit. What says nothing prints nothing."""
    return [
        f"{block.code}\nis said to print:\n{block.output or ''}\nand prints:\n{out}"
        for block, out in zip(blocks(page), printed, strict=True)
        if not fits(block.output or "", out)
    ]


def rewritten(page: str, printed: list[str]) -> str:
    """The page with what was printed in the place of what does not fit."""
    waiting = iter(printed)

    def replace(found: re.Match[str]) -> str:
        out, said = next(waiting), found["output"]
        if said is None or fits(said, out):
            return found[0]
        shown = merged(said, out, json_kind=found["kind"] == "json")
        return f"```bash\n{found['code']}```\n\n```{found['kind']}\n{shown}\n```"

    return _FENCE.sub(replace, page)


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
