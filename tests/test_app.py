"""The composition root: each setting reaches what it is the setting of."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import msgspec
import pytest

from service import app as composed
from service import server
from service.config import Config
from tests.live import CHECKOUT
from tests.repository.house import make_database

GIVEN = {
    "key_requests_max": 101,
    "key_writes_per_s": 103,
    "refused_keys_per_s": 107,
    "bodies_bytes_max": 8 * 2**20 + 109,
    "write_queue_max": 113,
    "write_queue_bytes_max": 2**20 + 127,
    "write_batch_max": 131,
    "write_stall_s": 137,
    "write_timeout_s": 139,
    "write_restart_s": 149,
    "readers": 3,
    "busy_timeout_ms": 151,
    "match_window_s": 86_400 + 157,
    "bank_name_width": 19,
    "deposit_expiry_s": 163,
    "hold_expiry_s": 167,
    "expiry_interval_s": 173,
    "request_timeout_s": 179,
    "answer_timeout_s": 181,
    "body_bytes_max": 4096 + 191,
}
"""No two settings have the same value, so that none can stand for another."""
REACHES = {
    "key_requests_max": {"Limits.key_requests_max"},
    "key_writes_per_s": {"Limits.key_writes_per_s"},
    "refused_keys_per_s": {"Limits.refused_keys_per_s"},
    "bodies_bytes_max": {"Limits.bodies_bytes_max"},
    "write_queue_max": {"Writer.queue_max"},
    "write_queue_bytes_max": {"Writer.queue_bytes_max"},
    "write_batch_max": {"Writer.batch_max"},
    "write_stall_s": {"Patience.stall_s"},
    "write_timeout_s": {"Patience.timeout_s"},
    "write_restart_s": {"Patience.restart_s"},
    "readers": {"Readers.count"},
    "busy_timeout_ms": {"Readers.busy_timeout_ms", "Proofs.busy_timeout_ms", "Figures.busy_timeout_ms"},
    "match_window_s": {"Policy.match_window_s"},
    "bank_name_width": {"Policy.bank_name_width"},
    "deposit_expiry_s": {"Policy.deposit_expiry_s"},
    "hold_expiry_s": {"Policy.hold_expiry_s", "SteadyClock.window_s"},  # the longer of both
    "expiry_interval_s": {"Sweeper.interval_s"},
    "request_timeout_s": {"Bounds.request_timeout_s"},
    "answer_timeout_s": {"Bounds.answer_timeout_s"},
    "body_bytes_max": {"Litestar.request_max_body_size"},
}
"""Setting -> each argument that gets its value."""
ELSEWHERE = {
    "database": "tests/test_cli.py",
    "host": "tests/test_app.py",
    "port": "tests/test_cli.py",
    "audit_key": "tests/api/test_audit_proofs.py",
    "audit_origin": "tests/api/test_audit_proofs.py",
    "connections_max": "tests/test_server.py",
    "shutdown_delay_s": "tests/test_lifecycle.py",
    "shutdown_grace_s": "tests/test_lifecycle.py",
    "log_format": "tests/test_logs.py",
    "log_level": "tests/test_logs.py",
    "access_log": "tests/test_logs.py",
    "trusted_proxies": "tests/api/test_client_address.py",
}
"""Those that a test of the running service sees: where."""


@contextlib.contextmanager
def watched(found: set[tuple[str, int]]) -> Iterator[None]:
    """For the block, puts every whole number that a part of the application is made with into `found`."""
    parts: list[tuple[Any, str]] = [
        *((composed, name) for name in ("Limits", "Writer", "Patience", "Proofs", "Figures", "Policy", "Sweeper")),
        *((composed, name) for name in ("SteadyClock", "Litestar")),
        (composed.sqlite, "Readers"),
        (server, "Bounds"),
    ]
    with contextlib.ExitStack() as stack:
        for where, name in parts:
            part = getattr(where, name)

            def made(*args: Any, part: Any = part, name: str = name, **kwargs: Any) -> Any:
                found.update((f"{name}.{to}", value) for to, value in kwargs.items() if type(value) is int)
                return part(*args, **kwargs)

            stack.enter_context(mock.patch.object(where, name, made))
        yield


@pytest.fixture(scope="module")
def reached(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, int]]:
    """What an application is made of whose settings all differ: (argument, value)."""
    database = make_database(tmp_path_factory.mktemp("app") / "passbook.db")
    found: set[tuple[str, int]] = set()
    config = Config(database=str(database), **GIVEN)  # type: ignore[arg-type]

    async def open_and_close() -> None:
        async with composed.create_app(config, writes_here=True).lifespan():
            pass

    with watched(found):
        asyncio.run(open_and_close())
        server.bounds_of(config, connections=8)
    return found


@pytest.mark.parametrize("setting", REACHES)
def test_a_setting_reaches_what_it_is_the_setting_of(reached: set[tuple[str, int]], setting: str) -> None:
    """Each of the arguments that it belongs to, and no other."""
    assert {argument for argument, value in reached if value == GIVEN[setting]} == REACHES[setting]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1"])
def test_the_service_listens_where_it_is_told_and_nowhere_else(host: str) -> None:
    """PASSBOOK_HOST is the address of the socket; a port of 0 is one that is free."""
    with server.listen(Config.from_env({"PASSBOOK_HOST": host, "PASSBOOK_PORT": "0"})) as listener:
        assert listener.getsockname()[0] == host
        port = listener.getsockname()[1]
    with server.listen(Config(host=host, port=port)) as listener:
        assert listener.getsockname()[:2] == (host, port)


def test_every_setting_is_followed_here_or_elsewhere() -> None:
    """A new one needs its line."""
    assert len({*GIVEN.values()}) == len(GIVEN)
    assert GIVEN.keys() == REACHES.keys()
    assert {field.name for field in msgspec.structs.fields(Config)} == REACHES.keys() | ELSEWHERE.keys()
    for setting, file in ELSEWHERE.items():
        said = (CHECKOUT / file).read_text("utf-8")
        assert setting.upper() in said or f"--{setting.replace('_', '-')}" in said, f"{file} says nothing of {setting}"
