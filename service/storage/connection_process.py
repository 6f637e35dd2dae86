"""A connection in a process of its own, reached from asyncio: the writing one, beside the process that speaks HTTP.

In one process the two would share an interpreter lock. SQLite releases it at every statement, and a busy event loop
gives it back late: under load that was more than half the time of a write. Here a batch is one message to the other
process and one back, on a socket pair that nobody else holds.

Each process notices the end of the other. If the HTTP process is gone, the kernel kills this one (on Linux; elsewhere
it finishes the call that it has). Nobody would get its answers, and a kill is always safe, since a retry finds what was
committed. Until it has ended, it holds the lock file. If this process is gone, the outcome of its call is unknown, and
the next call starts another one.
"""

import asyncio
import contextlib
import importlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Coroutine, Sequence
from io import BufferedRWPair
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from service import garbage, signals
from service.storage import sqlite
from service.storage.sqlite import Connection, DatabaseError, EngineError

P = ParamSpec("P")
T = TypeVar("T")

_LENGTH_BYTES = 8
_BUFFER_BYTES = 4 * 2**20
_SPARE_DESCRIPTORS = 8
"""Kept open for the next start, which takes so many for a moment: a socket pair, a pipe, and /dev/null."""
_POLL_S = 0.005
_LOOK_S = 0.05
_KILLED_WITHIN_S = 1.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class ConnectionLost(EngineError):
    """The process ended while it worked: what it did may or may not be on disk."""


class NotStarted(EngineError):
    """There is no process, and a new one could not be started or could not open the database. Nothing was begun."""


