"""The documents hold together: links lead somewhere, and what they name is there."""

import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from service.cli import main
from service.config import settings
from service.ledger.access import ROLES, Scope
from tests.live import CHECKOUT, passbook
from tests.some import some

LISTED = subprocess.run(
    ["git", "ls-files", "-co", "--exclude-standard"], cwd=CHECKOUT, capture_output=True, text=True, check=False
)
PAGES = sorted(
    path
    for path in LISTED.stdout.splitlines()
    if path.endswith(".md") and path != "tests/migrations/schema-migration-guide.md"
)
FENCE = re.compile(r"^( *)```.*?^\1```$", re.DOTALL | re.MULTILINE)
OPERATING = (CHECKOUT / "docs" / "operating.md").read_text("utf-8")


@cache
def text_of(page: str) -> str:
    """The page."""
    return (CHECKOUT / page).read_text("utf-8")


@cache
def anchors_of(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and GitLab make them."""
    seen: Counter[str] = Counter()
    anchors = set()
    for heading in re.findall(r"^#{1,6} (.+)$", FENCE.sub("", text_of(page)), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
        anchors.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return anchors


def links_of(page: str) -> list[str]:
    """The targets of a page's links and pictures, but those to other hosts."""
    text = FENCE.sub("", text_of(page))
    text = re.sub(r"(?<!\[)`[^`\n]*`(?!\])", "", text)
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"https?://", target)]


def test_the_pages_are_found() -> None:
    """All of them are looked at."""
    assert {"README.md", "ARCHITECTURE.md", "CHANGELOG.md", "docs/cookbook.md", "docs/ops/README.md"} <= set(PAGES)


def in_pages(pattern: str) -> Iterator[tuple[str, str]]:
    """Each place in a page that fits, after the page."""
    return ((page, found) for page in PAGES for found in re.findall(pattern, text_of(page), re.MULTILINE))


def test_every_link_leads_somewhere() -> None:
    """A file or folder that is there, and a heading that it has."""
    for page, target in some((one, target) for one in PAGES for target in links_of(one)):
        path, _, anchor = target.partition("#")
        file = os.path.normpath(Path(page).parent / path) if path else page
        assert (CHECKOUT / file).exists(), f"{page}: {target}"
        if anchor:
            assert anchor in anchors_of(file), f"{page}: {target}; it has {sorted(anchors_of(file))}"


