"""Stories: what files of migrations make of rows, step by step, and how they are told with a fault in a file.

A step is SQL, `up 3` or `down 3` for a whole file, `up 1 until …` for the statements before the first one with these
words, and `up 1 from …` for that statement and all that follow.
"""

import functools
import os
import re
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from service import resources
from service.storage import migrator, sqlite
from tests.migrations import sql_faults

Files = Mapping[str, Sequence[str]]
"""`up 3` -> the statements of the file."""
Rows = list[tuple[Any, ...]]
EVERY_FAULT = "FAULTS" in os.environ or "FAULTS_SAMPLE" in os.environ
"""Whether those faults are tried too that are listed as changing nothing."""


class Story(Struct, frozen=True):
    """`steps`: SQL with semicolons between, or files. `then`: query -> rows. `stops`: the message that ends it."""

    steps: Sequence[str]
    then: Mapping[str, Rows] = {}
    stops: str = ""


def _files() -> Files:
    found: dict[str, list[str]] = {}
    for migration in migrator.load(resources.folder("migrations")):
        found[f"up {migration.version}"] = list(migrator.statements(migration.up))
        if migration.down:
            found[f"down {migration.version}"] = list(migrator.statements(migration.down))
    return found


FILES = _files()
_STEP = re.compile(r"(?P<file>(?:up|down) \d+)(?: (?P<part>until|from) (?P<words>.*))?", re.DOTALL)


def file_of(step: str) -> str:
    """The file that a step tells, or nothing where it is SQL."""
    told = _STEP.fullmatch(step)
    return told["file"] if told else ""


def _statements(step: str, files: Files) -> Sequence[str]:
    told = _STEP.fullmatch(step)
    if told is None:
        return [step] if step.startswith("CREATE TRIGGER") else step.split(";")
    script = files[told["file"]]
    if not told["words"]:
        return script
    at = next(number for number, statement in enumerate(FILES[told["file"]]) if told["words"] in statement)
    return script[:at] if told["part"] == "until" else script[at:]


def _new() -> sqlite3.Connection:
    connection: sqlite3.Connection = sqlite.driver.connect(":memory:", isolation_level=None)
    return connection


@functools.lru_cache(maxsize=200)
def _after(steps: tuple[str, ...], count: int) -> sqlite3.Connection | None:
    """A database after these steps, of the last one `count` statements, to be copied; None where they stop."""
    connection = _new()
    try:
        for step in steps[:-1]:
            for statement in _statements(step, FILES):
                connection.execute(statement)
        for statement in _statements(steps[-1], FILES)[:count]:
            connection.execute(statement)
    except sqlite.DatabaseError:
        connection.close()
        return None
    return connection


def wrong(story: Story, files: Files = FILES, *, fault: tuple[str, int] | None = None) -> Iterator[str]:
    """A sentence for each thing that ends otherwise than the story says.

    `fault`: the file and the number of its statement that is not as it was; a story that stops before it says nothing.
    """
    connection = _new()
    left = [statement for step in story.steps for statement in _statements(step, files)]
    if fault is not None:
        since = _first(story, fault[0])
        count = 0 if " from " in story.steps[since] else fault[1]
        before = _after(tuple(story.steps[: since + 1]), count)
        if before is None:
            return
        before.backup(connection)
        done = sum(len(_statements(step, files)) for step in story.steps[:since])
        left = left[done + min(count, len(_statements(story.steps[since], files))) :]
    if "PRAGMA foreign_keys = ON" in story.steps:
        connection.execute("PRAGMA foreign_keys = ON")
    try:
        try:
            for statement in left:
                connection.execute(statement)
        except sqlite.DatabaseError as error:
            if not story.stops or story.stops not in str(error):
                yield f"it stops: {error}"
            return
        if story.stops:
            yield f"it does not stop with '{story.stops}'"
        for query, rows in story.then.items():
            if (found := connection.execute(query).fetchall()) != rows:
                yield f"[{query}] gives {found}, not {rows}"
    finally:
        connection.close()


MOVES_ROWS = re.compile(r"(?:--[^\n]*\n|\s)*(?:INSERT|UPDATE|DELETE|CREATE TABLE \w+_guard)")


def faulty(step: str, words: Sequence[str]) -> Iterator[tuple[str, int, Files]]:
    """Label, number of the statement and files with one small fault in a statement of `step` that writes rows."""
    seen: Counter[str] = Counter()
    for number, statement in enumerate(FILES[step]):
        if MOVES_ROWS.match(statement):
            for fault in sql_faults.faults(statement, words=words, lists=True):
                changed = [*FILES[step][:number], fault.sql, *FILES[step][number + 1 :]]
                seen[fault.label] += 1
                again = f" [{seen[fault.label]}]" if seen[fault.label] > 1 else ""
                yield f"{fault.label}{again}", number, {**FILES, step: changed}


def _first(story: Story, step: str) -> int:
    """The number of the story's first step that tells the file `step`, or a part of it."""
    return [file_of(told) for told in story.steps].index(step)


def labels(step: str, words: Sequence[str]) -> list[str]:
    """The labels of all faults of a file."""
    return [label for label, _, _ in faulty(step, words)]


def unnoticed(step: str, stories: Iterable[Story], words: Sequence[str], known: Collection[str] = ()) -> list[str]:
    """The labels of the faults of a file, but for `known` ones, with which all of `stories` end as they are told.

    Stories with the same steps are told once. The one that noticed the last fault is told first: the next fault is
    mostly of the same statement.
    """
    told: dict[tuple[str, ...], Story] = {}
    for story in stories:
        if any(file_of(its) == step for its in story.steps):
            steps = tuple(story.steps)
            then = {**told[steps].then, **story.then} if steps in told else story.then
            told[steps] = Story(steps, then, story.stops)
    order, found = list(told.values()), []
    for label, at, files in faulty(step, words):
        if label in known:
            continue
        for number, story in enumerate(order):
            if next(wrong(story, files, fault=(step, at)), None):
                order.insert(0, order.pop(number))
                break
        else:
            found.append(label)
    return found