class Owner(Protocol):
    """Who has a connection and runs functions on it, one after the other, wherever that is."""

    async def run(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`function(connection, …)`; what it raises is raised here."""
        ...

    def kill(self) -> bool:
        """Ends it at once, whatever it does, so that `run` raises. False if it cannot be ended."""
        ...


class ConnectionProcess:
    """One connection and the process that owns it. Lifetime: from `open` to `close`, within the application's.

    `connector`, functions, what they are given and what comes back are pickled: functions of modules and plain values.
    `imports` are modules that the process loads before the first call; `keeps` are file descriptors that it holds open
    as long as it lives. A start that takes longer than `starts_within_s` is killed. One call at a time; whatever is
    handed to `run` is carried out, even when the caller is cancelled while it waits.
    """

    def __init__(
        self,
        connector: Callable[[], Connection],
        *,
        imports: Sequence[str] = (),
        keeps: Sequence[int] = (),
        starts_within_s: float | None = None,
    ) -> None:
        self._first = (tuple(imports), connector)
        self._keeps = tuple(keeps)
        self._starts_within_s = starts_within_s
        self._spare: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    @property
    def pid(self) -> int | None:
        """The number of the process; None while there is none."""
        return self._process.pid if self._process else None

    async def open(self) -> None:
        """Starts the process, which opens the connection.

        Raises NotStarted where it takes too long, EngineError, or what else the connector raises.
        """
        ours = self._spawn()
        try:
            self._reader, self._writer = await asyncio.open_unix_connection(sock=ours, limit=_BUFFER_BYTES)
        except BaseException:
            ours.close()
            self._process = None  # it ends when it sees that
            raise
        try:
            async with asyncio.timeout(self._starts_within_s):
                await self._ask(self._first)
        except BaseException as error:
            left = await self._give_up()
            if isinstance(error, TimeoutError):
                raise NotStarted(
                    f"The writing process did not open the database within {self._starts_within_s:g} s and was killed."
                    f" {left or 'Does the disk of the database answer?'}"
                ) from None
            raise

    async def _give_up(self) -> str | None:
        """Kills a process that has no connection, and so nothing to finish. A sentence where it has not ended then."""
        process, self._process = self._process, None
        self._writer.close()
        if process is None:
            return None
        process.kill()
        ended = await _done(self._ended(process), process.pid, _KILLED_WITHIN_S)
        return None if ended else _not_ended(process.pid)

    def _spawn(self) -> socket.socket:
        """A new process; our end of the socket pair. Raises OSError, with as many descriptors open as before."""
        self._let_spare_go()
        try:
            ours, theirs = socket.socketpair()
            try:
                with theirs, signals.held_back():
                    self._process = subprocess.Popen(
                        [sys.executable, "-m", __name__, str(theirs.fileno()), str(os.getpid())],
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        pass_fds=(theirs.fileno(), *self._keeps),
                    )
            except BaseException:
                ours.close()
                raise
            return ours
        finally:
            self._keep_spare()

    def _keep_spare(self) -> None:
        with contextlib.suppress(OSError):  # there may be none left: then the next start takes what it gets
            while len(self._spare) < _SPARE_DESCRIPTORS:
                self._spare.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def _let_spare_go(self) -> None:
        while self._spare:
            os.close(self._spare.pop())

    async def run(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `function(connection, …)` in the process.

        Raises NotStarted, ConnectionLost, or what the function raised.
        """
        if self._process is not None and (self._process.poll() is not None or self._writer.is_closing()):
            await self._end()
        if self._process is None:
            try:
                await self.open()
            except (OSError, EngineError) as error:
                raise NotStarted(str(error)) from error
        result: T = await self._ask((function, args, kwargs))
        return result

    def kill(self) -> bool:
        """SIGKILL, which also a stopped process obeys. One that waits for a disk ends when the disk answers."""
        if self._process is not None:
            self._process.kill()
        return True

    async def close(self, *, within_s: float = 60.0, at_most_s: float = 0.0) -> str | None:
        """Closes the connection, and ends the process: at last by SIGKILL, after which the next start finds the log.

        It is killed when it has not worked for `within_s`, or after `at_most_s` that are more. What is wrong, as a
        sentence, where the process has not ended even then.
        """
        process = self._process
        if process is None:
            self._let_spare_go()
            return None
        if self._writer.is_closing() or not await _done(self._close(), process.pid, within_s, at_most_s):
            self.kill()  # nobody waits any more for what it does
            self._writer.close()
        self._let_spare_go()
        if await _done(self._ended(process), process.pid, _KILLED_WITHIN_S, at_most_s):
            self._process = None
            return None
        return _not_ended(process.pid)

    async def _close(self) -> None:
        with contextlib.suppress(ConnectionLost):
            await self._ask(None)

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
            self._writer.close()  # its answer, which nobody waits for, must not be taken for the next one's
            raise
        result, error = pickle.loads(answer)
        if error is not None:
            raise error
        return result

    async def _end(self) -> int | None:
        """Lets the process finish what it does, and waits for its end; its exit code."""
        process = self._process
        self._writer.close()
        if process is None:
            return None
        await self._ended(process)
        self._process = None
        return process.returncode

    @staticmethod
    async def _ended(process: "subprocess.Popen[bytes]") -> None:
        """Returns when it has. Asked again and again: a thread that waits would itself keep us from ending."""
        while process.poll() is None:
            await asyncio.sleep(_POLL_S)


async def _done(what: Coroutine[Any, Any, None], pid: int, within_s: float, at_most_s: float = 0.0) -> bool:
    """Whether `what` ends in `within_s`; as long as the process `pid` is at work, in `at_most_s`. Else it is cancelled.

    Who writes a long log back on a busy machine is at work. Who waits for a disk that does not answer is not.
    """
    task, now = asyncio.ensure_future(what), time.monotonic
    until, latest, seen = now() + within_s, now() + at_most_s, _work_of(pid)
    try:
        while not task.done() and now() < until:
            await asyncio.wait({task}, timeout=min(_LOOK_S, until - now()))
            work = _work_of(pid)
            if work != seen:
                seen, until = work, max(until, min(now() + within_s, latest))
        if task.done():
            task.result()
        return task.done()
    finally:
        task.cancel()


def _work_of(pid: int) -> bytes:
    """Becomes another when the process `pid` has worked: the time that it had a processor. Only Linux tells."""
    try:
        return Path(f"/proc/{pid}/schedstat").read_bytes()
    except OSError:
        return b""


def _not_ended(pid: int) -> str:
    return f"The writing process {pid} was killed and has not ended: its disk does not answer."


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
                    garbage.look_seldom()
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
            if connection is not None:
                # While the answer is under way, and with no lock that a reader needs. The next write would do it under
                # one, and where the file system is frozen by then, it would hang there, and all readers with it.
                with contextlib.suppress(DatabaseError):
                    sqlite.ping(connection)
    # A connection that nobody closed is left as a kill would leave it: the one case that is always tested.
    os._exit(0)


def _receive(stream: BufferedRWPair) -> bytes | None:
    head = stream.read(_LENGTH_BYTES)
    return stream.read(int.from_bytes(head, "big")) if len(head) == _LENGTH_BYTES else None


def _die_with(parent: int) -> None:
    """From now on the kernel kills this process when `parent` ends, however that ends; only Linux can."""
    if sys.platform != "linux":
        return
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes  # noqa: PLC0415  here alone, and it may be missing

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before
        os._exit(0)


def _main() -> None:
    _die_with(int(sys.argv[2]))
    # They are for the process that speaks HTTP; this one ends when that one closes its end, or is gone.
    signals.ignore(draining=True)
    _serve(socket.socket(fileno=int(sys.argv[1])).makefile("rwb"))


if __name__ == "__main__":
    _main()
