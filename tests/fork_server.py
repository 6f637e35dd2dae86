"""A process that has loaded Passbook's modules, and becomes a command of Passbook as often as it is asked.

It runs as `python -m tests.fork_server DESCRIPTOR`, with one end of a pair of sockets; tests/forks.py has the other.
For each request it forks, and the child is `python -m service.cli …` from there on.
"""

import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import socket
import sys
import time
from pathlib import Path

import service

REQUEST_BYTES_MAX = 2**17
GIVEN = 4
"""Descriptors of a request: the child's standard input, output and errors, and where its end is told."""


def load() -> None:
    """Imports all of the service, and so the libraries that it uses. None of that is garbage later."""
    for module in pkgutil.walk_packages(service.__path__, "service."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    gc.collect()
    gc.freeze()  # else each child looks through all of it when it ends, and copies its pages


def become(asked: socket.socket) -> list[str]:
    """Answers each request with the id of a child, until nobody asks any more. In a child, returns its command."""
    waiting = select.poll()
    waiting.register(asked, select.POLLIN)
    children: dict[int, tuple[int, int]] = {}  # the descriptor of a process: its id, and where its end is told
    while True:
        for descriptor, _ in waiting.poll():
            if descriptor in children:
                waiting.unregister(descriptor)
                pid, told = children.pop(descriptor)
                os.write(told, str(os.waitpid(pid, 0)[1]).encode())
                os.close(told)
                os.close(descriptor)
                continue
            request, given, _, _ = socket.recv_fds(asked, REQUEST_BYTES_MAX, GIVEN)
            if not request:
                sys.exit()
            pid = os.fork()
            if pid == 0:
                asked.detach()
                return _as_asked(given, **json.loads(request))
            for one in given[:-1]:
                os.close(one)
            child = os.pidfd_open(pid)
            children[child] = (pid, given[-1])
            waiting.register(child, select.POLLIN)
            asked.send(str(pid).encode())


def _as_asked(
    given: list[int], *, command: list[str], environment: dict[str, str], folder: str, umask: int, session: bool
) -> list[str]:
    """Makes of this process one that was started as asked: nothing is left of the one that it comes from."""
    if session:
        os.setsid()
    os.chdir(folder)
    os.umask(umask)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    for number, descriptor in enumerate(given[:-1]):
        os.dup2(descriptor, number)
    os.closerange(3, max(int(path.name) for path in Path("/proc/self/fd").iterdir()) + 1)
    sys.path[0] = folder
    sys.orig_argv[:] = command
    return command


if __name__ == "__main__":
    asked = socket.socket(fileno=int(sys.argv[1]))
    load()
    asked.send(b"loaded")
    sys.argv[:] = become(asked)[2:]
    runpy.run_module("service.cli", run_name="__main__", alter_sys=True)
