"""The signer signs what continues its last checkpoint, by proof, and nothing else."""

import contextlib
from pathlib import Path

import pytest

from service import resources
from service.storage import audit_chain, migrator, sqlite
from service.storage.checkpoints import Contradiction, Signer
from tests.storage.test_audit_verification import append, by_hand

MIGRATIONS = migrator.load(resources.folder("migrations"))


@pytest.mark.parametrize("signed", [0, 1, 255, 300])
def test_roots_that_the_leaves_do_not_make_up_are_not_signed(tmp_path: Path, signed: int) -> None:
    """Such a checkpoint would contradict all that the log signs before and after it."""
    path = tmp_path / "passbook.db"
    signer = Signer.open(tmp_path / "key", origin="test")
    with contextlib.closing(sqlite.connect_writer(path, busy_timeout_ms=0, checkpoints=True)) as connection:
        migrator.up(connection, MIGRATIONS, lambda _: None)
        append(connection, signed)
        if signed:
            signer.sign(signer.check(connection))
        append(connection, 301 - signed)
        assert signer.check(connection).size == 301
        before = audit_chain.root_of(connection, 301)
    with by_hand(path) as hand:
        hand.execute("UPDATE audit_tree SET frontier = zeroblob(length(frontier))")
    with contextlib.closing(sqlite.connect_writer(path, busy_timeout_ms=0, checkpoints=True)) as connection:
        with pytest.raises(Contradiction):
            signer.check(connection)
        append(connection, 1)
        with pytest.raises(Contradiction):
            signer.check(connection)
        assert audit_chain.root_of(connection, 301) == before


def test_the_last_checkpoint_never_goes_back(tmp_path: Path) -> None:
    """A request that was given up while its tree was being signed may end after the next one."""
    path = tmp_path / "passbook.db"
    signer = Signer.open(tmp_path / "key", origin="test")
    with contextlib.closing(sqlite.connect_writer(path, busy_timeout_ms=0, checkpoints=True)) as connection:
        migrator.up(connection, MIGRATIONS, lambda _: None)
        append(connection, 10)
        given_up = signer.check(connection)
        append(connection, 5)
        note = signer.sign(signer.check(connection))
    signer.sign(given_up)
    assert signer.last is not None
    assert signer.last.size == 15
    assert signer.last_file.read_text("utf-8") == note
