"""Single edits of a database behind Passbook's back, and every row that the proof then names, in its words.

`python -m tests.audit.edits` says of each edit in edits.toml anew what is named, for review.
"""

import contextlib
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import msgspec
from msgspec import Struct

from service.ledger.timestamps import system_clock
from service.storage import sqlite
from service.storage.integrity import Proof
from tests.audit import tamperings
from tests.audit.tamperings import MIGRATIONS, World

TABLE = Path(__file__).with_name("edits.toml")
_OF_THE_DAY = re.compile(r"\d{4}-\d\d-\d\d[T ][\d:.]+Z?|pbk_\w+|[0-9a-f]{32,}")


class Edit(Struct, frozen=True, forbid_unknown_fields=True):
    """thinned: in the database with erased and archived rows. named: a line for each failure; no times, no keys."""

    thinned: bool
    sql: str
    named: list[str]


EDITS = tuple(msgspec.toml.decode(TABLE.read_text("utf-8"), type=dict[str, list[Edit]])["edit"])


@contextlib.contextmanager
def editing(world: World) -> Iterator[Callable[[str], list[str]]]:
    """What the proof names after an edit, each of the world as it was, in memory."""
    with (
        contextlib.closing(sqlite.connect_reader(world.database, busy_timeout_ms=5000)) as file,
        contextlib.closing(sqlite.open_scratch()) as whole,
        contextlib.closing(sqlite.open_scratch()) as edited,
        patch.object(Proof, "_check_schema", lambda *_: None),  # the triggers are taken away
    ):
        file.backup(whole)
        for (name,) in whole.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            whole.execute(f"DROP TRIGGER {name}")

        def named(sql: str) -> list[str]:
            whole.backup(edited)
            edited.execute("PRAGMA foreign_keys = OFF")
            edited.execute("PRAGMA ignore_check_constraints = ON")
            edited.execute(sql)
            proof = Proof(MIGRATIONS, system_clock, quick=True, examples_max=1000)
            proof.run(edited)
            report = proof.report()
            assert report.reason is None, report.reason
            return [
                _OF_THE_DAY.sub("*", f"{check.name}: {example.table} {example.row_id}: {example.said}")
                for check in report.checks
                for example in check.examples
            ]

        yield named


def main() -> None:
    """Writes edits.toml."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("whole", "thinned"):
            (Path(folder) / name).mkdir()
        whole = tamperings.make_world(Path(folder) / "whole")
        thinned = tamperings.make_thinned_world(whole, Path(folder) / "thinned")
        with editing(whole) as of_whole, editing(thinned) as of_thinned:
            found = [
                Edit(each.thinned, each.sql, (of_thinned if each.thinned else of_whole)(each.sql)) for each in EDITS
            ]
    lines = TABLE.read_text("utf-8").partition("[[edit]]")[0]
    for each in found:
        told = "".join(f"  {msgspec.json.encode(line).decode()},\n" for line in each.named)
        sql = msgspec.json.encode(each.sql).decode()
        lines += f"[[edit]]\nthinned = {str(each.thinned).lower()}\nsql = {sql}\nnamed = [\n{told}]\n\n"
    TABLE.write_text(lines.rstrip("\n") + "\n", "utf-8")


if __name__ == "__main__":
    main()
