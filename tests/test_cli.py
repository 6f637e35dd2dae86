"""The command line, as a person types it."""

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import sysconfig
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from service import __version__
from service.cli import main
from service.cli.common import Command
from service.ledger.access import ROLES, Scope
from service.storage import sqlite
from tests.faults.disks import fill, small_disk
from tests.live import CHECKOUT, LiveService, passbook
from tests.printed import stands
from tests.repository.house import make_database
from tests.some import some
from tests.storage.test_importer import read

LATEST = len(list((CHECKOUT / "migrations").glob("*_rollback.sql")))


def test_first_start_makes_everything_and_prints_a_key_once(own_service: LiveService) -> None:
    """An empty folder becomes a served database; the key works; a second start prints no key and keeps the data."""
    own_service.start()
    assert own_service.client().credit("1", 100)["balance_after"] == 100
    assert f"Bearer {own_service.admin_key}" in own_service.said
    assert own_service.stop() == 0
    own_service.start()
    assert own_service.client().get("/v1/users/1/balance").json()["balance"] == 100
    assert own_service.stop() == 0
    assert "First admin key" not in own_service.said, "a second start made a key"
    assert read(own_service.database, "SELECT COUNT(*) FROM api_keys") == [(1,)]


def test_curl_that_serve_prints_works_as_it_is(own_service: LiveService) -> None:
    """The command is pasted into a shell and announces a deposit."""
    own_service.start()
    curl = own_service.said[own_service.said.index("  curl") : own_service.said.index("Make narrower")]
    answer = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, check=True, timeout=30).stdout
    assert json.loads(answer)["status"] == "pending"


def test_keys_are_made_listed_revoked_and_audited(tmp_path: Path) -> None:
    """The key stands alone on standard output; lists never show it; making and revoking are in the audit log."""
    database = tmp_path / "p.db"
    where = ("--database", str(database))
    assert passbook("migrate", "up", *where).returncode == 0
    made = passbook("keys", "create", "--name", "telegram-bot", "--role", "bot", *where)
    key = made.stdout.strip()
    assert key.startswith("pbk_")
    assert "not shown again" in made.stderr
    listed = passbook("keys", "list", *where)
    assert "telegram-bot" in listed.stdout
    assert key not in listed.stdout
    row = json.loads(passbook("keys", "list", "--json", *where).stdout)
    assert row["scopes"] == sorted(ROLES["bot"])
    prefix = row["prefix"]
    assert "Revoked" in passbook("keys", "revoke", prefix, *where).stdout
    revoked = "SELECT created_at FROM audit_logs WHERE action = 'api_key_revoked'"
    assert read(database, revoked) == read(database, "SELECT revoked_at FROM api_keys"), "it is on record at once"
    shown = passbook("keys", "list", *where).stdout.splitlines()[1].split()
    assert shown[-1].endswith("Z"), f"the list does not tell when the key was revoked: {shown}"
    assert (
        shown[-1] == json.loads(passbook("keys", "list", "--json", *where).stdout)["revoked_at"].replace(" ", "T") + "Z"
    )
    assert "was revoked before" in passbook("keys", "revoke", prefix, *where).stdout
    unknown = passbook("keys", "revoke", "pbk_00000000", *where)
    assert (unknown.returncode, stands("There is no key pbk_00000000", unknown.stderr)) == (1, True)
    log = read(database, "SELECT action, resource_type, resource_id, actor LIKE 'cli:%' FROM audit_logs ORDER BY id")
    assert log == [("api_key_created", "api_key", 1, 1), ("api_key_revoked", "api_key", 1, 1)]
    ((details, looked_up_by),) = read(
        database, "SELECT details, key_hash FROM audit_logs, api_keys WHERE action = 'api_key_created'"
    )
    assert json.loads(details)["key_sha256"] == sha256(looked_up_by).hexdigest()
    assert looked_up_by.hex() not in details, "who reads the log does not have what a key is looked up by"
    stored = database.read_bytes() + b"".join(path.read_bytes() for path in tmp_path.glob("p.db-*"))
    assert key.encode() not in stored


