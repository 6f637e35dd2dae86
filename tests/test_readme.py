"""The README is true: its commands run as they stand, and it names every command, setting, error code and role."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest

from service.api.problems import CATALOGUE
from service.cli import main
from service.ledger.access import ROLES, Scope
from tests.ledger_check import broken_invariants
from tests.live import CHECKOUT, passbook
from tests.storage.test_importer import dump_of, make_bots_file

README = (CHECKOUT / "README.md").read_text("utf-8")


def commands(group: click.Group, before: str) -> list[str]:
    """The full name of every command below `group`."""
    names = []
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        inner = isinstance(command, click.Group)
        names += commands(command, f"{before} {name}") if inner else [f"{before} {name}"]  # type: ignore[arg-type]
    return names


def test_walk_through_runs_as_it_stands(tmp_path: Path) -> None:
    """Every bash block, in order, in one shell in an empty folder with d1.sql: none fails, answers are as told."""
    dump_of(make_bots_file(tmp_path / "bots.sqlite"), tmp_path / "d1.sql")
    binaries = tmp_path / "bin"
    binaries.mkdir()
    command = binaries / "passbook"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m service.cli "$@"\n')
    command.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    blocks = re.findall(r"^```bash\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    script = "set -euo pipefail\ntrap 'kill $(jobs -p); wait' EXIT\n" + "\necho\n".join(blocks)
    assert "127.0.0.1:8000" in script
    run = subprocess.run(
        ["bash", "-c", script.replace("127.0.0.1:8000", f"127.0.0.1:{port}")],
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{binaries}:{os.environ['PATH']}",
            "PYTHONPATH": str(CHECKOUT),
            "PASSBOOK_PORT": str(port),
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    for told in (
        "✅ Migration 001 completed successfully",
        '"status":"pending"',
        '"balance_before":10000,"balance_after":15000',
        '"balance_before":15000,"balance_after":4000',
        '"code":"insufficient_funds"',
        '"telegram_id":"123456","balance":4000',
        '"status":"matched","matched_deposit_id"',
        '"match_method":"automatic","matched_by":"bank-watcher"',
        '"match_method":"manual","matched_by":"ops"',
        '"applied":2,"refused":0',
        '"domain":"통장.kr"',
        '"status":"released"',
        '"difference":0,"proved":true,"doubts":[]',
        '"status":"sound"',
        "It adds up: ",
        "Backed up data/bot.db to copy.db",
        "Restored copy.db to data/elsewhere.db",
        '"action":"debit_failed"',
        '"next_follow":2',
        '"action":"login_failed","outcome":"failure"',
        "rows, ",
        "are no longer in the database",
        "Erased; the user is now erased-",
        "Revoked pbk_",
    ):
        assert told in run.stdout, told
    assert broken_invariants(tmp_path / "data" / "bot.db", archives=[tmp_path / "audit-2026.ndjson"]) == []


@pytest.mark.parametrize("command", commands(main, "passbook"))  # type: ignore[arg-type]
def test_every_command_is_documented(command: str) -> None:
    """Each command of the command line stands in the table."""
    assert f"`{command}" in README


def test_the_settings_are_documented_as_the_code_has_them() -> None:
    """The table is what `passbook config --markdown` prints: every variable, its default and what it means."""
    printed = passbook("config", "--markdown")
    assert printed.returncode == 0, printed.stderr
    assert f"\n\n{printed.stdout}\n" in README, "Put into the README what this prints: passbook config --markdown"


def test_every_error_code_is_documented_as_it_is() -> None:
    """Each code stands in the table with its status, title and remedy."""
    for code, kind in CATALOGUE.items():
        assert f"| {kind.status} | `{code}` | {kind.title}. {kind.remedy} |" in README, code


def test_every_role_is_documented_with_its_scopes() -> None:
    """Each role stands in the table with exactly its scopes."""
    for role, scopes in ROLES.items():
        row = re.search(rf"^\| `{role}` \| (.*) \|$", README, re.MULTILINE)
        assert row, role
        assert set(row[1].split()) == {*scopes} or (row[1] == "everything" and scopes == {*Scope})


def test_every_link_to_a_file_leads_somewhere() -> None:
    """Relative links in the documents point at files that are there."""
    documents = [
        *("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "docs/litestream.md", "docs/audit-log.md"),
        *("docs/ops/README.md", "docs/ops/licences.md"),
    ]
    for document in documents:
        path = CHECKOUT / document
        for target in re.findall(r"\]\((?!https?://)([^)#]+)(?:#[^)]*)?\)", path.read_text("utf-8")):
            assert (path.parent / target).exists(), f"{document}: {target}"
