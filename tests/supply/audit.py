"""`make audit`: asks an advisory service about every locked package.

Exit code 0: all were looked up and what was found is waived; 1: there are findings, or waivers to renew or remove; 2:
some were not looked up, as without network, so nothing is known. 1 goes before 2.
"""

import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec

from tests.supply.packages import LOCKS, Locked, locked

WAIVERS = Path(__file__).with_name("waivers.toml")


class Waiver(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A finding that is known and accepted before the day `until`; `id` is the advisory's or one of its aliases."""

    id: str
    package: str
    reason: str
    until: date


class Waivers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file."""

    waiver: list[Waiver]


@dataclass(frozen=True)
class Verdict:
    """What is wrong (exit code 1) and what is not known (exit code 2), a line each."""

    wrong: list[str]
    unknown: list[str]

    @property
    def exit_code(self) -> int:
        """As the module says."""
        return 1 if self.wrong else 2 if self.unknown else 0


def waivers(file: Path = WAIVERS) -> list[Waiver]:
    """The waivers; msgspec.ValidationError or msgspec.DecodeError names what is wrong in the file."""
    return msgspec.toml.decode(file.read_bytes(), type=Waivers).waiver


def judge(packages: Iterable[Locked], report: list[dict[str, Any]], accepted: list[Waiver], today: date) -> Verdict:
    """Every package against the `dependencies` of pip-audit's reports; one that they skip was not looked up."""
    looked_up = {(entry["name"], entry["version"]): entry["vulns"] for entry in report if "vulns" in entry}
    skipped = {entry["name"]: entry["skip_reason"] for entry in report if "skip_reason" in entry}
    wrong, unknown, used = [], [], set()
    for package in packages:
        key = (package.name, package.version)
        if key not in looked_up:
            unknown.append(f"{package.name} {package.version}: {skipped.get(package.name, 'not in the answer')}")
            continue
        for finding in looked_up[key]:
            ids = {finding["id"], *finding["aliases"]}
            waived = [each for each in accepted if each.package == package.name and each.id in ids]
            used.update(waived)
            if not waived:
                fixed = ", ".join(finding["fix_versions"]) or "nothing yet"
                wrong.append(f"{package.name} {package.version}: {', '.join(sorted(ids))}; fixed by {fixed}")
    for waiver in accepted:
        if waiver.until <= today:
            wrong.append(f"waiver of {waiver.id} for {waiver.package}: ended on {waiver.until}; update or renew it")
        elif waiver not in used and not unknown:
            wrong.append(f"waiver of {waiver.id} for {waiver.package}: nothing is found any more; remove it")
    return Verdict(wrong, unknown)


def ask(lock: Path, *options: str) -> tuple[list[dict[str, Any]], str]:
    """pip-audit's answer about a lock, or an empty one and the last line of what it said instead."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip_audit", "--require-hashes", "--disable-pip", "--requirement", str(lock)),
            *("--format", "json", "--progress-spinner", "off", *options),
        ],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    try:
        answer: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except json.JSONDecodeError:
        return [], (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return answer, ""


def main(options: list[str]) -> int:
    """Prints the verdict over all locks; the exit code."""
    packages = {(package.name, package.version): package for lock in LOCKS for package in locked(lock) if package.here}
    report: list[dict[str, Any]] = []
    for lock in LOCKS:
        answer, trouble = ask(lock, *options)
        report += answer
        if trouble:
            print(f"{lock.name}: {trouble}", file=sys.stderr)
    verdict = judge(packages.values(), report, waivers(), datetime.now(UTC).date())
    for line in verdict.wrong:
        print(line, file=sys.stderr)
    if verdict.unknown:
        print(
            f"Not known: {len(verdict.unknown)} of {len(packages)} packages were not looked up. This is no pass: "
            "ask again where the advisory service can be reached.",
            *verdict.unknown[:3],
            sep="\n  ",
            file=sys.stderr,
        )
    if verdict.exit_code == 0:
        print(f"All {len(packages)} locked packages were looked up; no advisory but the waived ones.")
    return verdict.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
