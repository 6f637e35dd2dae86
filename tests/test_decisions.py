"""docs/decisions: each decision has its day, its context and its consequence, and the index lists it."""

import re
from pathlib import Path

import pytest

from tests.live import CHECKOUT
from tests.some import some

FOLDER = CHECKOUT / "docs" / "decisions"
PAGES = sorted(path for path in FOLDER.glob("*.md") if path.name != "README.md")
DAY = re.compile(r"^\*(\d{4}-\d\d-\d\d)(?:, [^*\n]+)?\*$", re.MULTILINE)


def decisions_of(page: Path) -> list[tuple[str, str]]:
    """Each decision of a page: its heading and what stands below it."""
    parts = re.split(r"^## (.+)$", page.read_text("utf-8"), flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_decision_has_its_day_context_and_consequence(page: Path) -> None:
    """The day stands below the heading; then context, decision and consequence, once each and in this order."""
    for heading, text in some(decisions_of(page)):
        assert DAY.match(text.lstrip("\n")), f"{page.name}: {heading} has no day"
        labels = re.findall(r"^\*\*(\w+)\.\*\*", text, re.MULTILINE)
        assert labels == ["Context", "Decision", "Consequence"], f"{page.name}: {heading} has {labels}"


def test_the_index_lists_every_decision_with_its_day() -> None:
    """A row for each, in the order of the pages; a link that leads nowhere is found by the test of all links."""
    rows = re.findall(
        r"^\| \[(.+)\]\(([\w-]+\.md)#[^)]+\) \| (\S+) \|$", (FOLDER / "README.md").read_text(), re.MULTILINE
    )
    listed = {page.name: [(heading, day) for heading, name, day in rows if name == page.name] for page in PAGES}
    for page in some(PAGES):
        dated = [(heading, DAY.search(text)) for heading, text in decisions_of(page)]
        assert listed[page.name] == [(heading, day and day[1]) for heading, day in dated], page.name
    assert len(rows) == sum(map(len, listed.values()))
