"""Documents are true: what they say to type works as it stands, and prints what they say."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests import documents
from tests.ledger_check import broken_invariants
from tests.live import CHECKOUT
from tests.migrations.d1 import LocalD1, installed_node_modules, succeeded
from tests.storage.test_importer import make_bots_file
from tests.storage.test_migrator import BOT_ROWS

REMOTE = {"telegram-again --remote": "telegram-conversations --local --persist-to again", "--remote": "--local"}
"""There is no account: the D1 is a local one, and a second one is another folder."""


def _takeover(folder: Path) -> documents.Setting:
    d1 = LocalD1.create(folder, installed_node_modules())
    (folder / "rows.sql").write_text(
        (folder / "migrations" / "000_baseline.sql").read_text("utf-8") + BOT_ROWS, "utf-8"
    )
    succeeded(d1.execute_file(folder / "rows.sql"))
    make_bots_file(folder / "bot.sqlite")
    return documents.Setting(environment=d1.environment, replaced=REMOTE)


def _nothing(folder: Path) -> documents.Setting:
    return documents.Setting()


PAGES: Mapping[str, Callable[[Path], documents.Setting]] = {
    "README.md": _nothing,
    "docs/audit-log.md": _nothing,
    "docs/cookbook.md": _nothing,
    "docs/operating.md": _nothing,
    "docs/takeover.md": _takeover,
}
"""The pages that are run, and what each finds there."""


LEDGERS = {
    "README.md": "data/first.db",
    "docs/audit-log.md": "data/passbook.db",
    "docs/cookbook.md": "cookbook.db",
    "docs/operating.md": "data/passbook.db",
    "docs/takeover.md": "data/passbook.db",
}
"""The database that each page leaves."""


@pytest.mark.parametrize("name", PAGES)
def test_what_a_page_says_to_type_works_and_prints_what_it_says(name: str, tmp_path: Path) -> None:
    """Every bash block, in order, in one shell in a folder of its own: none fails, and the ledger is sound after it."""
    page = (CHECKOUT / name).read_text("utf-8")
    assert len(documents.blocks(page)) > 4
    printed = documents.run(page, tmp_path, PAGES[name](tmp_path))
    differences = documents.differences(page, printed)
    assert not differences, "\n".join([*differences, "make docs writes what is printed into the page"])
    assert broken_invariants(tmp_path / LEDGERS[name]) == []


def test_every_page_with_commands_is_run() -> None:
    """Each Markdown file outside tests/ that has a bash fence is one of PAGES."""
    pages = [
        path
        for path in [*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/**/*.md")]
        if "```bash" in path.read_text("utf-8")
    ]
    assert {str(path.relative_to(CHECKOUT)) for path in pages} == set(PAGES)


def _run(code: str, folder: Path) -> list[str]:
    return documents.run(
        "".join(f"```bash\n{block}\n```\n\n" for block in code.split("\n--\n")), folder, documents.Setting()
    )


@pytest.mark.parametrize(
    "code",
    [
        "echo one\n--\necho two",
        "false  # ends with 1\necho one\n--\necho two",
        "echo one\n(exit 3)  # ends with 3\n--\n(exit 4)  # ends with 4\n(exit 5)  # ends with 5\necho two",
        "echo one\n--\nif false; then echo no; fi\nfalse || echo two",
        "sleep 300 &\necho one\nkill $!\nwait $!  # ends with 143\n--\necho two",
    ],
)
def test_blocks_that_end_as_they_say_are_run(code: str, tmp_path: Path) -> None:
    """Each command with 0, but for those that say otherwise, in their order; what each block printed is told apart."""
    assert _run(code, tmp_path) == ["one\n", "two\n"]


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("passbook nothing", "No such command"),
        ("true\nfalse\necho more", "false\nended with 1; it is said to end with 0"),
        ("true  # ends with 1", "nothing ended with 1"),
        ("true  # ends with 1\n--\nfalse", "nothing ended with 1"),
        ("(exit 2)  # ends with 1", "ended with 2; it is said to end with 1"),
        ("false  # ends with 1\nfalse", "ended with 1; it is said to end with 0"),
        ("false | cat", "ended with 1; it is said to end with 0"),
        ("NAME=$(false)", "ended with 1; it is said to end with 0"),
        ("false && echo no", "the block ended with 1"),
        ("! true", "the block ended with 1"),
        ("echo $NOT_THERE", "NOT_THERE: unbound variable"),
        ("exit 0\n--\necho more", "the page ended within a block"),
        (
            "mkfifo up\n(trap 'exit 5' TERM; echo > up; while :; do sleep 0.01; done) &\nread < up",
            "ended with 5; it is said to end with 0",
        ),
        ("echo 'Traceback (most recent call last):' > server.log", "server.log"),
    ],
)
def test_a_block_that_ends_otherwise_than_it_says_is_told(code: str, told: str, tmp_path: Path) -> None:
    """A status that nobody said, one that did not come, a service that ends badly, a traceback in a log."""
    with pytest.raises(AssertionError, match=re.escape(told)):
        _run(code, tmp_path)


def test_a_page_that_never_ends_is_told(tmp_path: Path) -> None:
    """What it started is killed with it, also what holds its output open."""
    with pytest.raises(AssertionError, match=r"one\n\nnot ended after 0\.5 s"):
        documents.run("```bash\necho one; sleep 300 & sleep 300\n```\n", tmp_path, documents.Setting(), timeout_s=0.5)


def test_what_is_printed_where_nothing_is_said_is_a_difference() -> None:
    """A block without a fence behind it prints nothing."""
    page = "```bash\none\n```\n\n```bash\ntwo\n```\n\n```text\n…\n```\n"
    assert documents.differences(page, ["", "2\n"]) == []
    assert "said to print:\n\nand prints:\n1\n" in documents.differences(page, ["1\n", "2\n"])[0]
    assert "said to print:\n…\n\nand prints:\n" in documents.differences(page, ["", "2 or 3\n"])[0]


def test_what_does_not_fit_is_written_anew_and_the_rest_stays() -> None:
    """The page with what was printed; what is left out with … stays where it fits."""
    page = "a\n```bash\none\n```\n\n```text\n… two\n```\nb\n```bash\nthree\n```\n\n```json\n{}\n```\n"
    assert documents.rewritten(page, ["one two\n", '{"a": 1}']) == page.replace("{}", '{"a": 1}')
