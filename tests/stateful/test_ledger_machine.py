"""Any requests in any order: the service answers, moves money and keeps records as the model of its documents does.

Hypothesis makes up the requests; the service is real, over HTTP, and only its clock is the test's. The run of the tests
is the same each time; PASSBOOK_STATEFUL_EXAMPLES makes a longer and random one, of PASSBOOK_STATEFUL_STEPS steps each,
and PASSBOOK_STATEFUL_SEED repeats it.
"""

import os
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from service.ledger.errors import ErrorCode, Refusal
from service.ledger.users import Account
from service.repository import debits
from tests.ledger_check import broken_invariants
from tests.stateful import model
from tests.stateful.machine import LedgerMachine, Mismatch
from tests.stateful.mutants import MUTANTS, Breaker
from tests.stateful.served import Served, ServiceFailed, served
from tests.test_layers import imports_of

BATCH = 10
"""Examples with one seed. After these Hypothesis mostly varies what it has, which costs time and reaches little."""
EXAMPLES = int(os.environ.get("PASSBOOK_STATEFUL_EXAMPLES", "50"))
STEPS = int(os.environ.get("PASSBOOK_STATEFUL_STEPS", "30"))
SEED = int(
    os.environ.get("PASSBOOK_STATEFUL_SEED")
    or (random.getrandbits(31) if "PASSBOOK_STATEFUL_EXAMPLES" in os.environ else 1)
)
ONLY_READ = {ErrorCode.AUDIT_LOG_NOT_FOUND, ErrorCode.AUDIT_ROWS_ARCHIVED}
"""Refusals that no operation raises."""
OF_WHAT_IS_DELETED = {ErrorCode.LEARNED_NAME_NOT_FOUND}
"""The machine posts; tests/api/test_learned_names.py deletes."""
OF_WHAT_PEOPLE_SETTLE = {
    *("bank_message_not_found", "bank_message_settled", "bank_message_unfit", "bank_notification_closed"),
    *("bank_notification_open", "bank_amount_uncreditable", "deposit_of_other_user"),
}
"""The machine knows lines that are matched and freed; tests/api asks for messages and for lines that are closed."""
REACHED_MIN = 5
MUTANT_EXAMPLES = 300
pytestmark = pytest.mark.long


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Served]:
    """An application on a database that is sound afterwards."""
    with served(tmp_path / "passbook.db") as running:
        yield running
    assert broken_invariants(tmp_path / "passbook.db") == []


@pytest.fixture(scope="module")
def broken_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """An application that the mutants share: examples do not meet, and nobody asks afterwards what it holds."""
    with served(tmp_path_factory.mktemp("mutants") / "passbook.db") as running:
        yield running


def _run(service: Served, reached: Counter[str], *, examples: int, first_seed: int, phases: list[Phase]) -> None:
    """Batch after batch, each with the next seed."""
    for number in range(first_seed, first_seed + -(-examples // BATCH)):
        try:
            run_state_machine_as_test(
                seed(number)(lambda: LedgerMachine(service, reached)),
                settings=settings(
                    max_examples=BATCH,
                    stateful_step_count=STEPS,
                    phases=phases,
                    database=None,
                    derandomize=False,
                    report_multiple_bugs=False,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        except Exception as error:
            again = (
                f"PASSBOOK_STATEFUL_SEED={number} PASSBOOK_STATEFUL_EXAMPLES={BATCH} PASSBOOK_STATEFUL_STEPS={STEPS}"
            )
            error.add_note(f"Again: {again}")
            raise


def test_the_service_does_what_the_model_does(service: Served) -> None:
    """Every answer, balance, transaction and audit row; and every refusal that an operation knows is met on the way."""
    print(f"{EXAMPLES} examples of {STEPS} steps, from seed {SEED}")
    reached: Counter[str] = Counter()
    _run(service, reached, examples=EXAMPLES, first_seed=SEED, phases=[Phase.generate, Phase.shrink])
    known = {refusal.code for refusal in Refusal.__subclasses__()} - ONLY_READ - OF_WHAT_IS_DELETED
    known = {code for code in known if code.value not in OF_WHAT_PEOPLE_SETTLE}
    tally = {str(code): reached[code] for code in sorted(known, key=lambda code: reached[code])}
    print("\n".join(f"{count:7} {code}" for code, count in tally.items()))
    assert reached.keys() <= {str(code) for code in known}
    if EXAMPLES > BATCH:
        assert [code for code, count in tally.items() if count < REACHED_MIN] == []


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_service_is_found_out(broken_service: Served, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Each fault makes the service and the model disagree within a few examples, about what the fault breaks.

    A 5xx is no find: the machine does not compare it.
    """
    mutant = MUTANTS[name]
    reached: list[str] = []
    mutant.put_in(Breaker(monkeypatch, reached))
    with pytest.raises(Mismatch) as found:
        _run(broken_service, Counter(), examples=MUTANT_EXAMPLES, first_seed=1, phases=[Phase.generate])
    assert reached, "nothing called what is broken"
    assert re.search(mutant.found_as, str(found.value)), str(found.value)


def test_a_mutant_of_an_earlier_service_fails_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes other parameters than the function in whose place it comes is not put in."""

    def renamed(account: Account, sum: int) -> int:  # noqa: A002
        raise AssertionError

    with pytest.raises(AssertionError, match="balance_after_debit takes "):
        Breaker(monkeypatch, []).replace(debits, "balance_after_debit", renamed)


def test_a_service_that_fails_is_no_find(broken_service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer of 500 ends the run as a failure of its own, also when the example is wound up."""

    def failing(account: Account, amount: int) -> int:
        raise RuntimeError("broken")

    Breaker(monkeypatch, []).replace(debits, "balance_after_debit", failing)
    with pytest.raises(ServiceFailed, match="/v1/debits was answered 500"):
        _run(broken_service, Counter(), examples=MUTANT_EXAMPLES, first_seed=1, phases=[Phase.generate])


def test_the_model_shares_nothing_with_the_service() -> None:
    """Else both could be wrong in the same way."""
    assert not any(name.split(".")[0] in {"service", "tests"} for name in imports_of(Path(model.__file__)))
