"""Receipts, checkpoints and proofs as callers and auditors get them from the running service."""

import re
import shutil
import sqlite3
from base64 import b64decode
from contextlib import closing
from pathlib import Path

import pytest

from service.ledger import notes
from service.ledger.audit_chain import check_consistency, read_receipt, root_of_inclusion
from service.ledger.notes import Checkpoint, VerifierKey
from tests.live import Client, LiveService, passbook
from tests.printed import stands

DEBIT = {"telegram_id": "901", "amount": 1, "reason": "a stamp"}


def key_of(service: LiveService) -> VerifierKey:
    """The public half that the service printed when it made its key."""
    found = re.search(r"check the log:\n  (\S+)", service.said)
    assert found, service.said
    return notes.read_verifier_key(found[1])


def checkpoint_of(client: Client, key: VerifierKey) -> Checkpoint:
    answer = client.get("/v1/audit-logs/checkpoint").raise_for_status()
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    return notes.open_checkpoint(answer.text, [key])


@pytest.fixture
def client(own_service: LiveService) -> Client:
    """An admin of `own_service`, in which user 901 has money."""
    client = own_service.start().client()
    client.credit("901", 100_000)
    return client


def test_every_answer_to_a_write_has_its_receipt(own_service: LiveService, client: Client) -> None:
    """Also a refusal and a batch; a replay has the same, and reads have none. It is the leaf of the last row."""
    made = client.write("/v1/debits", DEBIT, key="receipt-1")
    audit_log_id, leaf = read_receipt(made.headers["Passbook-Receipt"])
    assert audit_log_id == made.json()["audit_log_id"]
    refused = client.write("/v1/debits", {**DEBIT, "amount": 10**9})
    assert refused.status_code == 409
    assert read_receipt(refused.headers["Passbook-Receipt"])[0] == audit_log_id + 1
    changes = [{"telegram_id": "901", "amount": 5, "reason": "r", "reference": f"ref-{n}"} for n in range(3)]
    batch = client.write("/v1/balance-changes", {"changes": changes})
    assert read_receipt(batch.headers["Passbook-Receipt"])[0] == audit_log_id + 4
    replayed = client.write("/v1/debits", DEBIT, key="receipt-1")
    assert replayed.headers["Passbook-Receipt"] == made.headers["Passbook-Receipt"]
    assert "Passbook-Receipt" not in client.get("/v1/users/901/balance").headers
    own_service.stop()
    client = own_service.start().client()
    again = client.write("/v1/debits", DEBIT, key="receipt-1")
    assert again.headers["Passbook-Receipt"] == made.headers["Passbook-Receipt"]
    with closing(sqlite3.connect(own_service.database)) as hand:
        found = hand.execute("SELECT hash FROM audit_leaves WHERE audit_log_id = ?", (audit_log_id,)).fetchone()
    assert found == (leaf,)


def test_a_proof_leads_from_the_receipt_to_a_signed_checkpoint(own_service: LiveService, client: Client) -> None:
    """All that an auditor needs: the receipt, the .tlog-proof file and the public key."""
    key = key_of(own_service)
    receipts = [read_receipt(client.write("/v1/debits", DEBIT).headers["Passbook-Receipt"]) for _ in range(20)]
    for audit_log_id, leaf in receipts:
        answer = client.get(f"/v1/audit-logs/{audit_log_id}/proof").raise_for_status()
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        proof = notes.read_proof(answer.text)
        assert proof.extra == leaf
        checkpoint = notes.open_checkpoint(proof.checkpoint, [key])
        assert root_of_inclusion(leaf, proof.index, checkpoint.size, proof.path) == checkpoint.root
    missing = client.get("/v1/audit-logs/999999/proof")
    assert (missing.status_code, missing.json()["code"]) == (404, "audit_log_not_found")


