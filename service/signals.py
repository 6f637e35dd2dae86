"""What signals mean to a process of the service: to end in order, or nothing."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

DRAINING = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
"""Those that ask the service to end."""
_KEPT = {
    *("SIGKILL", "SIGSTOP", "SIGCONT", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGCHLD", "SIGURG", "SIGWINCH", "SIGINFO"),
    *("SIGABRT", "SIGBUS", "SIGEMT", "SIGFPE", "SIGILL", "SIGSEGV", "SIGSYS", "SIGTRAP", "SIGXCPU"),
}
"""Job control, what is harmless by itself, and what the system says of a fault or of a limit."""


def ignore(*, draining: bool) -> None:
    """Ignores every signal that would kill the process for nothing, and those of DRAINING too where `draining`.

    So a terminal that hangs up, or an operator who expects logs to be opened anew, ends nothing in the middle.
    """
    numbers = _deadly() - (set() if draining else set(DRAINING))
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)


@contextmanager
def held_back() -> Iterator[None]:
    """Signals wait during the block, and in a process that is started within it until that calls `ignore`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _deadly())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _deadly() -> set[signal.Signals]:
    return signal.valid_signals() - {getattr(signal, name) for name in _KEPT if hasattr(signal, name)}
