"""Rows that a file of the ordinary tests already is: the same test, run longer, with the seed of the suite."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

from tests.faults.row import Row, Run
from tests.live import CHECKOUT

TIMEOUT_S = 5400
# A test that runs longer than usual needs longer: its own limit is that of the whole row.
_PYTEST = [
    *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-s", "-v", "-rA", "--tb=short"),
    *("-o", f"timeout={TIMEOUT_S}"),
]
OUTCOME = re.compile(r"^(PASSED|FAILED|ERROR|SKIPPED) ((?:tests|\[).+)$", re.MULTILINE)


def _tests(
    files: Sequence[str], *, longer: Callable[[Run], Mapping[str, str]], figures: Mapping[str, str], mutants: str = ""
) -> Callable[[Run], None]:
    """Runs `files`, or of each "a|b" the first that is there; `longer` is its environment.

    `figures`: name -> a regular expression, whose first groups in the output are added up. `mutants` matches the tests
    in which an oracle is shown a lie.
    """

    def inject(run: Run) -> None:
        chosen = [
            next(name for name in names.split("|") if (CHECKOUT / name.split("::")[0]).exists()) for names in files
        ]
        done = subprocess.run(
            [*_PYTEST, *chosen],
            env={
                **os.environ,
                "PYTHONPATH": str(CHECKOUT),
                "TMPDIR": str(run.folder),
                "FAULTS_SEED": str(run.seed),
                **longer(run),
            },
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        (run.folder / "output").write_text(done.stdout)
        for outcome, name in dict.fromkeys(OUTCOME.findall(done.stdout)):
            run.count({"PASSED": "tests passed", "SKIPPED": "tests skipped"}.get(outcome, "tests failed"))
            if outcome in {"FAILED", "ERROR"}:
                run.broken.append(name[:300])
            if mutants and outcome != "SKIPPED" and re.search(mutants, name):
                run.count("mutants found" if outcome == "PASSED" else "mutants missed")
        for name, pattern in figures.items():
            for found in re.findall(pattern, done.stdout):
                run.count(name, int(found))
        run.must(done.returncode == 0 or bool(run.broken), f"pytest ended with {done.returncode}: {done.stdout[-300:]}")
        if mutants:
            run.mutant(MUTANTS, int(run.figures.get("mutants found", 0)) > 0 and "mutants missed" not in run.figures)

    return inject


MUTANTS = "every broken variant among its tests"
LONG_S = 300
"""From so many seconds on a row is a long one."""


def _points(run: Run) -> dict[str, str]:
    return {"FAULTS": "full"} if run.seconds > LONG_S else {"FAULTS_SAMPLE": str(max(3, int(run.seconds / 12)))}


def _stateful(run: Run) -> dict[str, str]:
    return {"PASSBOOK_STATEFUL_EXAMPLES": str(max(200, int(run.seconds * 3))), "PASSBOOK_STATEFUL_SEED": str(run.seed)}


def _kills(run: Run) -> dict[str, str]:
    return {"FAULTS_KILLS": str(max(4, int(run.seconds / 10)))}


def _nothing(_: Run) -> dict[str, str]:
    return {}


ROWS = (
    Row(
        "migrations",
        "migration killed at each statement, re-run",
        "a hook before each statement; strace",
        share=0.12,
        at_least=1,
        inject=_tests(
            ["tests/faults/test_migration_kill.py"],
            longer=_points,
            figures={
                "kill points (statements)": r"killed at (\d+) points",
                "kill points (system calls)": r": (\d+) of \d+ points",
            },
        ),
    ),
    Row(
        "backup-steps",
        "backup and restore killed at every step",
        "a hook before each step with files; SIGKILL, SIGINT",
        share=0.05,
        at_least=1,
        inject=_tests(["tests/faults/test_backups.py"], longer=_kills, figures={"steps": r"^(\d+) steps"}),
    ),
    Row(
        "clock",
        "clock -2 d, 2038, backwards",
        "libfaketime",
        share=0.04,
        at_least=1,
        inject=_tests(["tests/faults/test_clock.py"], longer=_nothing, figures={}),
    ),
    Row(
        "tampering",
        "tampering: edit, edit and rehash, delete, swap, truncate, rewrite, regrow",
        "sqlite3",
        share=0.05,
        at_least=1,
        inject=_tests(
            ["tests/audit/test_tamperings.py|tests/storage/test_audit_verification.py"],
            longer=_nothing,
            figures={},
        ),
    ),
    Row(
        "routes",
        "every route x method x scope x unknown, revoked, expired key",
        "generated from the routes",
        share=0.03,
        at_least=1,
        inject=_tests(["tests/contract/test_every_route.py"], longer=_nothing, figures={}, mutants="declares_no_scope"),
    ),
    Row(
        "stateful",
        "stateful: deposit, debit, purchase, retry, crash and reopen",
        "Hypothesis RuleBasedStateMachine",
        share=0.1,
        at_least=1,
        inject=_tests(
            ["tests/stateful"],
            longer=_stateful,
            figures={"examples": r"(\d+) examples of \d+ steps"},
            mutants="broken_service",
        ),
    ),
)