def test_checkpoints_continue_each_other(own_service: LiveService, client: Client) -> None:
    """Between any two of them there is a proof; without `to` it leads to the present one."""
    key = key_of(own_service)
    checkpoints = [checkpoint_of(client, key)]
    for count in (1, 3, 5, 9):
        for _ in range(count):
            client.write("/v1/debits", DEBIT)
        checkpoints.append(checkpoint_of(client, key))
    sizes = [checkpoint.size for checkpoint in checkpoints]
    assert sizes == [sizes[0], sizes[0] + 1, sizes[0] + 4, sizes[0] + 9, sizes[0] + 18]
    for earlier in checkpoints:
        for later in checkpoints:
            if earlier.size <= later.size:
                sizes_asked = {"from": earlier.size, "to": later.size}
                found = client.get("/v1/audit-logs/consistency", params=sizes_asked).raise_for_status().json()
                assert {name: found[name] for name in sizes_asked} == sizes_asked
                proof = [b64decode(text) for text in found["proof"]]
                check_consistency(earlier.size, earlier.root, later.size, later.root, proof)
    assert client.get("/v1/audit-logs/consistency?from=1").json()["to"] == sizes[-1]
    for wrong in ("from=2&to=1", f"from=1&to={sizes[-1] + 1}", f"from={sizes[-1] + 1}"):
        assert client.get(f"/v1/audit-logs/consistency?{wrong}").status_code == 404, wrong


def test_nothing_is_signed_of_a_changed_log(own_service: LiveService, client: Client) -> None:
    """Once rows that were signed for are not what they were, the service signs no more; it goes on serving."""
    signed = checkpoint_of(client, key_of(own_service))
    with closing(sqlite3.connect(own_service.database)) as hand:
        hand.execute("BEGIN IMMEDIATE")
        trigger = hand.execute("SELECT sql FROM sqlite_master WHERE name = 'audit_leaves_refuse_update'").fetchone()[0]
        hand.execute("DROP TRIGGER audit_leaves_refuse_update")
        hand.execute("UPDATE audit_leaves SET hash = zeroblob(32) WHERE leaf_index = ?", (signed.size - 1,))
        hand.execute(trigger)  # without it no writes would be taken
        hand.commit()
    assert client.write("/v1/debits", DEBIT).status_code == 201
    for path in ("checkpoint", "1/proof"):
        answer = client.get(f"/v1/audit-logs/{path}")
        assert (answer.status_code, answer.json()["code"]) == (500, "audit_log_contradicted")
    verified = passbook("audit", "verify", "--database", str(own_service.database))
    assert verified.returncode == 1
    assert f"row {signed.size}:" in verified.stdout


def test_an_older_copy_put_back_does_not_start(own_service: LiveService, client: Client, tmp_path: Path) -> None:
    """The last checkpoint lies beside the key. Who moves it away says so, and the service starts."""
    checkpoint_of(client, key_of(own_service))
    assert own_service.stop() == 0
    older = shutil.copy(own_service.database, tmp_path / "older.db")
    client = own_service.start().client()
    for _ in range(3):
        client.write("/v1/debits", DEBIT)
    checkpoint_of(client, key_of_file(own_service))
    assert own_service.stop() == 0
    shutil.copy(older, own_service.database)
    verified = passbook("audit", "verify", "--database", str(own_service.database))
    assert (verified.returncode, "cut off" in verified.stdout) == (1, True), verified.stdout
    started = passbook("serve", "--database", str(own_service.database), "--port", "0")
    assert started.returncode == 1
    assert "is not the one that was signed" in started.stderr
    last = own_service.database.with_name("passbook.db.audit-key.checkpoint")
    assert str(last) in started.stderr
    last.rename(last.with_suffix(".old"))
    assert own_service.start().client().get("/v1/audit-logs/checkpoint").status_code == 200


def key_of_file(service: LiveService) -> VerifierKey:
    text = service.database.with_name("passbook.db.audit-key").read_text()
    return notes.read_signing_key(text.strip()).verifier


def test_the_key_is_made_once_and_for_its_owner_only(own_service: LiveService, client: Client, tmp_path: Path) -> None:
    """0600, printed once; another file and name by the settings; a spoilt one stops the start."""
    file = own_service.database.with_name("passbook.db.audit-key")
    checkpoint_of(client, key_of(own_service))
    for private in (file, file.with_name(file.name + ".checkpoint")):
        assert private.stat().st_mode & 0o777 == 0o600
    assert own_service.stop() == 0
    own_service.start()
    assert "Made the key" not in own_service.said
    assert own_service.stop() == 0
    own_service.environment = {
        "PASSBOOK_AUDIT_KEY": str(tmp_path / "keys" / "log.key"),
        "PASSBOOK_AUDIT_ORIGIN": "ledger.example/passbook",
    }
    own_service.start()
    signed = own_service.client().get("/v1/audit-logs/checkpoint").text
    assert own_service.stop() == 0
    assert notes.open_checkpoint(signed, [key_of(own_service)]).origin == "ledger.example/passbook"
    for text, said in (("not a key", "is no key"), ((tmp_path / "keys" / "log.key").read_text(), "not of another")):
        (tmp_path / "other.key").write_text(text)
        environment = {"PASSBOOK_AUDIT_KEY": str(tmp_path / "other.key"), "PASSBOOK_AUDIT_ORIGIN": "another"}
        failed = passbook("serve", "--database", str(own_service.database), "--port", "0", env=environment)
        assert (failed.returncode, said in failed.stderr) == (1, True), failed.stderr