def test_the_scopes_of_a_key_are_changed_and_bite_on_the_next_request(tmp_path: Path) -> None:
    """Named before and after in the audit log; the same set writes nothing, a revoked key is left as it is."""
    service = LiveService(tmp_path / "p.db").start()
    try:
        where = ("--database", str(service.database))
        client = service.client(service.make_key("--name", "bot", "--scope", "balance:read"))
        prefix = client.headers["Authorization"].removeprefix("Bearer ")[:12]
        body = {"telegram_id": "1"}
        assert client.write("/v1/users", body).json()["code"] == "scope_missing"
        changed = passbook("keys", "scopes", prefix, "--scope", "users:write", "--scope", "audit:write", *where)
        assert changed.returncode == 0, changed.stderr
        assert changed.stdout == f"{prefix} (bot) may now do audit:write, users:write; before balance:read.\n"
        assert client.write("/v1/users", body).status_code == 201
        assert client.get("/v1/users/1").json()["code"] == "scope_missing"
        same = passbook("keys", "scopes", prefix, "--scope", "audit:write", "--scope", "users:write", *where)
        assert same.stdout == f"{prefix} (bot) has exactly these scopes already: audit:write, users:write.\n"
        rows = service.client().get("/v1/audit-logs", params={"action": "api_key_scopes_changed"}).json()["items"]
        assert [row["details"] for row in rows] == [
            {
                "name": "bot",
                "prefix": prefix,
                "scopes": ["audit:write", "users:write"],
                "scopes_before": ["balance:read"],
            }
        ]
        assert [(row["resource_type"], row["actor"][:4]) for row in rows] == [("api_key", "cli:")]
        listed = [json.loads(line) for line in passbook("keys", "list", "--json", *where).stdout.splitlines()]
        assert [row["scopes"] for row in listed if row["prefix"] == prefix] == [["audit:write", "users:write"]]
        assert passbook("integrity", *where).returncode == 0
        assert passbook("keys", "revoke", prefix, *where).returncode == 0
        for arguments, code, said in (
            ((prefix, "--role", "admin"), 1, "was revoked"),
            (("pbk_00000000", "--role", "bot"), 1, "There is no key pbk_00000000"),
            ((prefix, "--scope", "everything"), 2, "is not one of 'users:write'"),
            ((prefix,), 2, "Give either --role or one or more --scope"),
            ((prefix, "--role", "bot", "--scope", "audit:read"), 2, "Give either --role or one or more --scope"),
        ):
            refused = passbook("keys", "scopes", *arguments, *where)
            assert (refused.returncode, said in refused.stderr) == (code, True), refused.stderr
        logged = read(service.database, "SELECT COUNT(*) FROM audit_logs WHERE action = 'api_key_scopes_changed'")
        assert logged == [(1,)]
    finally:
        assert service.stop() == 0, service.said


def test_single_scopes_make_a_key_of_just_these(tmp_path: Path) -> None:
    """--scope may be given more than once, and not together with --role."""
    where = ("--database", str(tmp_path / "p.db"))
    passbook("migrate", "up", *where)
    passbook("keys", "create", "--name", "x", "--scope", "audit:read", "--scope", "balance:read", *where)
    row = json.loads(passbook("keys", "list", "--json", *where).stdout)
    assert row["scopes"] == [Scope.AUDIT_READ, Scope.BALANCE_READ]
    for arguments in (["--role", "bot", "--scope", "audit:read"], []):
        assert passbook("keys", "create", "--name", "x", *arguments, *where).returncode == 2


def test_bot_role_cannot_confirm_deposits() -> None:
    """A leaked bot key must not make money."""
    assert not ROLES["bot"] & {Scope.DEPOSITS_CONFIRM, Scope.BALANCE_CHANGE, Scope.BANK_NOTIFY}


def test_migrate_status_down_and_up(tmp_path: Path) -> None:
    """Status lists each migration; down makes a copy first and says where; up brings it back."""
    database = tmp_path / "p.db"
    where = ("--database", str(database))
    assert "✅ Migration 001 completed successfully" in passbook("migrate", "up", *where).stdout
    assert "pending" not in passbook("migrate", "status", *where).stdout
    down = passbook("migrate", "down", "--to", "0", "--yes", *where)
    assert down.returncode == 0, down.stderr
    copies = list(tmp_path.glob("p.db.before-rollback-*"))
    assert len(copies) == 1
    assert str(copies[0]) in down.stdout
    assert read(copies[0], "SELECT MAX(version) FROM schema_migrations") == [(LATEST,)]
    status = passbook("migrate", "status", *where).stdout
    assert status.count("pending") == LATEST
    assert "Next: passbook migrate up" in status
    assert passbook("migrate", "up", "--to", "1", *where).returncode == 0
    assert passbook("migrate", "status", *where).stdout.count("pending") == LATEST - 1


