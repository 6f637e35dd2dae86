"""Every metric moves with what it measures, seen at /metrics; those that alerts and the dashboard read among them."""

import json
import os
import re
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import pytest
import yaml

from service.config import Config
from service.ledger.errors import ErrorCode
from tests.contract.scenes import Scene
from tests.live import CHECKOUT
from tests.repository.house import writing
from tests.some import some
from tests.stateful.served import Served, served

SAMPLE = re.compile(r"^([a-z_]+)(\{.*\})? (\S+)$", re.MULTILINE)
DEADLINE_S = 30
ELSEWHERE = {
    "passbook_connections_cut_total": "tests/test_connections.py, tests/test_http_protocol.py",
    "passbook_connections_held_bytes": "tests/test_connections.py, tests/test_http_protocol.py",
    "passbook_connections_unsent_bytes": "tests/test_connections.py, tests/test_http_protocol.py",
    "passbook_writer_process_cpu_time_seconds_total": "tests/test_ops.py",
    "passbook_writer_process_memory_usage_bytes": "tests/test_ops.py",
}
"""What only a service of several processes, or bytes on a socket, can move: where it is moved."""
MOVED: set[str] = set()
Test = TypeVar("Test", bound=Callable[..., None])


def moves(*names: str) -> Callable[[Test], Test]:
    """Says which metrics a test moves."""
    MOVED.update(names)
    return lambda test: test


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A service that the tests share; nothing else is asked of it meanwhile."""
    with served(tmp_path_factory.mktemp("metrics") / "passbook.db", busy_timeout_ms=50) as service:
        service.may_fail = True
        yield Scene(service)


def _samples(service: Served) -> dict[str, float]:
    """Name with its labels in the order of the alphabet -> value."""
    found = {}
    for name, labels, value in SAMPLE.findall(service.get("/metrics").body.decode()):
        pairs = ",".join(sorted(re.findall(r'[a-z_]+="[^"]*"', labels)))
        found[f"{name}{{{pairs}}}" if pairs else name] = float(value)
    return found


def _until(service: Served, wanted: Callable[[dict[str, float]], bool]) -> dict[str, float]:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        samples = _samples(service)
        if wanted(samples):
            return samples
    raise AssertionError("the metrics never said what was waited for")


@contextmanager
def _growing(service: Served, **by: float) -> Iterator[None]:
    """These samples have grown by so much at the end of the block, by name with __ for what stands before a label."""
    before = _samples(service)
    yield
    after = _samples(service)
    for name, amount in some(by.items()):
        metric, _, label = name.partition("__")
        key, _, value = label.partition("__")
        sample = f'{metric}{{{key}="{value}"}}' if label else metric
        grown = after.get(sample, 0) - before.get(sample, 0)
        assert grown == amount, f"{sample} has grown by {grown}, not {amount}"


def test_every_metric_is_moved_by_a_test() -> None:
    """The table of docs/ops names every metric; each has a test here, or one that is named."""
    page = (CHECKOUT / "docs" / "ops" / "README.md").read_text("utf-8")
    table = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    documented = {name for cell in table for name in re.findall(r"`((?:passbook|http|process)_[a-z_]+)`", cell)}
    assert documented == MOVED | ELSEWHERE.keys()
    for files in ELSEWHERE.values():
        assert all((CHECKOUT / file).exists() for file in some(files.split(", ")))


def test_every_metric_of_an_alert_or_a_panel_is_moved_by_a_test() -> None:
    """Without the endings of a histogram; `up` is Prometheus's own."""
    named: set[str] = set()
    for file in ("passbook.rules.yml", "grafana-dashboard.json"):
        for expression in _expressions(yaml.safe_load((CHECKOUT / "docs" / "ops" / file).read_text("utf-8"))):
            bare = re.sub(r'"[^"]*"', "", expression)
            named |= {
                re.sub(r"_(bucket|sum|count)$", "", name)
                for name in re.findall(r"\b(?:passbook|http_server|process)_[a-z_]+\b", bare)
            }
    assert len(named) > 15
    assert named - MOVED - ELSEWHERE.keys() == set()


