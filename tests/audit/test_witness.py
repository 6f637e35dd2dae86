"""passbook audit witness against a service made from the pure code: real HTTP, real files, real processes."""

import json
import os
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner, Result

from service.cli.audit_witness import witness
from service.ledger.audit_chain import consistency_proof, root_at
from service.ledger.notes import COSIGNATURE, Checkpoint, make_signing_key, open_note, sign
from tests.audit.vectors import node_of
from tests.ledger.test_audit_chain import leaves_of
from tests.live import CHECKOUT
from tests.printed import stands

ORIGIN = "passbook.example/log"
KEY = make_signing_key(ORIGIN, bytes(32))
VKEY = KEY.verifier.text()
WITNESS = make_signing_key("witness.example/w1", bytes(range(32)), algorithm=COSIGNATURE)
API_KEY = "pbk_key"


class Service:
    """A log that does what a test wants, also what no log should."""

    def __init__(self) -> None:
        self.leaves = leaves_of(100)
        self.size = 5
        self.key = KEY
        self.status = 200
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                body = outer.answer(self.path, self.headers.get("Authorization"))
                self.send_response(outer.status)
                self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def checkpoint(self) -> str:
        return sign(Checkpoint(ORIGIN, self.size, root_at(self.size, node_of(self.leaves))).text(), self.key)

    def answer(self, path: str, authorization: str | None) -> bytes:
        assert authorization == f"Bearer {API_KEY}"
        asked = urlsplit(path)
        if asked.path == "/v1/audit-logs/checkpoint":
            return self.checkpoint().encode()
        assert asked.path == "/v1/audit-logs/consistency"
        query = parse_qs(asked.query)
        return self.consistency(int(query["from"][0]), int(query["to"][0]))

    def consistency(self, earlier: int, later: int) -> bytes:
        proof = consistency_proof(earlier, later, node_of(self.leaves))
        hashes = [b64encode(value).decode() for value in proof]
        return json.dumps({"from": earlier, "to": later, "proof": hashes}).encode()


@pytest.fixture
def log() -> Iterator[Service]:
    """A running one of five rows."""
    service = Service()
    thread = threading.Thread(target=service.server.serve_forever)
    thread.start()
    yield service
    service.server.shutdown()
    service.server.server_close()
    thread.join()


Ask = Callable[..., Result]


@pytest.fixture
def ask(log: Service, tmp_path: Path) -> Ask:
    """Runs the command with a folder of the test's own."""

    def run(*arguments: str | Path, url: bool = True) -> Result:
        source = ["--url", f"{log.url}/"] if url else []
        return CliRunner().invoke(
            witness,
            ["--state", str(tmp_path / "state"), *source, *map(str, arguments)],
            env={"PASSBOOK_API_KEY": API_KEY},
            prog_name="passbook audit witness",
        )

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "lock"}


def test_a_log_that_only_grows_is_accepted_time_after_time(log: Service, ask: Ask, tmp_path: Path) -> None:
    """The first one is trusted when that was said; the key is kept; all that was accepted stays in the history."""
    state = tmp_path / "state"
    assert ask().exit_code == 2
    assert "give the log's verifier key" in ask().output
    assert ask("--key", VKEY).exit_code == 2
    assert "nothing was accepted here yet, so this checkpoint of 5 rows" in ask().output.lower()
    assert not (state / "accepted.ndjson").exists()
    first = ask("--trust-first")
    assert (first.exit_code, "Accepted: 5 rows.\n" in first.output) == (0, True), first.output
    assert ask().output.endswith("Unchanged: 5 rows.\n")
    for size in (6, 64, 100):
        log.size = size
        assert f"Accepted: {size} rows, " in ask().output
    history = (state / "accepted.ndjson").read_text("utf-8").splitlines()
    assert [json.loads(line)["size"] for line in history] == [5, 6, 64, 100]
    assert (state / "latest.checkpoint").read_text("utf-8") == log.checkpoint()
    assert (state / "verifier-key").read_text("utf-8") == f"{VKEY}\n"
    assert log.asked[-1] == "/v1/audit-logs/consistency?from=64&to=100"


def test_a_log_that_shrank_forked_or_lies_is_refused_and_the_evidence_kept(
    log: Service, ask: Ask, tmp_path: Path
) -> None:
    """Exit code 1, a sentence, and both signed checkpoints; the accepted one stays the latest."""
    log.size = 20
    assert ask("--key", VKEY, "--trust-first").exit_code == 0
    before = contents(tmp_path / "state")
    whole = log.leaves
    for leaves, size, said in (
        (whole, 19, "the tree shrank from 20 leaves to 19"),
        ([bytes(32), *whole[1:]], 20, "the first 20 leaves are not those that they were"),
        ([*whole[:19], bytes(32), *whole[20:]], 30, "the first 20 leaves are not those that they were"),
    ):
        log.leaves, log.size = leaves, size
        found = ask()
        assert (found.exit_code, said in found.output) == (1, True), found.output
        kept = contents(tmp_path / "state")
        refused = kept.pop("refused.ndjson").decode().splitlines()
        assert json.loads(refused[-1])["checkpoint"] == log.checkpoint()
        assert kept == before
    log.leaves, log.size = whole, 30
    assert ask().exit_code == 0


