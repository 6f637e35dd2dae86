"""docs/ops is true: rules, dashboard and unit work, and name what a running service gives."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.ledger.errors import ErrorCode
from tests.live import CHECKOUT, LiveService
from tests.some import some
from tests.waiting import until

OPS = CHECKOUT / "docs" / "ops"
RULES = OPS / "passbook.rules.yml"
TESTS = OPS / "passbook.rules.test.yml"
NAME = re.compile(r"\b(?:passbook|http_server|process)_[a-z_]+\b")
SAMPLE = re.compile(
    r'([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)+)\})? (-?[0-9.e+-]+|[+-]Inf|NaN)'  # the text format 0.0.4
)


def promtool(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Runs promtool, which `make test` puts beside the interpreter."""
    found = shutil.which("promtool") or str(Path(sys.executable).with_name("promtool"))
    return subprocess.run(
        [found, *arguments], input=given, cwd=OPS, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture(scope="module")
def text(service: LiveService) -> str:
    """What a service that has done a little of everything says at /metrics."""
    client = service.client()
    client.credit("1", 100)
    refused = client.write("/v1/debits", {"telegram_id": "1", "amount": 1000, "reason": "too much"})
    assert refused.status_code == 409, refused.text
    client.get("/v1/integrity").raise_for_status()
    until(lambda: "passbook_ledger_balance_won" in client.get("/metrics").text, "the proof's figures are measured")
    return client.get("/metrics").text


def _samples(text: str) -> dict[str, list[dict[str, str]]]:
    """The samples' names and labels. Every line is a comment or a sample, and a family's lines stand together."""
    found: dict[str, list[dict[str, str]]] = {}
    family, seen = "", set()
    for line in some(text.splitlines()):
        if line.startswith("# "):
            _, kind, family, *_ = line.split(" ", 3)
            assert kind in {"HELP", "TYPE"}
            assert (kind, family) not in seen, line
            seen.add((kind, family))
            continue
        sample = SAMPLE.fullmatch(line)
        assert sample, line
        assert re.fullmatch(rf"{family}(_bucket|_sum|_count)?", sample[1]), line
        found.setdefault(sample[1], []).append(dict(re.findall(r'([a-z_]+)="([^"]*)"', sample[2] or "")))
    return found


def test_metrics_are_well_formed(service: LiveService, text: str) -> None:
    """By the format's grammar and by promtool's lint; as text, for every Accept that Prometheus sends."""
    samples = _samples(text)
    assert text.endswith("\n")
    done = promtool("check", "metrics", given=text)
    assert (done.returncode, done.stderr) == (0, "")
    scraped = service.client("").get(
        "/metrics",
        headers={"Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"},
    )
    assert scraped.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert len(samples["http_server_request_duration_seconds_count"]) >= 4


def test_histograms_are_cumulative(text: str) -> None:
    """Buckets grow with le, and the last one is the count."""
    buckets: dict[str, list[tuple[float, int]]] = {}
    for name, labels, le, count in re.findall(r'^(\w+)_bucket\{(.*?),?le="(.*?)"\} (\d+)$', text, re.MULTILINE):
        buckets.setdefault(f"{name}{{{labels}}}", []).append((float(le), int(count)))
    assert len(buckets) > 4
    for series, found in some(buckets.items()):
        assert found == sorted(found), series
        assert [count for _, count in found] == sorted(count for _, count in found)
        name, _, labels = series.partition("{")
        end = f"{name}_count{{{labels}" if labels != "}" else f"{name}_count"
        assert f"{end} {found[-1][1]}\n" in text


def test_labels_take_few_values(service: LiveService, text: str) -> None:
    """Routes are templates, methods and codes known ones: a caller cannot make series without end."""
    client = service.client()
    for number in range(50):
        assert client.get(f"/v1/users/{number}").status_code == (200 if number == 1 else 404)
        assert client.get(f"/never/{number}").status_code == 404
        assert client.request("PROPFIND", "/v1/users").status_code == 405
    samples = _samples(client.get("/metrics").text)
    requests = samples["http_server_request_duration_seconds_count"]
    template = re.compile(r"(/[a-z0-9-]+|/\{[a-z_]+\}|/openapi\.json)+|/")
    routes = {labels["http_route"] for labels in requests if "http_route" in labels}
    assert "/v1/users/{telegram_id}" in routes
    assert all(template.fullmatch(route) for route in some(routes))
    methods = {labels["http_request_method"] for labels in requests}
    assert {"GET", "POST", "_OTHER"} <= methods <= {"GET", "POST", "HEAD", "_OTHER"}
    assert {labels["code"] for labels in samples["passbook_refusals_total"]} == set(ErrorCode)
    assert not re.search(r'(?<!le)="\d{4,}', text)


def test_refusals_and_outcomes_begin_at_zero(own_service: LiveService) -> None:
    """A counter that appears with its first count would hide that count from increase()."""
    own_service.start()
    text = own_service.client("").get("/metrics").text
    for code in some(ErrorCode):
        assert f'passbook_refusals_total{{code="{code}"}} 0\n' in text
    for outcome in ("new", "refused", "replayed", "reused"):
        assert f'passbook_writes_total{{outcome="{outcome}"}} 0\n' in text
    for outcome in ("committed", "failed"):
        assert f'passbook_writer_commits_total{{outcome="{outcome}"}} 0\n' in text


def test_the_writing_process_is_measured_and_the_one_after_it(own_service: LiveService) -> None:
    """Its processor time grows with writes; the memory is what the system says; another one counts from 0."""
    own_service.start()
    client = own_service.client()

    def measured() -> tuple[float, int]:
        samples = dict(re.findall(r"^passbook_writer_process_(\w+) (\S+)$", client.get("/metrics").text, re.MULTILINE))
        return float(samples["cpu_time_seconds_total"]), int(samples["memory_usage_bytes"])

    began, _ = measured()
    for number in range(1, 200):
        client.credit("1", number)
    spent, resident = measured()
    status = Path(f"/proc/{own_service.writer_pid}/status").read_text("utf-8")
    assert began < spent < 60
    assert abs(resident - 1024 * int(status.partition("VmRSS:")[2].split()[0])) < 2**20
    killed = own_service.writer_pid
    os.kill(killed, signal.SIGKILL)
    # A write that meets a dying process is told that its outcome is not known.
    until(lambda: _has_ended(killed), "the killed process has ended")
    assert "passbook_writer_process_memory_usage_bytes 0\n" in client.get("/metrics").text
    client.credit("1", 1)
    after, resident = measured()
    assert after < spent
    assert resident > 2**20


def _has_ended(pid: int) -> bool:
    """Whether the process has closed what it had open, and waits to be asked for its exit code."""
    return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] == "Z"


