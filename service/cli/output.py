"""Standard output as tables and colours, for commands that load rich."""

from rich.console import Console


class Output(Console):
    """A console that leaves it to the command what the loss of its reader means."""

    def on_broken_pipe(self) -> None:
        """Raises the BrokenPipeError on, in place of an exit code 1: that one may say that something is broken."""
        raise  # noqa: PLE0704 - called while the error is handled
