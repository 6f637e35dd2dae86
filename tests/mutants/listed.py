"""The committed list of faults: one TOML file for each layer in `faults/`, and what is wrong with an entry.

    [[fault]]
    name = "a debit may take more than there is"    # what is wrong, in words; unique in the whole list
    file = "service/ledger/transactions.py"
    old = '''account.balance < amount'''           # exact text that is in the file once
    new = '''account.balance + 1 < amount'''
    tests = ["tests/ledger/test_x.py::test_y"]      # tests, or whole files, of which one at least must fail
    reason = "DID NOT RAISE"                        # a regular expression that the text of that failure matches
    limit_s = 120                                   # may be left out; longer than this and the run is ended

`reason` keeps a fault from being noticed by accident: a failure that it does not match counts as none. A run that takes
too long fails with the text "timed out", so that a fault that makes a test hang is noticed where the reason says so.
"""

import hashlib
import re
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LIMIT_S = 120
LISTS = Path(__file__).parent / "faults"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault of the list. layer: the name of its file. The other fields are told at the head of this module."""

    layer: str
    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    reason: str
    limit_s: float = LIMIT_S

    @property
    def digest(self) -> str:
        """Tells this entry from what it was before somebody changed it."""
        told = (self.file, self.old, self.new, self.tests, self.reason)
        return hashlib.sha256(repr(told).encode()).hexdigest()[:16]

    def put_into(self, text: str) -> str:
        """The file's `text` with the fault in it. Raises DoesNotApply."""
        times = text.count(self.old)
        if times != 1:
            raise DoesNotApply(
                f"{self.layer}.toml: the old text of {self.name!r} is in {self.file} {times} times, not once. "
                f"Where the code has changed, write the same fault for the code of today; where a line has a twin, "
                f"take more of its neighbours into `old`. Then: python -m tests.mutants.suite --only {self.name!r}"
            )
        return text.replace(self.old, self.new)


class DoesNotApply(ValueError):
    """The text that a fault replaces is not in its file, or more than once. The text says what to do."""


def read(lists: Path = LISTS) -> list[Fault]:
    """All faults below `lists`, in the order of the files' names and of the entries in them."""
    return [
        Fault(layer=file.stem, **{**entry, "tests": tuple(entry["tests"])})
        for file in sorted(lists.glob("*.toml"))
        for entry in tomllib.loads(file.read_text("utf-8"))["fault"]
    ]


def mistakes(faults: Sequence[Fault], checkout: Path) -> list[str]:
    """What is wrong with the list itself, a sentence for each: names, tests, reasons, and texts that do not apply."""
    found = [
        f"the name {name!r} is given twice" for name, times in Counter(f.name for f in faults).items() if times > 1
    ]
    for fault in faults:
        path = checkout / fault.file
        try:
            if fault.old == fault.new:
                found.append(f"{fault.name!r} changes nothing")
            fault.put_into(path.read_text("utf-8") if path.exists() else "")
        except DoesNotApply as error:
            found.append(str(error))
        try:
            if re.search(fault.reason, ""):
                found.append(f"the reason of {fault.name!r} matches anything")
        except re.error as error:
            found.append(f"the reason of {fault.name!r} is no regular expression: {error}")
        if not fault.tests:
            found.append(f"{fault.name!r} names no test")
        found += [
            f"{fault.name!r} names {test}, which does not exist" for test in fault.tests if not _is(test, checkout)
        ]
    return found


def _is(test: str, checkout: Path) -> bool:
    """Whether the file of `test` is there and defines that function; which parameters it has is not looked at."""
    file, _, name = test.partition("::")
    path = checkout / file
    if not path.is_file():
        return False
    function = name.partition("[")[0].rpartition("::")[2]
    return not name or re.search(rf"^ *(async )?def {re.escape(function)}\(", path.read_text("utf-8"), re.M) is not None