def _expressions(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (value[name] for name in ("expr", "definition") if isinstance(value.get(name), str))
        value = list(value.values())
    for member in value if isinstance(value, list) else ():
        yield from _expressions(member)


@moves(
    *("passbook_writes_total", "passbook_writer_commits_total", "passbook_writer_commit_duration_seconds"),
    *("passbook_writer_batch_size", "passbook_audit_tree_size"),
)
def test_a_write_is_counted_by_what_came_of_it(scene: Scene) -> None:
    """New, refused, replayed, or reused: each counts once, and each is one commit."""
    user, service = scene.user(1000), scene.service
    debit = {"telegram_id": user, "amount": 1, "reason": "x"}
    committed = {
        "passbook_writer_commits_total__outcome__committed": 1,
        "passbook_writer_commits_total__outcome__failed": 0,
    }
    committed |= {"passbook_writer_commit_duration_seconds_count": 1, "passbook_writer_batch_size_count": 1}
    committed |= {"passbook_writer_batch_size_sum": 1}
    steps = (
        ("new", debit, "key-1", 201, 1),
        ("refused", {**debit, "amount": 5000}, "key-2", 409, 1),
        ("replayed", debit, "key-1", 201, 0),
        ("reused", {**debit, "amount": 2}, "key-1", 409, 0),
    )
    for outcome, body, key, status, audited in steps:
        grown = {f"passbook_writes_total__outcome__{one}": int(one == outcome) for one, *_ in steps}
        with _growing(service, **grown, **committed, passbook_audit_tree_size=audited):
            assert scene.post("/v1/debits", body, key=key).status == status
    assert _samples(service)["passbook_audit_tree_size"] == service.rows("SELECT COUNT(*) FROM audit_logs")[0][0]


@moves("passbook_refusals_total", "http_server_request_duration_seconds", "http_server_active_requests")
def test_an_answer_is_counted_by_route_status_and_code(scene: Scene) -> None:
    """A refusal of the edge, of the ledger and of a read; the time of a request is in a bucket and in the sum."""
    user, service = scene.user(), scene.service
    cases = (
        ("POST", "/v1/debits", {"telegram_id": user, "amount": 1, "reason": "x"}, 409, "insufficient_funds"),
        ("POST", "/v1/debits", {"telegram_id": user}, 400, "invalid_request"),
        ("GET", "/v1/deposits/999999", None, 404, "deposit_not_found"),
        ("GET", f"/v1/users/{user}", None, 200, None),
    )
    templates = {"/v1/deposits/999999": "/v1/deposits/{deposit_id}", f"/v1/users/{user}": "/v1/users/{telegram_id}"}
    for method, path, body, status, code in cases:
        before = _samples(service)
        began = time.monotonic()
        answer = scene.post(path, body) if body else service.get(path)
        took_s = time.monotonic() - began
        after = _samples(service)
        assert answer.status == status
        labels = ",".join(
            (
                f'http_request_method="{method}"',
                f'http_response_status_code="{status}"',
                f'http_route="{templates.get(path, path)}"',
            )
        )

        def grown(name: str, before: dict[str, float] = before, after: dict[str, float] = after) -> float:
            return after.get(name, 0) - before.get(name, 0)

        base = "http_server_request_duration_seconds"
        assert grown(f"{base}_count{{{labels}}}") == 1, labels
        assert 0 < grown(f"{base}_sum{{{labels}}}") <= took_s
        everything = ",".join(
            sorted([*labels.split(",http")[:1], *[f"http{one}" for one in labels.split(",http")[1:]], 'le="+Inf"'])
        )
        assert grown(f"{base}_bucket{{{everything}}}") == 1
        for one in some(ErrorCode):
            assert grown(f'passbook_refusals_total{{code="{one}"}}') == int(one == code), one
        assert after["http_server_active_requests"] == 1  # the one for /metrics


@moves("passbook_writer_state", "passbook_writer_queue_depth", "passbook_writer_queue_limit")
@moves("passbook_writer_batch_age_seconds")
def test_a_commit_that_fails_is_counted_and_the_state_tells_why(scene: Scene) -> None:
    """Another program holds the database: the failed commit and the 503 are counted, until it lets go."""
    user, service = scene.user(), scene.service
    states = ("ok", "stalled", "not_started", "storage_full", "database_busy", "stopped")
    before = _samples(service)
    assert {state: before[f'passbook_writer_state{{state="{state}"}}'] for state in states} == {
        state: float(state == "ok") for state in states
    }
    with writing(service.path) as other:
        other.execute("BEGIN IMMEDIATE")
        with _growing(service, passbook_refusals_total__code__database_busy=1):
            busy = scene.post("/v1/deposits", {"telegram_id": user, "amount": 1, "depositor_name": "x"})
        assert (busy.status, busy.json()["code"]) == (503, "database_busy")
        after = _samples(service)
        other.execute("ROLLBACK")
    counted = 'passbook_writer_commits_total{outcome="%s"}'
    assert after[counted % "failed"] - before[counted % "failed"] == 1, "a commit that failed was not counted as failed"
    assert after[counted % "committed"] == before[counted % "committed"]
    base = "http_server_request_duration_seconds_count"
    labels = 'http_request_method="POST",http_response_status_code="503",http_route="/v1/deposits"'
    assert after.get(f"{base}{{{labels}}}", 0) - before.get(f"{base}{{{labels}}}", 0) == 1
    assert {state: after[f'passbook_writer_state{{state="{state}"}}'] for state in states} == {
        state: float(state == "database_busy") for state in states
    }
    assert (after["passbook_writer_queue_depth"], after["passbook_writer_batch_age_seconds"]) == (0, 0)
    assert after["passbook_writer_queue_limit"] == 8192
    scene.deposit(user)
    assert _samples(service)['passbook_writer_state{state="ok"}'] == 1


def test_a_write_that_waits_is_in_the_queue_and_its_batch_has_an_age(tmp_path_factory: pytest.TempPathFactory) -> None:
    """While another program holds the database for longer than nobody notices."""
    path = tmp_path_factory.mktemp("queue") / "passbook.db"
    with served(path, busy_timeout_ms=1000 * DEADLINE_S) as service, writing(path) as other:
        other.execute("BEGIN IMMEDIATE")
        asked = threading.Thread(target=_create_user_alone, args=(service,))
        asked.start()
        waiting = _until(service, lambda found: found["passbook_writer_batch_age_seconds"] > 0)
        other.execute("ROLLBACK")
        asked.join(DEADLINE_S)
        assert not asked.is_alive()
        assert waiting["passbook_writer_queue_depth"] == 1
        assert waiting["http_server_active_requests"] == 2
        assert waiting["passbook_connections_open"] == 2
        assert waiting["passbook_bodies_size_bytes"] == len(_BODY)
        done = _samples(service)
        assert [done[name] for name in ("passbook_writer_queue_depth", "passbook_writer_batch_age_seconds")] == [0, 0]
        assert (done["passbook_bodies_size_bytes"], done["passbook_connections_open"]) == (0, 1)


def test_a_commit_carries_as_many_writes_as_the_setting_says(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nine writes that wait, of which two go into one commit: five commits, and no more than the queue takes wait."""
    path = tmp_path_factory.mktemp("batch") / "passbook.db"
    settings = {"write_batch_max": 2, "write_queue_max": 500}
    with served(path, busy_timeout_ms=1000 * DEADLINE_S, **settings) as service, writing(path) as other:
        other.execute("BEGIN IMMEDIATE")
        asked = [threading.Thread(target=_create_user_alone, args=(service, number)) for number in range(1, 10)]
        for thread in asked:
            thread.start()
        waiting = _until(service, lambda found: found["passbook_writer_queue_depth"] == len(asked))
        other.execute("ROLLBACK")
        for thread in some(asked):
            thread.join(DEADLINE_S)
            assert not thread.is_alive()
        done = _samples(service)
    assert waiting["passbook_writer_queue_limit"] == 500
    commits, writes = (done[f"passbook_writer_batch_size_{part}"] for part in ("count", "sum"))
    assert writes == len(asked)
    assert commits >= 5, f"{writes} writes went into {commits} commits"


_BODY = b'{"telegram_id": "1"}'


def _create_user_alone(service: Served, number: int = 1) -> None:
    with service.another_connection() as ask:
        headers = {"Content-Type": "application/json", "Idempotency-Key": f"waits-{number}"}
        assert ask("POST", "/v1/users", _BODY.replace(b"1", b"%d" % number), headers=headers).status == 201


@moves("passbook_connections_open", "passbook_connections_limit", "passbook_bodies_size_bytes")
@moves("passbook_bodies_limit_bytes", "passbook_limited_total", "passbook_writer_stopped")
def test_a_limit_and_the_end_of_writes_are_counted(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes beyond the rate of a key by their limit; a storage error that nobody can judge stops the writer."""
    path = tmp_path_factory.mktemp("stopped") / "passbook.db"
    with served(path, key_writes_per_s=1) as service:
        service.may_fail = True
        scene = Scene(service)
        limits = ("requests", "writes", "body_bytes", "refused_keys")
        answers: list[int] = []
        before = _samples(service)
        assert before["passbook_bodies_limit_bytes"] == 32 * 2**20
        assert before["passbook_connections_limit"] == Config(database=str(path)).connections_max
        while 429 not in answers and len(answers) < 100:
            answers.append(scene.post("/v1/users", {"telegram_id": str(len(answers) + 1)}).status)
        after = _samples(service)
        for limit in some(limits):
            sample = f'passbook_limited_total{{limit="{limit}"}}'
            assert after[sample] - before[sample] == int(limit == "writes"), sample
        unknown = service.ask("GET", "/v1/deposits", headers={"Authorization": "Bearer nothing"})
        assert unknown.status == 401
        assert before["passbook_writer_stopped"] == 0

    with served(tmp_path_factory.mktemp("broken") / "passbook.db") as service:
        service.may_fail = True
        scene = Scene(service)

        def fail(*_: object) -> None:
            raise sqlite_of_the_service.DatabaseError("the disk is not what it was")

        from service.storage import sqlite as sqlite_of_the_service

        monkeypatch.setattr("service.repository.writer.guard.check_schema", fail)
        stopped = scene.post("/v1/users", {"telegram_id": "1"})
        assert (stopped.status, stopped.json()["code"]) == (503, "writes_stopped")
        samples = _samples(service)
        assert samples["passbook_writer_stopped"] == 1
        assert samples['passbook_writer_state{state="stopped"}'] == 1
        assert samples['passbook_writer_commits_total{outcome="failed"}'] == 1


@moves("passbook_ledger_balance_won", "passbook_ledger_accounts", "passbook_ledger_read_timestamp_seconds")
@moves("passbook_integrity_sound", "passbook_integrity_finished_timestamp_seconds", "passbook_integrity_age_seconds")
@moves("passbook_audit_checkpoint_size")
def test_the_ledger_and_its_proof_are_measured(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sum of all balances, the last proof with its age, and the last checkpoint; a broken ledger is told."""
    monkeypatch.setattr("service.api.figures.INTERVAL_S", 0.02)
    with served(tmp_path_factory.mktemp("ledger") / "passbook.db") as service:
        scene = Scene(service)
        began = time.time()
        scene.user(700), scene.user(30), scene.user()
        samples = _until(service, lambda found: found.get("passbook_ledger_accounts") == 3)
        samples = _until(service, lambda found: found["passbook_ledger_balance_won"] == 730)
        assert began - 1 <= samples["passbook_ledger_read_timestamp_seconds"] <= time.time() + 1
        assert "passbook_integrity_sound" not in samples
        assert service.get("/v1/audit-logs/checkpoint").status == 200
        assert _samples(service)["passbook_audit_checkpoint_size"] == samples["passbook_audit_tree_size"]
        assert service.get("/v1/integrity?max_age=PT0S").json()["status"] == "sound"
        finished = service.clock.now
        service.clock.now += 90 * timedelta(seconds=1)
        proved = _samples(service)
        assert proved["passbook_integrity_sound"] == 1
        assert proved["passbook_integrity_finished_timestamp_seconds"] == finished.timestamp()
        assert proved["passbook_integrity_age_seconds"] == 90
        _rewrite_a_row(service)
        assert service.get("/v1/integrity?max_age=PT0S").json()["status"] != "sound"
        broken = _samples(service)
        assert broken["passbook_integrity_sound"] == 0, "a ledger that does not add up is measured as sound"
        assert broken["passbook_integrity_age_seconds"] == 0


def _rewrite_a_row(service: Served) -> None:
    """As somebody would who has the file."""
    with writing(service.path) as other:
        other.execute("BEGIN IMMEDIATE")
        name = "audit_logs_refuse_update"
        ((sql,),) = other.execute("SELECT sql FROM sqlite_master WHERE name = ?", (name,)).fetchall()
        other.execute(f"DROP TRIGGER {name}")
        other.execute("UPDATE audit_logs SET details = '{}' WHERE action = 'balance_credited'")
        other.execute(sql)
        other.execute("COMMIT")


@moves("passbook_database_size_bytes", "passbook_database_wal_size_bytes", "passbook_database_disk_free_bytes")
@moves("process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_max_fds")
@moves("process_start_time_seconds", "passbook_build_info")
def test_files_and_the_process_are_measured(scene: Scene) -> None:
    """By what the system says of the same files and the same process; the test is in it."""
    scene.user(5)
    path = scene.service.path
    sizes = path.stat().st_size, path.with_name(f"{path.name}-wal").stat().st_size
    samples = _samples(scene.service)
    assert (samples["passbook_database_size_bytes"], samples["passbook_database_wal_size_bytes"]) == sizes
    assert all(size > 0 for size in sizes)
    system = os.statvfs(path.parent)
    free = system.f_bavail * system.f_frsize
    assert abs(samples["passbook_database_disk_free_bytes"] - free) < max(2**30, free / 10)
    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = used.ru_utime + used.ru_stime
    assert 0 < samples["process_cpu_seconds_total"] <= spent < samples["process_cpu_seconds_total"] + DEADLINE_S
    assert 2**20 < samples["process_resident_memory_bytes"] <= 1.1 * 1024 * used.ru_maxrss
    assert abs(samples["process_open_fds"] - len(os.listdir("/proc/self/fd"))) <= 4
    assert samples["process_max_fds"] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert time.time() - 3600 < samples["process_start_time_seconds"] < time.time()
    (build,) = (name for name in samples if name.startswith("passbook_build_info"))
    assert samples[build] == 1
    version = json.loads(scene.service.get("/readyz").body)["schema_version"]
    assert f'schema_version="{version}"' in build