def _expressions(value: Any) -> list[str]:
    """Every PromQL text in a dashboard or in rules."""
    if isinstance(value, dict):
        own = [value[name] for name in ("expr", "definition") if isinstance(value.get(name), str)]
        return own + [found for member in value.values() for found in _expressions(member)]
    return [found for member in value for found in _expressions(member)] if isinstance(value, list) else []


@pytest.mark.parametrize("file", ["passbook.rules.yml", "grafana-dashboard.json"])
def test_every_metric_that_is_named_is_there(text: str, file: str) -> None:
    """Also its labels: a panel or an alert on a name that nothing gives would be silent for ever."""
    document = yaml.safe_load((OPS / file).read_text("utf-8"))  # JSON is YAML
    samples = _samples(text)
    expressions = _expressions(document)
    assert len(expressions) >= 14
    text_of_all = "\n".join(expressions)
    for name in some(NAME.findall(re.sub(r'"[^"]*"', "", text_of_all))):
        assert name in samples, f"{file}: {name}"
    for name, selector in some(re.findall(r"(\w+)\{(.*?)\}", text_of_all)):
        wanted = set(re.findall(r"(\w+)\s*[=!]~?\s*\"", selector)) - {"job", "instance"}
        unknown = wanted - {label for one in samples.get(name, ()) for label in one}
        assert not unknown, f"{file}: {name}"
    codes = {code for codes in re.findall(r'code=~?"([a-z_|]+)"', text_of_all) for code in codes.split("|")}
    assert codes - set(ErrorCode) == set()


def test_every_metric_is_documented(text: str) -> None:
    """In the table of docs/ops/README.md."""
    page = (OPS / "README.md").read_text("utf-8")
    names = re.findall(r"^# TYPE (\w+)", text, re.MULTILINE)
    for name in some(names):
        assert f"`{name}`" in page, name
    for target in some(re.findall(r"\]\((?!https?://)([^)#]+)\)", page)):
        assert (OPS / target).exists(), target


def test_rules_are_valid_and_do_what_they_say() -> None:
    """promtool checks them and runs their tests, of which each alert has one that fires and one that does not."""
    checked = promtool("check", "rules", RULES.name)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    tested = promtool("test", "rules", TESTS.name)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    alerts = [rule for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"] for rule in group["rules"]]
    cases = [case for test in yaml.safe_load(TESTS.read_text("utf-8"))["tests"] for case in test["alert_rule_test"]]
    for alert in some(alerts):
        assert alert["annotations"].keys() == {"summary", "action"}
        fires = {bool(case["exp_alerts"]) for case in cases if case["alertname"] == alert["alert"]}
        assert fires == {True, False}, alert["alert"]


def test_the_dashboard_is_whole() -> None:
    """Panels have ids of their own, do not overlap, and take their Prometheus from the variable."""
    dashboard = json.loads((OPS / "grafana-dashboard.json").read_text("utf-8"))
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 15
    taken: set[tuple[int, int]] = set()
    for panel in some(panels):
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
        assert panel["type"] == "row" or panel["datasource"]["uid"] == "${datasource}"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_the_unit_is_valid_and_hardened(tmp_path: Path) -> None:
    """systemd-analyze finds nothing wrong and calls the exposure OK; the grace of the service fits into its time."""
    unit = (OPS / "passbook.service").read_text("utf-8")
    for command in some(re.findall(r"^ExecStart(?:Pre)?=\S+/passbook (\w+)$", unit, re.MULTILINE)):
        assert command in {"serve", "check"}
    copy = tmp_path / "passbook.service"
    copy.write_text(re.sub(r"=\S+/bin/passbook ", "=/bin/true ", unit), "utf-8")
    verified = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (verified.returncode, verified.stderr) == (0, "")
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(copy)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert rated.returncode == 0, rated.stdout
