"""A backup while clients write, restored elsewhere: an exact prefix of the ledger, from which a service goes on."""

import asyncio
import contextlib
import os
import sqlite3
import time
from pathlib import Path

from tests.faults.journal import Journal, Load
from tests.faults.row import Row, Run
from tests.ledger_check import broken_invariants
from tests.live import LiveService, passbook

CLIENTS = 16
GAP = "a copy without one of its rows"
ONLY_ADDED_TO = ("audit_logs", "idempotency_answers")


def inject(run: Run) -> None:
    """Backup after backup under one load; each copy is restored into a folder of its own, proved, and served."""
    live = LiveService(run.folder / "passbook.db").start()
    copies: list[tuple[Path, set[str]]] = []
    seconds: list[float] = []

    async def work(journal: Journal) -> None:
        load = Load(journal, url=live.url, api_key=live.admin_key, seed=run.seed, clients=CLIENTS, name="backup")
        under_way = journal.after(5 * CLIENTS)
        clients = asyncio.create_task(load.run())
        await under_way.wait()
        while run.goes_on(len(copies)):
            answered = {entry.key for entry in journal.entries.values() if entry.answers}
            copy = run.folder / f"copy-{len(copies)}.db"
            began = time.monotonic()
            made = await asyncio.to_thread(passbook, "backup", "--to", str(copy), "--database", str(live.database))
            seconds.append(time.monotonic() - began)
            run.must(made.returncode == 0, made.stderr[-300:])
            copies.append((copy, answered))
        await journal.after(5 * CLIENTS).wait()
        run.must(await asyncio.to_thread(live.stop) == 0, live.said[-300:])
        await clients

    with Journal.opened(run.folder / "journal") as journal:
        asyncio.run(work(journal))
        run.count("answered writes", journal.answered)
    run.times("backup", seconds)
    for number, (copy, answered) in enumerate(copies):
        elsewhere = run.folder / f"elsewhere-{number}" / "passbook.db"
        elsewhere.parent.mkdir()
        back = passbook("restore", str(copy), "--database", str(elsewhere))
        run.must(back.returncode == 0, back.stderr[-300:])
        run.broken += [f"backup {number}: {fault}" for fault in _faults(elsewhere, live.database, answered)]
        run.count("backups restored elsewhere")
        with contextlib.closing(sqlite3.connect(elsewhere)) as connection:
            run.count("rows", connection.execute("SELECT COUNT(*) FROM audit_logs").fetchone()[0])
    _serve(run, elsewhere)
    with contextlib.closing(sqlite3.connect(copies[0][0])) as connection:
        for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f'DROP TRIGGER "{trigger}"')
        connection.execute("DELETE FROM idempotency_answers WHERE rowid = (SELECT MIN(rowid) FROM idempotency_answers)")
        connection.commit()
    run.mutant(GAP, bool(_faults(copies[0][0], live.database, copies[0][1])))


def _faults(copy: Path, final: Path, answered: set[str]) -> list[str]:
    """What keeps `copy` from being what the ledger was at some moment after `answered`."""
    found = broken_invariants(copy)
    uri = final.absolute().as_uri()
    with contextlib.closing(sqlite3.connect(f"{copy.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        connection.execute("ATTACH ? AS final", (f"{uri}?mode=ro",))
        for table in ONLY_ADDED_TO:
            order = connection.execute(f"SELECT MAX(rowid) FROM main.{table}").fetchone()[0]
            ours = connection.execute(f"SELECT * FROM main.{table} ORDER BY rowid").fetchall()
            if (
                ours
                != connection.execute(
                    f"SELECT * FROM final.{table} WHERE rowid <= ? ORDER BY rowid", (order,)
                ).fetchall()
            ):
                found.append(f"{table} is no prefix of the ledger's")
        stored = {key for (key,) in connection.execute("SELECT idempotency_key FROM main.idempotency_answers")}
    if answered - stored:
        found.append(f"{len(answered - stored)} writes that were answered before the backup are not in it")
    return found


def _serve(run: Run, database: Path) -> None:
    """Elsewhere the service has the same audit key, as the operating guide says."""
    key = run.folder / "passbook.db.audit-key"
    if key.exists():
        target = database.with_name("passbook.db.audit-key")
        target.write_bytes(key.read_bytes())
        os.chmod(target, 0o600)
    live = LiveService(database, admin_key="unknown").start()
    live.admin_key = live.make_key("--role", "admin")
    run.must(live.client().get("/readyz").status_code == 200, "the restored copy is not ready")
    live.client().credit("5100", 10)
    run.must(live.stop(code=None) == 0, live.said[-300:])
    run.broken += broken_invariants(database)


ROW = Row(
    "backup",
    "backup while writing, restored elsewhere",
    "the CLI",
    share=0.04,
    at_least=2,
    inject=inject,
    mutants=(GAP,),
)
