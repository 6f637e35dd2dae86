"""What signals mean to a process of the service: to end in order, or nothing."""

import signal

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
    kept = {getattr(signal, name) for name in _KEPT if hasattr(signal, name)}
    for number in signal.valid_signals() - kept - (set() if draining else set(DRAINING)):
        signal.signal(number, signal.SIG_IGN)
