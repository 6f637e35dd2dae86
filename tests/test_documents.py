"""Documents are true: what they say to type works as it stands, and prints what they say."""

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
    assert documents.differences(page, printed) == [], "make docs writes what is printed into the page"
    assert broken_invariants(tmp_path / LEDGERS[name]) == []


def test_only_what_differs_from_run_to_run_may_differ() -> None:
    """Times, ids of requests, keys, hashes and line breaks may; numbers, words and the order may not."""
    said = '{"id": 1, "at": "2026-01-19T12:00:00Z",\n  "request_id": "' + "0" * 32 + '", "items": ["a b", …]}'
    printed = '{"id":1,"at":"2027-02-20T13:01:02.123Z","request_id":"' + "f" * 32 + '","items":["a b","c"]}'
    assert documents.fits(said, printed)
    for wrong in (
        printed.replace('"id":1', '"id":2'),
        printed.replace("a b", "ab"),
        printed.replace("T13:01", "at one"),
        printed + "more",
        printed.replace('"items"', '"more":1,"items"'),
        "",
    ):
        assert not documents.fits(said, wrong), wrong


def test_a_failing_command_is_told(tmp_path: Path) -> None:
    """One that fails within a page ends its run."""
    with pytest.raises(AssertionError, match="No such command"):
        documents.run("```bash\npassbook nothing\n```\n", tmp_path, documents.Setting())


def test_what_does_not_fit_is_written_anew_and_the_rest_stays() -> None:
    """The page with what was printed; what is left out with … stays where it fits."""
    page = "a\n```bash\none\n```\n\n```text\n… two\n```\nb\n```bash\nthree\n```\n\n```json\n{}\n```\n"
    assert documents.rewritten(page, ["one two\n", '{"a": 1}']) == page.replace("{}", '{"a": 1}')
