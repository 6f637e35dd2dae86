"""A connection in a process of its own, reached from asyncio: the writing one, beside the process that speaks HTTP.

In one process the two would share an interpreter lock. SQLite lets go of it at every statement, and a busy event loop
gives it back late: under load that was more than half the time of a write. Here a batch is one message to the other
process and one back, on a socket pair that nobody else holds.

Whoever falls first leaves the other able to judge. Where the HTTP process is gone, this one finishes the batch that it
has and ends as if it were killed; until then it holds the lock file. Where this one is gone, what it was doing is not
known, and the next call starts another.
"""

import asyncio
import contextlib
import gc
import importlib
import os
import pickle
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from io import BufferedRWPair
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from service import signals
from service.storage.sqlite import Connection, EngineError

P = ParamSpec("P")
T = TypeVar("T")

_LENGTH_BYTES = 8
_BUFFER_BYTES = 4 * 2**20


class ConnectionLost(EngineError):
    """The process ended while it worked: what it did may or may not be on disk."""


class Owner(Protocol):
    """Who has a connection and runs functions on it, one after the other, wherever that is."""

    async def run(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`function(connection, …)`; what it raises is raised here."""
        ...


class ConnectionProcess:
    """One connection and the process that owns it. Lifetime: from `open` to `close`, within the application's.

    `connector`, functions, what they are given and what comes back are pickled: functions of modules and plain values.
    `imports` are modules that the process loads before the first call; `keeps` are file descriptors that it holds open
    as long as it lives. One call at a time; whatever is handed to `run` is carried out, even when the caller is
    cancelled while it waits.
    """

    def __init__(
        self, connector: Callable[[], Connection], *, imports: Sequence[str] = (), keeps: Sequence[int] = ()
    ) -> None:
        self._first = (tuple(imports), connector)
        self._keeps = tuple(keeps)
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    @property
    def pid(self) -> int | None:
        """The number of the process; None while there is none."""
        return self._process.pid if self._process else None

    async def open(self) -> None:
        """Starts the process, which opens the connection. Raises EngineError, or what else the connector raises."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *self._keeps),
            )
        self._reader, self._writer = await asyncio.open_unix_connection(sock=ours, limit=_BUFFER_BYTES)
        try:
            await self._ask(self._first)
        except BaseException:
            await self._end()
            raise

    async def run(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `function(connection, …)` in the process. Raises ConnectionLost, or what the function raised."""
        if self._process is not None and self._process.poll() is not None:
            await self._end()
        if self._process is None:
            await self.open()
        result: T = await self._ask((function, args, kwargs))
        return result

    async def close(self) -> None:
        """Closes the connection, and ends the process."""
        if self._process is not None:
            with contextlib.suppress(ConnectionLost):
                await self._ask(None)
            await self._end()

    async def _ask(self, call: object) -> Any:
        message = pickle.dumps(call, pickle.HIGHEST_PROTOCOL)
        try:
            self._writer.write(len(message).to_bytes(_LENGTH_BYTES, "big") + message)
            await self._writer.drain()
            length = int.from_bytes(await self._reader.readexactly(_LENGTH_BYTES), "big")
            answer = await self._reader.readexactly(length)
        except (OSError, EOFError) as lost:
            code = await self._end()
            raise ConnectionLost(f"the process of the writing connection ended with {code}") from lost
        except asyncio.CancelledError:
            await self._end()  # its answer, which nobody waits for, must not be taken for the next one's
            raise
        result, error = pickle.loads(answer)
        if error is not None:
            raise error
        return result

    async def _end(self) -> int | None:
        """Lets the process finish what it does, and waits for its end; its exit code."""
        process, self._process = self._process, None
        self._writer.close()
        return await asyncio.to_thread(process.wait) if process else None


def portable(error: Exception) -> Exception:
    """`error` as it gets to another process: itself, or where it cannot be pickled a RuntimeError that tells of it.

    The traceback, which stays behind, becomes a note of it.
    """
    error.add_note("".join(traceback.format_exception(error)).rstrip())
    try:
        pickle.loads(pickle.dumps(error, pickle.HIGHEST_PROTOCOL))
    except Exception:
        told = RuntimeError(f"{type(error).__name__}: {error}")
        told.__notes__ = error.__notes__
        return told
    return error


def _serve(stream: BufferedRWPair) -> None:
    connection: Connection | None = None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while (call := _receive(stream)) is not None:
            result: Any = None
            error: Exception | None = None
            try:
                if connection is None:
                    imports, connector = pickle.loads(call)
                    for name in imports:
                        importlib.import_module(name)
                    connection = connector()
                    gc.collect()
                    gc.freeze()  # what is loaded now stays, and need not be walked again
                else:
                    asked = pickle.loads(call)
                    if asked is None:
                        connection.close()
                        break
                    function, args, kwargs = asked
                    result = function(connection, *args, **kwargs)
            except Exception as raised:
                error = portable(raised)
            answer = pickle.dumps((result, error), pickle.HIGHEST_PROTOCOL)
            stream.write(len(answer).to_bytes(_LENGTH_BYTES, "big") + answer)
            stream.flush()
    # A connection that nobody closed is left as a kill would leave it: the one case that is always tested.
    os._exit(0)


def _receive(stream: BufferedRWPair) -> bytes | None:
    head = stream.read(_LENGTH_BYTES)
    return stream.read(int.from_bytes(head, "big")) if len(head) == _LENGTH_BYTES else None


def _main() -> None:
    # They are for the process that speaks HTTP; this one ends when that one closes its end, or is gone.
    signals.ignore(draining=True)
    _serve(socket.socket(fileno=int(sys.argv[1])).makefile("rwb"))


if __name__ == "__main__":
    _main()