def test_rows_from_before_the_tree_are_sealed_by_the_migration(own_service: LiveService, client: Client) -> None:
    """Down to before it and up again; also when another program ran the file, which cannot hash."""
    for _ in range(5):
        client.write("/v1/debits", DEBIT)
    assert own_service.stop() == 0
    last = own_service.database.with_name("passbook.db.audit-key.checkpoint")
    last.unlink(missing_ok=True)
    database = ("--database", str(own_service.database))
    assert passbook("migrate", "down", "--to", "11", "--yes", *database).returncode == 0
    assert passbook("audit", "verify", *database).returncode == 2
    raised = passbook("migrate", "up", *database)
    assert raised.returncode == 0, raised.stderr
    assert "rows of the audit log sealed" in raised.stdout
    assert passbook("audit", "verify", *database).returncode == 0

    assert passbook("migrate", "down", "--to", "11", "--yes", *database).returncode == 0
    with closing(sqlite3.connect(own_service.database)) as hand:
        hand.executescript((Path(__file__).parents[2] / "migrations" / "012_audit_chain.sql").read_text())
        hand.execute("DROP TABLE schema_migrations")
        hand.commit()
    refused = passbook("serve", *database, "--port", "0")
    assert (refused.returncode, "passbook migrate up" in refused.stderr) == (1, True)
    assert passbook("migrate", "up", *database).returncode == 0
    verified = passbook("audit", "verify", *database)
    assert verified.returncode == 0, verified.stdout


def test_verify_says_what_it_compared(own_service: LiveService, client: Client, tmp_path: Path) -> None:
    """With a checkpoint and receipts that were kept; of others it says why they are none of this log."""
    (tmp_path / "receipts").write_text(
        "".join(
            f"Passbook-Receipt: {client.write('/v1/debits', DEBIT).headers['Passbook-Receipt']}\n" for _ in range(3)
        )
    )
    (tmp_path / "checkpoint").write_text(client.get("/v1/audit-logs/checkpoint").text)
    (tmp_path / "proof").write_text(client.get("/v1/audit-logs/2/proof").text)
    database = ("--database", str(own_service.database))
    kept = ("--checkpoint", str(tmp_path / "checkpoint"), "--checkpoint", str(tmp_path / "proof"))
    verified = passbook("audit", "verify", *database, *kept, "--receipts", str(tmp_path / "receipts"))
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert stands("3 receipts", verified.stdout)
    assert "Nobody changed" in verified.stdout
    key = key_of(own_service).text()
    assert passbook("audit", "verify", *database, *kept, "--key", key).returncode == 0
    other = notes.make_signing_key("other", bytes(32)).verifier.text()
    assert passbook("audit", "verify", *database, *kept, "--key", other).returncode == 2
    genuine = (tmp_path / "receipts").read_text().partition("\n")[0] + "\n"
    row = read_receipt(genuine)[0]
    wrong = f"id={row}, leaf=:{'A' * 43}=:\n"
    for two in (genuine + wrong, wrong + genuine):
        (tmp_path / "receipts").write_text(two)
        told = passbook("audit", "verify", *database, "--receipts", str(tmp_path / "receipts"))
        assert (told.returncode, f"row {row} has two different receipts" in told.stderr) == (2, True), told.stdout
    (tmp_path / "receipts").write_text(genuine * 2)
    assert passbook("audit", "verify", *database, "--receipts", str(tmp_path / "receipts")).returncode == 0
    (tmp_path / "receipts").write_text(f"id=1, leaf=:{'A' * 43}=:\n")
    changed = passbook("audit", "verify", *database, "--receipts", str(tmp_path / "receipts"))
    assert (changed.returncode, "row 1: its receipt tells of another row" in changed.stdout) == (1, True)
    (tmp_path / "receipts").write_text("id=1\n")
    unread = passbook("audit", "verify", *database, "--receipts", str(tmp_path / "receipts"))
    assert (unread.returncode, stands("line 1", unread.stderr)) == (2, True)