def test_what_is_not_signed_or_not_answered_says_nothing_of_the_log(log: Service, ask: Ask, tmp_path: Path) -> None:
    """Exit code 2, and nothing is written."""
    assert ask("--key", VKEY, "--trust-first").exit_code == 0
    before = contents(tmp_path / "state")
    log.size = 6
    log.key = make_signing_key(ORIGIN, b"\x01" * 32)
    assert "none of its signatures" in ask().output.lower()
    log.key = KEY
    for status in (401, 302, 500):
        log.status = status
        found = ask()
        assert (found.exit_code, f"was answered with {status}" in found.output) == (2, True), found.output
    assert "/elsewhere" not in log.asked
    log.status = 200
    honest = log.consistency
    log.consistency = lambda earlier, later: honest(earlier, later - 1)  # type: ignore[method-assign]
    assert stands("the proof is from 5 to 5, not from 5 to 6", ask().output.lower())
    other = make_signing_key(ORIGIN, b"\x02" * 32).verifier.text()
    assert "not the one that was given" in ask("--key", other).output
    log.server.shutdown()
    log.server.server_close()
    found = ask()
    assert (found.exit_code, "The service does not answer" in found.output) == (2, True)
    assert contents(tmp_path / "state") == before


def test_files_do_without_a_network(log: Service, ask: Ask, tmp_path: Path) -> None:
    """A checkpoint and an answer that somebody carried over."""
    checkpoint, consistency = tmp_path / "c", tmp_path / "p"
    checkpoint.write_text(log.checkpoint(), "utf-8")
    assert ask("--checkpoint", checkpoint, "--key", VKEY, "--trust-first", url=False).exit_code == 0
    log.size = 9
    checkpoint.write_text(log.checkpoint(), "utf-8")
    found = ask("--checkpoint", checkpoint, url=False)
    assert (found.exit_code, "consistency?from=5&to=9 answers" in found.output) == (2, True)
    consistency.write_bytes(log.consistency(5, 9))
    assert ask("--checkpoint", checkpoint, "--consistency", consistency, url=False).exit_code == 0
    assert ask("--checkpoint", tmp_path / "none", url=False).exit_code == 2
    assert log.asked == []


def test_a_witness_signs_what_it_accepts(log: Service, ask: Ask, tmp_path: Path) -> None:
    """c2sp.org/tlog-cosignature, under the log's own signature."""
    key = tmp_path / "key"
    key.write_text(WITNESS.text(), "utf-8")
    assert ask("--key", VKEY, "--trust-first", "--cosign-key", key).exit_code == 0
    signed = (tmp_path / "state" / "latest.checkpoint").read_bytes()
    assert open_note(signed, [KEY.verifier, WITNESS.verifier]).signers == (KEY.verifier, WITNESS.verifier)


def test_a_line_that_was_being_written_is_written_again(log: Service, ask: Ask, tmp_path: Path) -> None:
    """What was torn when the machine stopped was not accepted; whole lines are never changed."""
    assert ask("--key", VKEY, "--trust-first").exit_code == 0
    history = tmp_path / "state" / "accepted.ndjson"
    whole = history.read_bytes()
    history.write_bytes(whole + b'{"accepted_at":"2026')
    log.size = 6
    assert "Accepted: 6 rows, 5 before" in ask().output
    assert history.read_bytes().startswith(whole)
    assert [json.loads(line)["size"] for line in history.read_bytes().splitlines()] == [5, 6]


def test_a_history_that_was_edited_stops_the_witness(ask: Ask, tmp_path: Path) -> None:
    """A size or root that was changed is not signed by the log."""
    assert ask("--key", VKEY, "--trust-first").exit_code == 0
    history = tmp_path / "state" / "accepted.ndjson"
    history.write_bytes(history.read_bytes().replace(b"log\\n5\\n", b"log\\n4\\n"))
    found = ask()
    assert (found.exit_code, "is wrong" in found.output) == (2, True), found.output


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--url", "http://x", "--checkpoint", "c"],
        ["--url", "file:///etc/passwd"],
        ["--url", "http://x", "--consistency", "p"],
        ["--checkpoint", "c", "--interval", "5"],
    ],
)
def test_what_was_asked_wrongly_is_2(ask: Ask, arguments: list[str]) -> None:
    """Never the exit code of a log that misbehaved."""
    assert ask(*arguments, url=False).exit_code == 2


def test_with_an_interval_it_goes_on_until_the_log_misbehaves(log: Service, tmp_path: Path) -> None:
    """Through a time without answers; a second witness in the same folder is refused meanwhile."""
    log.size = 20
    program = "from service.cli.audit_witness import witness; witness()"
    command = [sys.executable, "-c", program, "--state", str(tmp_path / "state"), "--url", log.url, "--key", VKEY]
    environment = {**os.environ, "PASSBOOK_API_KEY": API_KEY, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen(
        [*command, "--trust-first", "--interval", "1"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=environment,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert "Accepted: 20 rows" in process.stdout.readline()
        second = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert (second.returncode, "another witness works in" in second.stderr.lower()) == (2, True), second.stderr
        log.status = 500
        lines = iter(process.stdout.readline, "")  # ends with the process, which the test's time bounds
        assert any("It cannot be told now" in line for line in lines), "the witness ended"
        log.status, log.size = 200, 10
        said = process.communicate(timeout=60)[0]
        assert (process.returncode, stands("shrank from 20 leaves to 10", said)) == (1, True), said
