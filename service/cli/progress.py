"""How far long work is: a bar where there is a terminal, a plain line now and then where there is a pipe."""

import contextlib
import sys
import time
from collections.abc import Iterator

import click
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from service.storage.progress import Progress

_LINE_EVERY_S = 10.0


def bar() -> Bar:
    """A bar on standard error where that is a terminal, gone when its block ends; elsewhere nothing."""
    columns = (TextColumn("{task.description:32}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Bar(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())


@contextlib.contextmanager
def shown() -> Iterator[Progress]:
    """A function that shows how far it is on standard error, for the block."""
    if not sys.stderr.isatty():
        yield _in_lines()
        return
    with bar() as drawn:
        task = drawn.add_task("")

        def show(step: str, done: int, total: int) -> None:
            drawn.update(task, description=step, completed=done, total=total)

        yield show


def _in_lines() -> Progress:
    last = time.monotonic()

    def show(step: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _LINE_EVERY_S:
            last = now
            click.echo(f"{step}: {100 * done // max(total, 1)} %", err=True)

    return show
