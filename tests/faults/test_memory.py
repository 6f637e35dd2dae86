"""Every way to fill a service's memory at once, and what another caller notices of it."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults import flood
from tests.live import CHECKOUT, Client, LiveService
from tests.repository.house import writing

SECONDS = 20.0
KEYS = 4
RESIDENT_MIB_MAX = 300
ANSWER_S_MAX = SECONDS / 4
LONGEST_ANSWER_S_MAX = SECONDS / 2
"""Others need not wait for the end of the flood. On a machine of their own it is tenths of a second."""
ROWS, DETAILS = 1500, 8000
"""A page of 8 MB, if it had no bound."""


def resident_mib(service: LiveService) -> float:
    """The memory of both processes; of what they share, both count."""
    assert service.process is not None
    found = 0
    for pid in (service.process.pid, service.writer_pid):
        status = Path(f"/proc/{pid}/status").read_text()
        found += int(re.search(r"^VmRSS:\s+(\d+) kB", status, re.M)[1])  # type: ignore[index]
    return found / 1024


def floods(service: LiveService) -> "subprocess.Popen[bytes]":
    """Callers that mean harm, with a few keys, as a process that ends by itself."""
    keys = [service.admin_key, *(service.make_key("--role", "admin") for _ in range(KEYS - 1))]
    return subprocess.Popen(
        [sys.executable, "-m", flood.__name__, service.url, ",".join(keys), str(SECONDS)], cwd=CHECKOUT
    )


def waits_of(client: Client, flooding: "subprocess.Popen[bytes]", service: LiveService) -> tuple[list[float], float]:
    """How long each balance took while it floods, and the most memory that was seen."""
    waits, most = [], 0.0
    while flooding.poll() is None:
        began = time.monotonic()
        answer = client.get("/v1/users/7/balance")
        waits.append(time.monotonic() - began)
        assert (answer.status_code, answer.json()["balance"]) == (200, 100), answer.text
        most = max(most, resident_mib(service))
        time.sleep(0.02)
    return waits, most


@pytest.fixture
def filled(own_service: LiveService) -> LiveService:
    """A service with its default settings, a log with large rows and users with some money."""
    client = own_service.start().client()
    client.credit("7", 100)
    client.credit("8", 100)
    with writing(own_service.database) as connection:
        connection.execute(
            "INSERT INTO audit_logs (action, details) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
            " WHERE i < ?) SELECT 'large', json_object('text', printf('%0*d', ?, i)) FROM n",
            (ROWS, DETAILS),
        )
    return own_service


def test_memory_has_a_bound_under_every_flood_at_once(filled: LiveService) -> None:
    """Trailers, pipelines, unfinished heads, unread pages and batches together: 300 MiB, and others are answered."""
    client = filled.client(filled.make_key("--role", "bot"))
    before = resident_mib(filled)
    waits, most = waits_of(client, floods(filled), filled)
    waits.sort()
    usual, longest = waits[len(waits) // 100 * 99], waits[-1]
    print(
        f"{before:.0f} MiB at rest, {most:.0f} under the floods; {len(waits)} balances: {usual:.2f} s, {longest:.2f} s"
    )
    assert most < RESIDENT_MIB_MAX
    assert usual < ANSWER_S_MAX
    assert longest < LONGEST_ANSWER_S_MAX
    text = client.get("/metrics").text
    # Otherwise it was no flood.
    assert re.search(r'^passbook_connections_cut_total\{reason="held"\} [1-9]', text, re.M)
    assert re.search(r'^passbook_refusals_total\{code="headers_too_large"\} [1-9]', text, re.M)
    assert re.search(r'^passbook_writes_total\{outcome="new"\} [1-9]', text, re.M)
    assert filled.stop() == 0
    assert "Traceback" not in filled.said
