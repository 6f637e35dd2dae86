"""passbook audit, as a person types it, at a terminal and in a pipe."""

import csv
import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len

from service.cli.audit_view import visible
from service.ledger import notes
from tests.api.test_audit_exports import ODD, add_rows
from tests.api.test_audit_logs import every
from tests.live import CHECKOUT, PASSBOOK, LiveService, passbook
from tests.printed import stands
from tests.repository.house import make_database, writing
from tests.some import some
from tests.storage.test_audit_verification import append, prune

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202etxt.exe\x7f"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
COLUMNS = 200


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """A service with rows of every kind, which runs all the while."""
    live = LiveService(tmp_path_factory.mktemp("audit") / "passbook.db").start()
    client = live.client()
    for telegram_id in ("1", "2"):
        client.credit(telegram_id, 5000)
        refused = client.write("/v1/debits", {"telegram_id": telegram_id, "amount": 10**6, "reason": "too much"})
        assert refused.status_code == 409, refused.text
    evil = [(EVIL, EVIL, json.dumps({"text": EVIL}), EVIL, EVIL), ("로그인", "9", '{"이름": "홍길동"}', None, None)]
    add_rows(live.database, [*ODD, *evil])
    yield live
    assert live.stop() == 0


def run(log: LiveService, *arguments: str) -> list[str]:
    """The lines of a command in a pipe."""
    done = passbook("audit", *arguments, "--database", str(log.database))
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def at_a_terminal(log: LiveService, *arguments: str) -> str:
    """What a terminal of 200 columns is sent."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    command = [*PASSBOOK, "audit", *arguments, "--database", str(log.database)]
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT), "TERM": "xterm-256color", "PYTHONUTF8": "1"}
    for name in ("COLUMNS", "LINES"):  # a runner of tests may have set them; they go before the terminal's size
        env.pop(name, None)
    process = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env=env, close_fds=True)
    os.close(follower)
    received = b""
    try:
        while part := os.read(leader, 65536):
            received += part
    except OSError:  # how Linux tells that nobody writes any more
        pass
    os.close(leader)
    assert process.wait(30) == 0, received
    return received.decode()


def test_a_pipe_gets_the_lines_of_the_api(log: LiveService) -> None:
    """The same NDJSON, byte for byte; tail ends with the newest, search begins with it."""
    client = log.client()
    sent = client.get("/v1/audit-logs", headers={"Accept": "application/x-ndjson"}).text.splitlines()
    assert run(log, "search", "--limit", "1000") == sent
    assert run(log, "tail", "-n", "5") == sent[:5][::-1]
    assert run(log, "tail", "-n", "0") == []
    assert run(log, "export") == sent[::-1]
    assert run(log, "search", "--order", "oldest", "--limit", "3") == sent[::-1][:3]


@pytest.mark.parametrize(
    "query",
    [
        {"telegram_id": "1"},
        {"action": "*_failed"},
        {"outcome": "failure", "actor": "first-admin"},
        {"resource_type": "deposit_transaction", "resource_id": "1"},
        {"since": "2026-01-01", "tz": "Asia/Seoul", "action": "plain"},
        {"on": "2026-01-01", "tz": "Asia/Seoul"},
        {"on": "2025-12-31"},
        {"until": "2026-01-01T00:00:00.2Z"},
        {"request_id": "nobody's"},
    ],
    ids=str,
)
def test_filters_are_those_of_the_api(log: LiveService, query: dict[str, str]) -> None:
    """Every option selects what the parameter of its name does."""
    options = [part for name, value in query.items() for part in (f"--{name.replace('_', '-')}", value)]
    found = [json.loads(line) for line in run(log, "search", *options, "--limit", "1000")]
    assert found == every(log.client(), limit=1000, **query)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--on", "2026-02-30"], "--on is no day"),
        (["--on", "2026-02-03", "--since", "2026-02-03"], "--on is a whole day"),
        (["--tz", "Mars/Olympus"], "--tz must be"),
        (["--since", "yesterday"], "--since"),
        (["--action", "a*b"], "--action"),
        (["--resource-id", "0"], "--resource-id"),
        (["--outcome", "maybe"], "--outcome"),
    ],
)
def test_what_cannot_be_asked_is_told(log: LiveService, options: list[str], said: str) -> None:
    """Exit code 2, with the option."""
    refused = passbook("audit", "search", *options, "--database", str(log.database))
    assert (refused.returncode, said in refused.stderr) == (2, True), refused.stderr


@pytest.mark.parametrize("options", [["--actor", "x"], ["--limit", "3"]])
def test_a_sealed_export_is_the_whole_log_or_refused(log: LiveService, options: list[str]) -> None:
    """A part of it, or another order, would be no log that anybody could recompute."""
    refused = passbook("audit", "export", "--sealed", *options, "--database", str(log.database))
    assert (refused.returncode, refused.stdout) == (2, ""), "a part of the log was exported as the whole"
    assert "--sealed is the whole log" in refused.stderr


def test_a_terminal_gets_aligned_columns_with_colour(log: LiveService) -> None:
    """Wide letters too; a line is as wide as the terminal at most."""
    shown = at_a_terminal(log, "search", "--limit", "1000")
    assert "\x1b[1;31m" in shown
    lines = [COLOUR.sub("", line) for line in shown.splitlines()]
    assert len(lines) == len(run(log, "search", "--limit", "1000"))
    assert all(cell_len(line) <= COLUMNS for line in some(lines))
    marks = {cell_len(line[: re.search("[✓✗]", line).start()]) for line in lines}  # type: ignore[union-attr]
    assert len(marks) == 1
    wide = next(line for line in lines if "로그인" in line)
    plain = next(line for line in lines if "deposit_confirmed" in line)
    assert cell_len(wide[: wide.index("9")]) <= cell_len(plain[: plain.index("deposit_transaction")])
    actor = cell_len(plain[: plain.index("deposit_transaction")])
    assert all(one == " " or unicodedata.east_asian_width(one) != "W" for one in some(wide[actor - 4 : actor - 3]))
    seoul = at_a_terminal(log, "search", "--telegram-id", "5", "--tz", "Asia/Seoul")
    assert stands("2026-01-01 09:00:00.500", COLOUR.sub("", seoul))


def test_nothing_in_the_log_reaches_the_terminal_as_a_command(log: LiveService) -> None:
    """Escapes, 8-bit control characters and those that turn the direction of writing are shown, not obeyed."""
    for arguments in (
        ("search", "--limit", "1000"),
        ("tail", "-n", "1000"),
        ("export",),
        ("export", "--format", "csv"),
    ):
        shown = at_a_terminal(log, *arguments)
        left = re.sub(r"\x1b\[[0-9;]*m", "", shown)
        assert all(one.isprintable() or one in "\r\n" for one in some(left)), arguments
        assert re.search(r"\\u001b\]0;owned", left, re.IGNORECASE), arguments
        if arguments == ("export",):
            assert [json.loads(line) for line in left.splitlines()] == [json.loads(line) for line in run(log, "export")]


def test_visible_is_what_json_reads_the_same() -> None:
    """Beyond the first plane as well."""
    text = EVIL + "홍 길동 \U000e0001 \u2028"
    assert visible(text).isprintable()
    assert json.loads(f'"{visible(text)}"') == text


def test_tail_follows_without_missing_or_doubling_a_row(log: LiveService) -> None:
    """Each row once, soon after it is written; it ends when it is told to, without a word."""
    arguments = ["audit", "tail", "-f", "-n", "1", "--action", "user_*", "--database", str(log.database)]
    # What runs in the background of a shell has its SIGINT ignored, and so have its children.
    command = ["env", "--default-signal=INT", *PASSBOOK, *arguments]
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, text=True)
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    client = log.client()

    def write() -> None:
        for number in range(60):
            client.write("/v1/users", {"telegram_id": f"55{number}"})
            if number % 20 == 0:
                time.sleep(0.3)

    writing = threading.Thread(target=write)
    writing.start()
    ids = [json.loads(process.stdout.readline())["id"] for _ in range(60)]
    writing.join()
    assert ids == [
        row["id"] for row in every(client, order="oldest", limit=1000, action="user_*") if row["id"] > first["id"]
    ]
    process.send_signal(2)
    assert (process.wait(60), process.stderr and process.stderr.read()) == (130, "")
    process.stdout.close()
    process.stderr and process.stderr.close()


@pytest.fixture(scope="module")
def long_log(log: LiveService, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the log with more rows than a pipe holds; the other tests' log stays as it is."""
    copy = tmp_path_factory.mktemp("long") / "passbook.db"
    # Without a proof: some of its rows are odd on purpose.
    made = passbook("backup", "--no-proof", "--database", str(log.database), "--to", str(copy))
    assert made.returncode == 0, made.stderr
    add_rows(copy, [("many", "1", None, None, None)] * 10_000)
    return copy


