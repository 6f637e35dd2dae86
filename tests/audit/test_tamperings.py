"""docs/audit-log/tamperings.md: each edit that it lists is made, and found in the words that it gives."""

from collections import Counter
from pathlib import Path

import pytest

from tests.audit import edits, tamperings
from tests.audit.tamperings import CHECKPOINT, INTEGRITY, NOTHING, TAMPERINGS, UNSEEN, VERIFY, Tampering, World
from tests.live import passbook
from tests.some import some
from tests.storage.broken import by_hand


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, World]:
    """The whole one, and the one with erased and archived rows; not to be changed."""
    whole = tamperings.make_world(tmp_path_factory.mktemp("whole"))
    return {False: whole, True: tamperings.make_thinned_world(whole, tmp_path_factory.mktemp("thinned"))}


def test_nothing_is_said_of_what_nobody_edited(worlds: dict[bool, World]) -> None:
    """Neither of a whole log, with a checkpoint and receipts, nor of one with erased and archived rows."""
    for world in some(worlds.values()):
        found = tamperings.found_by(world.database, checkpoint=world.checkpoint, receipts=world.receipts)
        assert found == {INTEGRITY: [], VERIFY: []}


@pytest.mark.parametrize("each", TAMPERINGS, ids=lambda each: f"{each.table}: {each.what}")
def test_an_edit_is_found_in_the_words_of_the_page(each: Tampering, worlds: dict[bool, World], tmp_path: Path) -> None:
    """By the command that the page names; an edit with all hashes made anew by what others keep alone."""
    world = worlds[each.thinned]
    database = tamperings.tamper(world, each, tmp_path / "p.db")
    found = tamperings.found_by(database)
    if each.by == CHECKPOINT:
        assert found == {INTEGRITY: [], VERIFY: []}
        assert world.checkpoint is not None
        signed = tamperings.found_by(database, checkpoint=world.checkpoint)[VERIFY]
        assert any(each.said in said for said in signed), signed
        received = tamperings.found_by(database, receipts=world.receipts)[VERIFY]
        assert any("its receipt tells of" in said for said in received), received
    elif each.by == NOTHING:
        assert found == {INTEGRITY: [], VERIFY: []}
    else:
        assert any(each.said in said for said in found[each.by]), found


@pytest.mark.parametrize("thinned", [False, True], ids=["whole", "thinned"])
def test_a_single_edit_is_named_by_every_row_that_it_breaks(worlds: dict[bool, World], thinned: bool) -> None:
    """No row more and none less, each in the words of edits.toml, which `python -m tests.audit.edits` writes anew."""
    with edits.editing(worlds[thinned]) as named:
        assert named("SELECT 1") == []
        found = {each.sql: named(each.sql) for each in some(edits.EDITS) if each.thinned is thinned}
    assert found == {each.sql: each.named for each in edits.EDITS if each.thinned is thinned}
    assert sum(map(bool, found.values())) > len(found) / 2


def test_the_page_is_what_the_test_proves() -> None:
    """`python -m tests.audit.tamperings` writes it anew."""
    assert tamperings.PAGE.read_text("utf-8") == tamperings.rendered()


def test_every_table_is_tampered_with(worlds: dict[bool, World]) -> None:
    """At least twice, but for one with a single kind of row; what nothing finds is named and few."""
    edits = Counter(each.table for each in TAMPERINGS)
    tables = {
        name
        for (name,) in tamperings.rows(worlds[False].database, "SELECT name FROM sqlite_master WHERE type = 'table'")
    }
    assert tables - edits.keys() == set()
    assert sum(edits.values()) >= 60
    assert {(each.table, each.what) for each in TAMPERINGS if each.by == NOTHING} == UNSEEN.keys()


@pytest.mark.parametrize(
    ("command", "sql", "said"),
    [
        ("integrity", "UPDATE api_keys SET scopes = 'balance:change' WHERE name = 'bot'", "It may balance:change;"),
        ("integrity", "DELETE FROM idempotency_answers WHERE operation = 'POST /v1/debits'", "its answer is not there"),
        ("integrity", "DELETE FROM balance_change_references", "Its reference is not kept"),
        ("audit verify", "DELETE FROM audit_tree", "audit_tree has no row"),
    ],
)
def test_the_commands_themselves_end_with_1(
    command: str, sql: str, said: str, worlds: dict[bool, World], tmp_path: Path
) -> None:
    """As processes, with words and without a traceback."""
    database = tamperings.tamper(worlds[False], Tampering("", "", "SELECT 1", "", ""), tmp_path / "p.db")
    by_hand(database, sql)
    done = passbook(*command.split(), "--database", str(database))
    assert (done.returncode, said in done.stdout, "Traceback" in done.stderr) == (1, True, False), done.stdout