def test_serve_refuses_a_database_that_is_not_migrated(tmp_path: Path) -> None:
    """It says what to do and changes nothing."""
    where = ("--database", str(tmp_path / "p.db"))
    passbook("migrate", "up", "--to", "1", *where)
    for command in (("serve", "--port", "0"), ("keys", "list")):
        refused = passbook(*command, *where)
        assert (refused.returncode, "Run: passbook migrate up" in refused.stderr) == (1, True)


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"PASSBOOK_PORT": "eighty"}, ["PASSBOOK_PORT='eighty'"]),
        ({"PASSBOOK_PORT": "70000", "PASSBOOK_READERS": "0"}, ["PASSBOOK_PORT", "PASSBOOK_READERS"]),
        ({"PASSBOOK_DATABSE": "x"}, ["PASSBOOK_DATABSE is no setting"]),
        (
            {"PASSBOOK_BODY_BYTES_MAX": str(16 * 2**20 + 1)},
            [f"PASSBOOK_BODIES_BYTES_MAX={32 * 2**20}: must be at least twice PASSBOOK_BODY_BYTES_MAX"],
        ),
    ],
)
def test_bad_setting_stops_the_start_by_name(tmp_path: Path, environment: dict[str, str], named: list[str]) -> None:
    """Every bad variable is named, in one sentence, and nothing is made."""
    refused = passbook("serve", "--database", str(tmp_path / "p.db"), env=environment)
    assert refused.returncode == 1
    assert all(name in refused.stderr for name in some(named))
    assert list(tmp_path.iterdir()) == []


def test_port_in_use_is_said(tmp_path: Path) -> None:
    """The address and the remedy are in the message."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = passbook("serve", "--port", port, "--database", str(tmp_path / "p.db"))
    assert refused.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{port}" in refused.stderr
    assert not (tmp_path / "p.db").exists(), "the first key would have been used up unseen"


def test_foreign_database_is_refused_untouched(tmp_path: Path) -> None:
    """Not even its journal mode changes."""
    with contextlib.closing(sqlite3.connect(tmp_path / "p.db")) as foreign:
        foreign.execute("CREATE TABLE recipes (id INTEGER)")
        foreign.commit()
    before = (tmp_path / "p.db").read_bytes()
    for command in (("serve", "--port", "0"), ("migrate", "up"), ("migrate", "down", "--to", "0", "--yes")):
        refused = passbook(*command, "--database", str(tmp_path / "p.db"))
        assert (refused.returncode, "passbook import" in refused.stderr) == (1, True)
    assert (tmp_path / "p.db").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "taken"),
    [("cli:root", "cli:"), ("system:expiry", "system:"), ("System:expiry", "system:"), (" system:expiry", "system:")],
)
def test_a_key_cannot_pass_for_the_command_line_or_the_service(tmp_path: Path, name: str, taken: str) -> None:
    """The audit log names them cli:… and system:…, and no key; one that only looks so is refused too."""
    where = ("--database", str(tmp_path / "p.db"))
    passbook("migrate", "up", *where)
    refused = passbook("keys", "create", "--name", name, "--role", "ops", *where)
    assert (refused.returncode, f"cannot begin with {taken}" in refused.stderr) == (2, True)
    assert passbook("keys", "list", "--json", *where).stdout == ""


@pytest.mark.parametrize("content", [b"SQLite format 3\x00 rubbish", b"not a database at all, but long enough" * 50])
def test_rubbish_as_database_is_one_clear_sentence(tmp_path: Path, content: bytes) -> None:
    """No traceback, and the file is as it was, its mode too: it may be somebody else's."""
    (tmp_path / "p.db").write_bytes(content)
    (tmp_path / "p.db").chmod(0o644)
    refused = passbook("serve", "--port", "0", "--database", str(tmp_path / "p.db"))
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert "p.db" in refused.stderr
    assert (tmp_path / "p.db").read_bytes() == content
    assert (tmp_path / "p.db").stat().st_mode & 0o777 == 0o644