@pytest.mark.parametrize(
    ("arguments", "unbuffered"),
    [
        ("export", "1"),
        ("export --format csv", ""),
        ("search --limit 100000", ""),
        ("tail -n 100000 -f", "1"),
        ("tail -n 1 -f", ""),
    ],
)
def test_a_reader_that_has_seen_enough_ends_it_quietly(long_log: Path, arguments: str, unbuffered: str) -> None:
    """As in `| head -n 1`: no complaint, exit code 0."""
    export = f"{sys.executable} -m service.cli audit {arguments} --database {long_log}"
    command = f"{export} | head -n 1; exit ${{PIPESTATUS[0]}}"
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(["bash", "-c", command], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1


def test_a_file_appears_whole_and_replaces_none(log: LiveService, tmp_path: Path) -> None:
    """CSV with its header; what is there already is not written over, and nothing half-made is left."""
    target = tmp_path / "log.csv"
    said = run(log, "export", "--format", "csv", "-o", str(target), "--outcome", "failure")
    rows = list(csv.DictReader(io.StringIO(target.read_text("utf-8"), newline="")))
    assert [int(row["id"]) for row in rows] == [
        row["id"] for row in every(log.client(), outcome="failure", order="oldest")
    ]
    assert f"Wrote {len(rows)} rows" in said[-1]
    before = target.read_bytes()
    again = passbook("audit", "export", "-o", str(target), "--database", str(log.database))
    assert (again.returncode, "is there already" in again.stderr) == (1, True)
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_for_excel_is_the_csv_with_a_byte_order_mark(log: LiveService, tmp_path: Path) -> None:
    """--format csv may stand beside --excel; another format may not, nor --sealed."""
    for name, options in {
        "plain": ["--format", "csv"],
        "excel": ["--excel"],
        "both": ["--excel", "--format", "csv"],
    }.items():
        run(log, "export", *options, "-o", str(tmp_path / name))
    plain = (tmp_path / "plain").read_bytes()
    assert plain.startswith(b"id,")
    assert (tmp_path / "excel").read_bytes() == (tmp_path / "both").read_bytes() == b"\xef\xbb\xbf" + plain
    for options, said in ((["--format", "ndjson"], "--excel is CSV"), (["--sealed"], "leave out the other options")):
        refused = passbook("audit", "export", "--excel", *options, "--database", str(log.database))
        assert (refused.returncode, said in refused.stderr) == (2, True), refused.stderr


def test_a_database_that_is_not_there_is_told(tmp_path: Path) -> None:
    """One sentence; nothing is made."""
    for command in ("tail", "search", "export"):
        refused = passbook("audit", command, "--database", str(tmp_path / "none.db"))
        assert (refused.returncode, "There is no database" in refused.stderr) == (1, True)
    assert list(tmp_path.iterdir()) == []


def test_a_sealed_export_is_what_auditors_recompute(own_service: LiveService, tmp_path: Path) -> None:
    """docs/audit-log/verify.py takes it with a proof of the service's; with another option it is refused."""
    service = own_service.start()
    client = service.client()
    client.credit("7301", 100)
    file = tmp_path / "log.ndjson"
    database = ("--database", str(service.database))
    made = passbook("audit", "export", "--sealed", "-o", str(file), *database)
    assert made.returncode == 0, made.stderr
    (tmp_path / "checkpoint").write_text(client.get("/v1/audit-logs/checkpoint").text)
    (tmp_path / "proof").write_text(client.get("/v1/audit-logs/2/proof").text)
    key = service.database.with_name(f"{service.database.name}.audit-key").read_text().strip()
    kept = ("--key", notes.read_signing_key(key).verifier.text(), "--checkpoint", str(tmp_path / "checkpoint"))
    verifier = CHECKOUT / "docs" / "audit-log" / "verify.py"
    verified = subprocess.run(
        [sys.executable, "-I", str(verifier), str(file), *kept, "--proof", str(tmp_path / "proof")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr
    piped = passbook("audit", "export", "--sealed", *database)
    assert piped.stdout.encode() == file.read_bytes()
    refused = passbook("audit", "export", "--sealed", "--format", "csv", *database)
    assert (refused.returncode, "--sealed is the whole log" in refused.stderr) == (2, True)


def test_a_sealed_export_goes_on_where_the_archive_ends(tmp_path: Path) -> None:
    """Rows that were archived and removed are in their archive: the export begins behind them, and says so."""
    path = make_database(tmp_path / "p.db")
    with writing(path) as connection:
        append(connection, 6)
    prune(path, 4)
    made = passbook("audit", "export", "--sealed", "--database", str(path))
    assert (made.returncode, made.stderr) == (0, ""), "the log cannot be exported once rows were archived"
    header, *rows = map(json.loads, made.stdout.splitlines())
    assert header["first_index"] == 4
    assert [row["id"] for row in rows] == [5, 6, 7]  # the last one tells of the prune
