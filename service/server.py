"""The HTTP server around the application: uvicorn in this one process, which owns the writer."""

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from time import monotonic
from types import FrameType
from typing import cast

import uvicorn
from litestar import Litestar

from service import garbage, signals
from service.config import Config, ConfigError
from service.connections import Bounds, Connections, Cut, places
from service.http_protocol import BoundedHttp, refusal
from service.ledger.errors import ErrorCode
from service.lifeguard import Lifeguard
from service.measures import Measures

_BACKLOG = 2048
_TICK_S = 0.1
_END_S = 25.0
"""How long the end may take beyond the grace: the writing process, the log and telemetry each have some seconds."""
_HURRIED_END_S = 12.0
FORCED_EXIT_CODE = 3
"""Of a process that ended though something was not finished."""
_ACCEPTED_AT_ONCE = 64
_ACCEPT_AGAIN_S = 0.25
_TURNED_AWAY_MAX = 64
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_log = logging.getLogger(__name__)


class ListenError(ConfigError):
    """The address cannot be listened on. The text says why and what to do."""


def listen(config: Config) -> socket.socket:
    """A bound socket. Raises ListenError."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.host, config.port))
    except OSError as error:
        listener.close()
        raise ListenError(
            f"Cannot listen on {config.host}:{config.port}: {error.strerror or error}."
            " Choose another with --port or PASSBOOK_PORT."
        ) from error
    return listener


def run(
    app: Litestar,
    config: Config,
    listener: socket.socket,
    *,
    on_ready: Callable[[], None],
    on_stopping: Callable[[], None],
    on_stop: Callable[[], None],
    on_hurry: Callable[[], None] = lambda: None,
) -> None:
    """Serves until SIGTERM or SIGINT; returns when the requests under way are answered and the database is closed.

    `on_ready` is called when requests are accepted, and `on_stopping` when a signal asked to end. `on_stop` is called
    config.shutdown_delay_s later, when no more are accepted and those under way are waited for. A second signal ends
    the delay. One more (the second, if there is no delay) calls `on_hurry`, and nobody is waited for any more. What the
    application's start raises is raised here. The process is expected to end afterwards: from the end of serving on,
    both signals are ignored. A signal during the application's start ends the start. Where something hangs all the
    same, such as a read of a disk that does not answer, the process ends with FORCED_EXIT_CODE.
    """
    measures: Measures = app.state["measures"]
    count = places(config.connections_max, readers=2 * config.readers)
    if count < config.connections_max:
        _log.warning("at most %d connections are taken: the limit of open files leaves no more", count)
    connections = Connections(bounds_of(config, connections=count), measures)
    server = _Server(
        uvicorn.Config(
            app,
            http=partial(BoundedHttp, connections=connections, on_refused=measures.refusals.add),  # type: ignore[arg-type]
            loop="uvloop",
            lifespan="off",
            ws="none",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=config.shutdown_grace_s,
        ),
        connections,
        measures.refusals.add,
        on_ready,
        on_stopping,
        on_stop,
        on_hurry,
        delay_s=config.shutdown_delay_s,
        grace_s=config.shutdown_grace_s,
    )

    async def serve() -> None:
        # The lifespan is entered here, so that its errors are ours to explain and it ends after the last request.
        server.opening = asyncio.current_task()
        async with app.lifespan(), Lifeguard(listener, measures.refusals.add).running():
            server.opening = None
            await server.serve(sockets=[listener])

    with signals_taken_by(server.handle_exit), asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        try:
            runner.run(serve())
        except BaseException as raised:
            error = _only_one_in(raised)  # the lifespan runs within a group of tasks, which wraps what is raised
            if isinstance(error, asyncio.CancelledError) and server.should_exit:
                return
            if error is raised:
                raise
            raise error from raised


def _only_one_in(group: BaseException) -> BaseException:
    """The one error in `group`, or in the groups in it; `group` where there are more, or where it is none."""
    while isinstance(group, BaseExceptionGroup) and len(group.exceptions) == 1:
        group = group.exceptions[0]
    return group


def bounds_of(config: Config, *, connections: int) -> Bounds:
    """What one connection may take, by the settings."""
    return Bounds(
        connections=connections,
        request_timeout_s=config.request_timeout_s,
        answer_timeout_s=config.answer_timeout_s,
    )


@contextlib.contextmanager
def signals_taken_by(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """From the opening of the database to its closing and on, a signal that drains calls `handle` and does no more.

    uvicorn takes them only while it serves: a second SIGTERM while the last commit or the closing runs would kill.
    """
    signals.ignore(draining=False)
    for number in signals.DRAINING:
        signal.signal(number, handle)
    try:
        yield
    finally:
        signals.ignore(draining=True)


class _Accepting:
    """Takes connections of a listening socket. Lifetime: from `start` to `stop`.

    asyncio's own server ends for good, and silently, where accept() fails for want of descriptors or memory.
    """

    def __init__(
        self,
        listener: socket.socket,
        connections: Connections,
        protocol: Callable[[], BoundedHttp],
        on_refused: Callable[[ErrorCode], None],
    ) -> None:
        self._listener = listener
        self._connections = connections
        self._protocol = protocol
        self._on_refused = on_refused
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[None]] = set()
        self._leaving: deque[socket.socket] = deque()
        self._again: asyncio.TimerHandle | None = None
        self._told = False

    def start(self) -> None:
        self._listener.setblocking(False)
        self._listener.listen(_BACKLOG)
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def stop(self) -> None:
        self._loop.remove_reader(self._listener.fileno())
        if self._again is not None:
            self._again.cancel()
        self._close_leaving()

    def _close_leaving(self) -> None:
        while self._leaving:
            self._leaving.popleft().close()

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                accepted, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._pause(error)
                    return
                continue  # this client has gone, or a firewall has taken it
            accepted.setblocking(False)
            if self._connections.make_room(self._loop.time(), opening=len(self._opening)):
                task = self._loop.create_task(self._open(accepted))
                self._opening.add(task)
                task.add_done_callback(self._opening.discard)
            else:
                self._turn_away(accepted)

    async def _open(self, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, accepted)
        except OSError:
            accepted.close()  # its client has gone

    def _pause(self, error: OSError) -> None:
        """Lets descriptors become free. Who waits meanwhile is kept by the system."""
        if not self._told:
            _log.error("no connection can be taken: %s", error.strerror)
            self._told = True
        self._close_leaving()
        self._connections.make_room(self._loop.time(), least=_ACCEPTED_AT_ONCE)
        self._loop.remove_reader(self._listener.fileno())
        self._again = self._loop.call_later(_ACCEPT_AGAIN_S, self._resume)

    def _resume(self) -> None:
        self._again = None
        self._told = False
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def _turn_away(self, accepted: socket.socket) -> None:
        """Answers at once that there is no place. It is closed later: a reset could take the answer back."""
        self._connections.cut(Cut.TURNED_AWAY)
        self._on_refused(ErrorCode.OVERLOADED)
        detail = f"All {self._connections.bounds.connections} connections are in use. Send the request again later."
        with contextlib.suppress(OSError):
            accepted.send(refusal(ErrorCode.OVERLOADED, detail))
            accepted.shutdown(socket.SHUT_WR)
        self._leaving.append(accepted)
        if len(self._leaving) > _TURNED_AWAY_MAX:
            self._leaving.popleft().close()


class _Server(uvicorn.Server):
    """uvicorn's server, but signals are not its own: none is raised again at the end, so that the exit code is 0."""

    def __init__(
        self,
        config: uvicorn.Config,
        connections: Connections,
        on_refused: Callable[[ErrorCode], None],
        on_ready: Callable[[], None],
        on_stopping: Callable[[], None],
        on_stop: Callable[[], None],
        on_hurry: Callable[[], None],
        *,
        delay_s: float,
        grace_s: float,
    ) -> None:
        super().__init__(config)
        self.servers: list[asyncio.base_events.Server] = []  # it accepts by itself
        self._connections = connections
        self._accepting: _Accepting
        self._watching: asyncio.Task[None]
        self._on_refused = on_refused
        self._on_ready = on_ready
        self._on_stopping = on_stopping
        self._on_stop = on_stop
        self._on_hurry = on_hurry
        self._delay_s = delay_s
        self._grace_s = grace_s
        self._signals = 0
        self._draining = False
        self.opening: asyncio.Task[None] | None = None
        """What still starts, and is cancelled by a signal."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._signals += 1
        super().handle_exit(sig, frame)
        if self.opening is not None:
            self.opening.get_loop().call_soon_threadsafe(self.opening.cancel)
            self.opening = None
            _end_after(_END_S)
        if self._draining:
            self._hurry()

    def _hurry(self) -> None:
        if not self.force_exit:
            self.force_exit = True
            self._on_hurry()
            _end_after(_HURRIED_END_S)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # see signals_taken_by

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        assert sockets
        protocol = cast("Callable[..., BoundedHttp]", self.config.http_protocol_class)
        self._watching = asyncio.create_task(self._connections.watch(), name="passbook-connections")
        self._accepting = _Accepting(
            sockets[0],
            self._connections,
            lambda: protocol(self.config, self.server_state, self.lifespan.state),
            self._on_refused,
        )
        self._accepting.start()
        self.started = True
        garbage.look_seldom()
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_stopping()
        end = monotonic() + self._delay_s
        while monotonic() < end and self._signals < 2:
            await asyncio.sleep(min(_TICK_S, end - monotonic()))
        self._on_stop()
        _end_after(self._grace_s + _END_S)
        self._draining = True
        if not self._delay_s and self._signals > 1:
            self._hurry()
        self._accepting.stop()
        await super().shutdown(sockets)
        self._watching.cancel()


def _end_after(seconds: float) -> None:
    """Ends the process then, if it is still there, from a thread: what hangs may be the event loop itself."""

    def end() -> None:
        os.write(2, b"The service did not end in its time. Does the disk of the database answer?\n")
        os._exit(FORCED_EXIT_CODE)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
