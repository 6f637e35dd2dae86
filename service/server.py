"""The HTTP server around the application: uvicorn in this one process, which owns the writer."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from time import monotonic
from types import FrameType

import uvicorn
from litestar import Litestar

from service.config import Config, ConfigError
from service.http_protocol import BoundedHttp

_BACKLOG = 2048
_KEEP_ALIVE_S = 75
_TICK_S = 0.1
_END_S = 15.0
"""How long the end may take beyond the grace: the writing process, the log and telemetry each have some seconds."""
_HURRIED_END_S = 12.0
FORCED_EXIT_CODE = 3
"""Of a process that ended though something was not finished."""
_YOUNG_OBJECTS = 10_000
"""So many come into being between two collections of garbage, instead of 700: a request alone makes some hundreds, and
hardly any of them is in a cycle."""


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

    `on_ready` is called when requests are taken, `on_stopping` when a signal asked to end, and `on_stop`
    config.shutdown_delay_s later, when no more are taken and those under way are waited for; a second signal ends the
    delay. One more (the second, where there is no delay) calls `on_hurry`, and nobody is waited for any more. What the
    application's start raises is raised here. The process is expected to end afterwards: from the end of serving on,
    both signals are ignored. Where something hangs all the same, such as a read of a disk that does not answer, the
    process ends with FORCED_EXIT_CODE.
    """
    server = _Server(
        uvicorn.Config(
            app,
            http=partial(  # type: ignore[arg-type]
                BoundedHttp,
                request_timeout_s=config.request_timeout_s,
                on_refused=app.state["measures"].refusals.add,
            ),
            loop="uvloop",
            lifespan="off",
            ws="none",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=config.shutdown_grace_s,
        ),
        on_ready,
        on_stopping,
        on_stop,
        on_hurry,
        delay_s=config.shutdown_delay_s,
        grace_s=config.shutdown_grace_s,
    )

    async def serve() -> None:
        # The lifespan is entered here, so that its errors are ours to explain and it ends after the last request.
        async with app.lifespan():
            await server.serve(sockets=[listener])

    with _signals_taken_by(server), asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(serve())


@contextlib.contextmanager
def _signals_taken_by(server: uvicorn.Server) -> Iterator[None]:
    """From the opening of the database to its closing and on, a signal asks `server` to end and does no more.

    uvicorn takes them only while it serves: a second SIGTERM while the last commit or the closing runs would kill.
    """
    signals = (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        signal.signal(number, server.handle_exit)
    try:
        yield
    finally:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)


class _Server(uvicorn.Server):
    """uvicorn's server, but signals are not its own: none is raised again at the end, so that the exit code is 0."""

    def __init__(
        self,
        config: uvicorn.Config,
        on_ready: Callable[[], None],
        on_stopping: Callable[[], None],
        on_stop: Callable[[], None],
        on_hurry: Callable[[], None],
        *,
        delay_s: float,
        grace_s: float,
    ) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._on_stopping = on_stopping
        self._on_stop = on_stop
        self._on_hurry = on_hurry
        self._delay_s = delay_s
        self._grace_s = grace_s
        self._signals = 0
        self._draining = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._signals += 1
        super().handle_exit(sig, frame)
        if self._draining:
            self._hurry()

    def _hurry(self) -> None:
        if not self.force_exit:
            self.force_exit = True
            self._on_hurry()
            _end_after(_HURRIED_END_S)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # see _signals_taken_by

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What is there now stays: a collection that walks all of it stops every request for tens of milliseconds.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_YOUNG_OBJECTS)
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
        await super().shutdown(sockets)


def _end_after(seconds: float) -> None:
    """Ends the process then, if it is still there, from a thread: what hangs may be the event loop itself."""

    def end() -> None:
        os.write(2, b"The service did not end in its time: something waits for a disk that does not answer.\n")
        os._exit(FORCED_EXIT_CODE)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
