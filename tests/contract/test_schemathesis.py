"""The OpenAPI document against the running service, with schemathesis: every check, in every phase."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from service.ledger.timestamps import system_clock
from tests.ledger_check import broken_invariants
from tests.live import CHECKOUT, Client, LiveService

CONFIG = Path(__file__).with_name("schemathesis.toml")
EXAMPLES = int(os.environ.get("PASSBOOK_FUZZ_EXAMPLES", "25"))
SEEDS = [int(seed) for seed in os.environ.get("PASSBOOK_FUZZ_SEEDS", "1").split(",")]
TELEGRAM_IDS = ("1", "22", "333")  # as in CONFIG
OPERATIONS_MIN = 29
MUST_BE_REACHED = {
    *("user_created", "user_renamed", "deposit_announced", "deposit_confirmed", "deposit_cancelled", "balance_debited"),
    *("bank_notification_received", "bank_notification_matched", "user_name_forgotten"),
    *("deposit_confirm_failed", "deposit_cancel_failed", "debit_failed"),
}


@pytest.mark.parametrize("seed", SEEDS)
def test_the_document_says_exactly_what_the_service_does(own_service: LiveService, tmp_path: Path, seed: int) -> None:
    """No failed check and no warning over all operations, from the document's own links too; and nothing is a 5xx."""
    service = own_service.start()
    client = service.client()
    seed_with_what_the_configuration_names(client)
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG)),
            *(
                "run",
                f"{service.url}/openapi.json",
                "--checks",
                "all",
                "--phases",
                "examples,coverage,fuzzing,stateful",
            ),
            *("--max-examples", str(EXAMPLES), "--seed", str(seed)),
        ],
        env={**os.environ, "PASSBOOK_FUZZ_KEY": service.admin_key, "PYTHONPATH": str(CHECKOUT), "NO_COLOR": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    print(ran.stdout[-3000:])
    assert ran.returncode == 0, ran.stdout + ran.stderr
    mismatch = re.search(r"Schema validation mismatch: .*?\n\n((?:  - .*\n)+)", ran.stdout)
    rejected = set(mismatch[1].splitlines()) if mismatch else set()
    told_in_words = {"/v1/domain-purchases", "/v1/bank-notifications/{bank_notification_id}/match"}
    assert rejected <= {f"  - POST {path}" for path in told_in_words}, ran.stdout
    tested = re.search(r"Selected: (\d+)/(\d+)\s+Tested: (\d+)", ran.stdout)
    assert tested, ran.stdout
    assert len(set(tested.groups())) == 1
    assert int(tested[1]) >= OPERATIONS_MIN
    for phase in ("Coverage", "Fuzzing", "Stateful"):
        assert f"✅ {phase}" in ran.stdout
    assert reached(service) >= MUST_BE_REACHED
    assert service.stop() == 0
    assert "Traceback" not in service.said, service.said
    assert broken_invariants(service.database) == []


def seed_with_what_the_configuration_names(client: Client) -> None:
    """Users with money, one of them with little; held names; pending deposits, lines that wait, and learned names."""
    for telegram_id, amount in zip(TELEGRAM_IDS, (10**12, 10**12, 10), strict=True):
        client.credit(telegram_id, amount)
        held = {"telegram_id": telegram_id, "domain": f"held-{telegram_id}.example", "price": 1, "hold": True}
        assert client.write("/v1/domain-purchases", held).status_code == 201
        assert (
            client.write("/v1/debits", {"telegram_id": telegram_id, "amount": 1, "reason": "fuzz"}).status_code == 201
        )
    for number in range(60):
        announced = {"telegram_id": TELEGRAM_IDS[0], "amount": 5000, "depositor_name": f"announced {number}"}
        assert client.write("/v1/deposits", announced).json()["id"] == 10 + number
        line = {"bank_transaction_id": f"fuzz-{number}", "depositor_name": f"received {number}", "amount": 5000}
        line["occurred_at"] = system_clock().isoformat(timespec="seconds")
        assert client.write("/v1/bank-notifications", line).json()["id"] == 1 + number
    for number in range(40):
        announced = {"telegram_id": TELEGRAM_IDS[0], "amount": 6000, "depositor_name": f"announced {number}"}
        deposit_id = client.write("/v1/deposits", announced).json()["id"]
        line = {**line, "bank_transaction_id": f"taught-{number}", "depositor_name": f"taught {number}", "amount": 6000}
        line_id = client.write("/v1/bank-notifications", line).json()["id"]
        told = {"deposit_id": deposit_id, "remember": True}
        assert client.write(f"/v1/bank-notifications/{line_id}/match", told).status_code == 200
    for number in range(60):
        text = {"raw_message": f"fuzz {number}"}
        assert client.write("/v1/bank-notifications", text).json()["id"] == 1 + number
    taught = client.get("/v1/learned-names?limit=1000").json()["items"]
    assert [item["id"] for item in taught] == list(range(40, 0, -1))


def reached(service: LiveService) -> set[str]:
    """The actions in the audit log: what the run really did, whatever the report says of itself."""
    client, path, found = service.client(), "/v1/audit-logs?limit=1000", set()
    while path:
        page = client.get(path)
        found |= {item["action"] for item in page.json()["items"]}
        path = page.headers.get("Link", "").partition(">")[0].lstrip("<")
    return found
