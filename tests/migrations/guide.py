"""The schema migration guide, taken apart: every fenced block with the headings above it, every shell command."""

import re
from dataclasses import dataclass
from pathlib import Path

GUIDE = Path(__file__).parent / "schema-migration-guide.md"


@dataclass(frozen=True)
class Block:
    """One fenced block. `heading` is the nearest heading, `section` the nearest second-level one."""

    section: str
    heading: str
    language: str
    text: str

    @property
    def commands(self) -> tuple[str, ...]:
        """The shell commands in order, unchanged, continuation lines included; comments and empty lines are none."""
        commands: list[str] = []
        continued = False
        for line in self.text.splitlines():
            if continued:
                commands[-1] += "\n" + line
            elif line.strip() and not line.startswith("#"):
                commands.append(line)
            continued = line.endswith("\\")
        return tuple(commands)


def blocks(language: str) -> tuple[Block, ...]:
    """All blocks of one language, in the guide's order."""
    found: list[Block] = []
    section = heading = ""
    fence: list[str] | None = None
    fence_language = ""
    for line in GUIDE.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            if fence is None:
                fence, fence_language = [], line[3:].strip()
            else:
                found.append(Block(section, heading, fence_language, "\n".join(fence)))
                fence = None
        elif fence is not None:
            fence.append(line)
        elif match := re.match(r"(#+) (.*?)\s*$", line):
            heading = match[2]
            if match[1] == "##":
                section = heading
    assert fence is None, "the guide ends inside a fenced block"
    return tuple(block for block in found if block.language == language)


def commands(heading: str) -> tuple[str, ...]:
    """The shell commands below the one heading that starts with these words."""
    found = [block for block in blocks("bash") if block.heading.startswith(heading)]
    assert len(found) == 1, f"{len(found)} bash blocks below {heading!r}"
    return found[0].commands
