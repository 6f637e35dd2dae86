"""`make audit` passes only what was looked up: what is skipped, expired or out of reach is no pass."""

import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from pip_audit._format import JsonFormat
from pip_audit._service.interface import Dependency, ResolvedDependency, SkippedDependency, VulnerabilityResult

from tests.live import CHECKOUT
from tests.supply.audit import Waiver, judge, waivers
from tests.supply.packages import Locked

TODAY = date(2026, 6, 1)
PACKAGES = [Locked(Requirement("good==1.0"), ("0" * 64,)), Locked(Requirement("bad==2.0"), ("0" * 64,))]
FINDING = VulnerabilityResult(
    "PYSEC-2026-1",  # type: ignore[arg-type]
    "It breaks.",
    [Version("2.1")],
    {"CVE-2026-1"},  # type: ignore[arg-type]
)


def reported(*skipped: str, findings: list[VulnerabilityResult]) -> list[dict[str, Any]]:
    """What pip-audit itself writes for PACKAGES, the second one with `findings`."""
    result: dict[Dependency, list[VulnerabilityResult]] = {}
    for package in PACKAGES:
        if package.name in skipped:
            result[SkippedDependency(package.name, "Dependency not found on PyPI")] = []
        else:
            found = findings if package.name == "bad" else []
            result[ResolvedDependency(package.name, Version(package.version))] = found
    answer: list[dict[str, Any]] = json.loads(JsonFormat(output_desc=False, output_aliases=True).format(result, []))[
        "dependencies"
    ]
    return answer


def waiver(until: date, *, name: str = "CVE-2026-1", package: str = "bad") -> Waiver:
    """An accepted finding."""
    return Waiver(id=name, package=package, reason="unused", until=until)


def test_all_looked_up_and_nothing_found_passes() -> None:
    """Exit code 0."""
    verdict = judge(PACKAGES, reported(findings=[]), [], TODAY)
    assert (verdict.exit_code, verdict.wrong, verdict.unknown) == (0, [], [])


def test_a_finding_fails_and_is_told_with_its_fix() -> None:
    """Exit code 1, with every name of the advisory."""
    verdict = judge(PACKAGES, reported(findings=[FINDING]), [], TODAY)
    assert verdict.exit_code == 1
    assert verdict.wrong == ["bad 2.0: CVE-2026-1, PYSEC-2026-1; fixed by 2.1"]


def test_a_waiver_holds_until_its_day_by_any_name() -> None:
    """The advisory's own name or an alias; on the day it fails."""
    report = reported(findings=[FINDING])
    for name in ("CVE-2026-1", "PYSEC-2026-1"):
        assert judge(PACKAGES, report, [waiver(date(2026, 6, 2), name=name)], TODAY).exit_code == 0
    ended = judge(PACKAGES, report, [waiver(TODAY)], TODAY)
    assert ended.exit_code == 1
    assert ended.wrong == ["waiver of CVE-2026-1 for bad: ended on 2026-06-01; update or renew it"]


def test_a_waiver_is_for_its_package_and_finding_alone() -> None:
    """Another package's or another finding's waiver waives nothing, and is itself one too many."""
    for other in (waiver(date(2026, 7, 1), package="good"), waiver(date(2026, 7, 1), name="CVE-2026-2")):
        verdict = judge(PACKAGES, reported(findings=[FINDING]), [other], TODAY)
        assert len(verdict.wrong) == 2, verdict
        assert "nothing is found any more; remove it" in verdict.wrong[1]


def test_what_was_skipped_is_not_known() -> None:
    """pip-audit itself exits with 0 there; this is 2, and 1 when there is a finding or an ended waiver besides."""
    verdict = judge(PACKAGES, reported("good", findings=[]), [], TODAY)
    assert (verdict.exit_code, verdict.unknown) == (2, ["good 1.0: Dependency not found on PyPI"])
    assert judge(PACKAGES, [], [], TODAY).exit_code == 2
    assert judge(PACKAGES, [], [waiver(date(2026, 6, 2))], TODAY).exit_code == 2
    assert judge(PACKAGES, [], [waiver(TODAY)], TODAY).exit_code == 1
    assert judge(PACKAGES, reported("good", findings=[FINDING]), [], TODAY).exit_code == 1


def test_without_network_it_says_so_and_does_not_pass() -> None:
    """The command as `make audit` runs it, with a proxy that refuses: exit code 2, and every package is counted."""
    nowhere = dict.fromkeys(
        ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "https_proxy", "http_proxy"), "http://127.0.0.1:9"
    )
    run = subprocess.run(
        [sys.executable, "-m", "tests.supply.audit", "--timeout", "2", "--cache-dir", os.devnull + "-none"],
        cwd=CHECKOUT,
        env={**os.environ, **nowhere, "NO_PROXY": "", "no_proxy": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 2, run.stdout + run.stderr
    assert "packages were not looked up. This is no pass" in run.stderr
    assert "Traceback" not in run.stderr


def test_the_waivers_are_well_formed() -> None:
    """The file as it is."""
    assert [each for each in waivers() if not each.reason.strip()] == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[[waiver]]\nid = "A"\npackage = "b"\nreason = "c"\n', "missing required field `until`"),
        ('[[waiver]]\nid = "A"\npackage = "b"\nreason = "c"\nuntil = "soon"\n', "until"),
        ('[[waiver]]\nid = "A"\npackage = "b"\nreason = "c"\nuntil = 2026-01-01\nwhy = 1\n', "unknown field `why`"),
    ],
)
def test_a_wrong_waiver_is_named(tmp_path: Path, text: str, told: str) -> None:
    """Nothing of the file is passed over."""
    file = tmp_path / "waivers.toml"
    file.write_text(text)
    with pytest.raises(msgspec.ValidationError, match=told):
        waivers(file)