def test_installed_wheel_needs_no_checkout(tmp_path: Path) -> None:
    """The wheel carries migrations, schema and the OpenAPI file, and works from an empty folder."""
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(CHECKOUT)],
        check=True,
        capture_output=True,
        timeout=120,
    )
    (wheel,) = tmp_path.glob("passbook-*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    for path in ("schema/schema.sql", "openapi/openapi.json", "migrations/001_schema_enhancements.sql"):
        assert (installed / "service" / "data" / path).read_bytes() == (CHECKOUT / path).read_bytes()
    assert (installed / "service/api/static/swagger-ui.css").is_file()
    said = subprocess.run(
        [sys.executable, "-m", "service.cli", "migrate", "up"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed), "PASSBOOK_DATABASE": "p.db"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert "✅ Migration 001 completed successfully" in said
    assert "passbook = service.cli:main" in next(installed.glob("*.dist-info/entry_points.txt")).read_text()


class _Installed(LiveService):
    """Served by the program that an environment has."""

    def command(self) -> list[str]:
        program = self.database.parent / "empty/bin/passbook"
        return [str(program), "serve", "--database", str(self.database), "--port", "0"]


def test_wheel_of_the_sdist_is_installed_into_an_empty_environment_and_served(tmp_path: Path) -> None:
    """What a release publishes: the wheel is built from the sdist, both have its version, and nothing else is needed.

    The requirements are those that the tests run with; only Passbook itself is installed anew.
    """
    run: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 200, "cwd": tmp_path}
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(CHECKOUT)]
    subprocess.run(build, check=True, **run)
    name = f"passbook-{__version__}"
    wheel = tmp_path / "dist" / f"{name}-py3-none-any.whl"
    assert {path.name for path in wheel.parent.iterdir()} == {wheel.name, f"{name}.tar.gz"}
    empty = tmp_path / "empty"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(empty)], check=True, **run)
    pip = [sys.executable, "-m", "pip", "--python", str(empty / "bin/python"), "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True, **run)
    (packages,) = empty.glob("lib/python*/site-packages")
    (packages / "requirements.pth").write_text(sysconfig.get_path("purelib"), "utf-8")
    said = subprocess.run([empty / "bin/passbook", "--version"], check=True, **run).stdout
    assert said == f"passbook, version {__version__}\n"
    # A checkout that Python finds by itself would serve in the wheel's place.
    apart = {"PYTHONPATH": "", "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    live = _Installed(tmp_path / "p.db", apart).start()
    ready = live.client().get("/readyz")
    assert ready.status_code == 200, ready.text
    assert ready.json()["version"] == __version__
    where = [str(empty / "bin/python"), "-c", "import service; print(service.__file__)"]
    assert subprocess.run(where, check=True, **run).stdout.startswith(str(packages))
    assert live.stop() == 0, live.said


@pytest.mark.parametrize(
    "command", ["errors", "config", "keys list", "integrity", "audit verify --json", "migrate plan"]
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_without_a_reader_it_ends_as_sigpipe_ends_a_program(tmp_path: Path, command: str, unbuffered: str) -> None:
    """As in `| head`: no complaint, and never the exit code of a proof that failed, or of one that held."""
    database = make_database(tmp_path / "passbook.db")
    closed, output = os.pipe()
    os.close(closed)
    done = subprocess.run(
        [sys.executable, "-m", "service.cli", *command.split()],
        env={**os.environ, "PASSBOOK_DATABASE": str(database), "PYTHONUNBUFFERED": unbuffered},
        cwd=CHECKOUT, stdout=output, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
    )  # fmt: skip
    os.close(output)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_on_a_full_disk_each_command_says_what_helps(tmp_path: Path) -> None:
    """Also where the file system, and not SQLite, says that it is full; and no file is left behind."""
    with small_disk(tmp_path / "disk") as disk:
        database = make_database(disk / "p.db")
        fill(disk / "fill")
        for command in (
            ["keys", "create", "--role", "bot", "--name", "b", "--database", str(database)],
            ["export", "--database", str(database), str(disk / "x.sql")],
            ["audit", "export", "--database", str(database), "--output", str(disk / "x.ndjson")],
        ):
            done = CliRunner().invoke(main, command)
            assert (done.exit_code, "ree some space" in done.output) == (1, True), done.output
        # Without the index of the log nobody can read; SQLite calls that an I/O error.
        for each in sqlite.side_files(database):
            each.unlink(missing_ok=True)
        fill(disk / "more")
        done = CliRunner().invoke(main, ["integrity", "--database", str(database)])
        assert (done.exit_code, "Its disk is full: free some space." in done.output) == (2, True), done.output
        assert not {path.name for path in disk.iterdir()} & {"x.sql", "x.ndjson"}


def test_what_cannot_be_written_is_told() -> None:
    """A full disk is no reader that has seen enough."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "service.cli", "errors"],
            cwd=CHECKOUT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        1,
        "Error: The system: No space left on device. Free some space, and run it again.\n",
    )


@pytest.mark.parametrize("raised", [MemoryError(), RuntimeError("can't start new thread")], ids=["memory", "threads"])
def test_too_little_memory_and_too_few_threads_are_one_sentence(raised: Exception) -> None:
    """With the remedy; an error of ours keeps its traceback."""

    def fails(error: Exception) -> None:
        raise error

    done = CliRunner().invoke(Command("x", callback=lambda: fails(raised)))
    assert (done.exit_code, done.output) == (
        1,
        "Error: The system gives no more memory or threads. Raise ulimit -v and -u, or the container's limits.\n",
    )
    ours = RuntimeError("bank notification 1 is matched already")
    assert CliRunner().invoke(Command("x", callback=lambda: fails(ours))).exception is ours