def test_every_page_is_reached_from_the_readme() -> None:
    """Nothing is written that nobody finds."""
    reached, waiting = set(), ["README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page not in PAGES:
            continue
        reached.add(page)
        waiting += [os.path.normpath(Path(page).parent / target.partition("#")[0]) for target in links_of(page)]
    assert set(PAGES) == reached


def commands(group: click.Group, before: str) -> list[str]:
    """The full name of every command below `group`."""
    names = []
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        inner = isinstance(command, click.Group)
        names += commands(command, f"{before} {name}") if inner else [f"{before} {name}"]  # type: ignore[arg-type]
    return names


COMMANDS = commands(main, "passbook")  # type: ignore[arg-type]
GROUPS = {command.rpartition(" ")[0] for command in COMMANDS}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented(command: str) -> None:
    """In the table of the operating guide."""
    assert f"`{command}" in OPERATING.partition("## Commands")[2].partition("## Size")[0]


def test_every_command_that_is_named_is_there() -> None:
    """`passbook …` in code."""
    for page, named in some(in_pages(r"(?:^|[`$(|;!] ?)passbook((?: [a-z][a-z-]*)+)")):
        words = named.split()
        group: click.Command = main
        while isinstance(group, click.Group):
            assert words, f"{page}: passbook{named} lacks its command"
            found = group.get_command(click.Context(group), words[0])
            assert found is not None, f"{page}: passbook{named}"
            group, words = found, words[1:]
            if not words and isinstance(group, click.Group):
                break  # a group is spoken of


def test_every_option_that_is_named_is_there() -> None:
    """Those of `passbook …` in code, also on the lines that a command goes on in."""
    for page, line in some(in_pages(r"passbook [a-z](?:\\\n|[^`|;\n])*")):
        unknown = {*re.findall(r"(?<= )--[a-z-]+", line)} - options()
        assert not unknown, f"{page}: {line}"


@cache
def options() -> set[str]:
    """Every option of the command line."""
    found = {"--help", "--version"}

    def walk(command: click.Command | None) -> None:
        assert command is not None
        found.update(name for parameter in command.params for name in parameter.opts)
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                walk(command.get_command(context, name))

    walk(main)
    return found


def test_every_variable_that_is_named_is_there() -> None:
    """PASSBOOK_ variables are settings, or are read by the command line or the tests."""
    known = {setting.variable for setting in settings()} | {"PASSBOOK_API_KEY"}
    makefile = (CHECKOUT / "Makefile").read_text("utf-8")
    for page, name in some(in_pages(r"\bPASSBOOK_[A-Z_]*[A-Z]\b")):
        assert name in known or name in makefile, f"{page}: {name}"
    assert "PASSBOOK_API_KEY" in (CHECKOUT / "service" / "cli" / "audit_witness.py").read_text("utf-8")


def test_every_make_target_that_is_named_is_there() -> None:
    """`make …` in any page."""
    targets = set(re.findall(r"^([a-z]+):", (CHECKOUT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for page, target in some(in_pages(r"(?:`|\$ )make ([a-z]+)\b")):
        assert target in targets, f"{page}: make {target}"


def test_the_settings_are_documented_as_the_code_has_them() -> None:
    """The table is what `passbook config --markdown` prints: every variable, its default and what it means."""
    printed = passbook("config", "--markdown")
    assert printed.returncode == 0, printed.stderr
    assert f"\n\n{printed.stdout}\n" in OPERATING, (
        "Put into docs/operating.md what this prints: passbook config --markdown"
    )
    elsewhere = [page for page in PAGES if page != "docs/operating.md" and "| `PASSBOOK_DATABASE` |" in text_of(page)]
    assert elsewhere == []


def test_every_role_is_documented_with_its_scopes() -> None:
    """Each role stands in the table with exactly its scopes."""
    for role, scopes in some(ROLES.items()):
        row = re.search(rf"^\| `{role}` \| (.*) \|$", OPERATING, re.MULTILINE)
        assert row, role
        assert set(row[1].split()) == {*scopes} or (row[1] == "everything" and scopes == {*Scope})


DIAGRAMS = list(re.findall(r"^```text\n(.*?)^```$", text_of("ARCHITECTURE.md"), re.DOTALL | re.MULTILINE))


def test_modules_that_diagrams_name_are_there() -> None:
    """`api/auth`, `storage/sqlite`: a file or folder of the service; functions after a dot are in it."""
    assert len(DIAGRAMS) >= 5
    named = {
        name
        for block in DIAGRAMS
        for name in re.findall(r"\b(?:ledger|storage|repository|api|cli)/\w+(?:\.\w+)*", block)
    }
    assert len(named) > 15
    for name in some(named):
        path, _, member = name.partition(".")
        file = CHECKOUT / "service" / f"{path}.py"
        assert file.is_file() or (CHECKOUT / "service" / path).is_dir(), name
        if member:
            assert re.search(rf"\b{member}\b", file.read_text("utf-8")), name


def test_tables_and_actions_that_diagrams_name_are_there() -> None:
    """Names with an underscore that stand for themselves: tables of the schema, or words of the source."""
    source = (CHECKOUT / "schema" / "schema.sql").read_text("utf-8")
    source += "".join(path.read_text("utf-8") for path in (CHECKOUT / "service").rglob("*.py"))
    for word in some(word for block in DIAGRAMS for word in re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", block)):
        assert word in source, word
