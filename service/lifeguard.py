"""Answers probes while the event loop waits for a disk.

One row by its key is read on the event loop, and the loop is blocked as long as the disk takes. A disk that does not
answer blocks it for ever: a supervisor would see a dead service and restart it, which repairs no disk. So a thread
watches whether the loop turns. If it has not turned for some seconds, and its thread waits in the kernel for a disk,
the lifeguard accepts connections in its place. /livez is then 200, and everything else 503. A loop that is busy or
deadlocked gets no such help, because a restart would repair that.
"""

import asyncio
import contextlib
import logging
import select
import socket
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

from service.api import problems, request_ids
from service.ledger.errors import ErrorCode

_log = logging.getLogger(__name__)
SILENT_S = 3.0
"""How long the loop may not turn before the thread looks why."""
_BEAT_S = 0.5
_REQUEST_BYTES_MAX = 8192
_REQUEST_WITHIN_S = 0.25
"""A probe comes at once. Who takes longer would keep the next one waiting."""
_WAITS_FOR_DISK = {"D", "t"}
"""States of a thread (proc(5)): it waits for a disk, or for who traces it."""


def waits_for_disk(thread_id: int) -> bool:
    """Whether that thread of this process waits in the kernel for a disk; only Linux tells."""
    try:
        stat = Path(f"/proc/self/task/{thread_id}/stat").read_text("ascii", "replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] in _WAITS_FOR_DISK


class Lifeguard:
    """The thread and the beat that it listens for. Lifetime: while the loop of the calling thread serves.

    on_refused: called on the loop, when it turns again, for each answer that was a refusal. is_held: whether the
    loop's thread waits for a disk.
    """

    def __init__(
        self,
        listener: socket.socket,
        on_refused: Callable[[ErrorCode], None],
        *,
        is_held: Callable[[], bool] | None = None,
        silent_s: float = SILENT_S,
    ) -> None:
        self._listener = listener
        self._on_refused = on_refused
        self._refused: deque[ErrorCode] = deque()
        loop_thread = threading.get_native_id()
        self._is_held = is_held or (lambda: waits_for_disk(loop_thread))
        self._silent_s = silent_s
        self.beat = monotonic()
        """When the loop last turned, by the monotonic clock."""
        self._ended = threading.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Watches over the loop for the block."""
        thread = threading.Thread(target=self._watch, name="passbook-lifeguard", daemon=True)
        thread.start()
        beating = asyncio.create_task(self._beats(), name="passbook-beat")
        try:
            yield
        finally:
            beating.cancel()
            self._ended.set()
            self._count()

    async def _beats(self) -> None:
        while True:
            self.beat = monotonic()
            self._count()
            await asyncio.sleep(_BEAT_S)

    def _count(self) -> None:
        """Tells what the thread has refused. Only the loop counts, and nothing is locked for it."""
        while self._refused:
            self._on_refused(self._refused.popleft())

    @property
    def _silent_for_s(self) -> float:
        return monotonic() - self.beat

    def _watch(self) -> None:
        while not self._ended.wait(_BEAT_S):
            if self._silent_for_s >= self._silent_s and self._is_held():
                _log.critical("a read has held every request for %.0f s; only probes are answered", self._silent_for_s)
                with contextlib.suppress(OSError):  # it is closed already
                    self._stand_in()

    def _stand_in(self) -> None:
        """Answers whoever connects, until the loop turns again."""
        with self._listener.dup() as listener:
            listener.setblocking(False)
            coming = select.poll()
            coming.register(listener, select.POLLIN)
            while self._silent_for_s >= self._silent_s and not self._ended.is_set():
                if not coming.poll(_BEAT_S * 1000) or self._silent_for_s < self._silent_s:
                    continue  # whoever comes when the loop turns again is the loop's
                try:
                    connection, _ = listener.accept()
                except BlockingIOError:  # the loop was first
                    continue
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(_REQUEST_WITHIN_S)
                    connection.sendall(self._answer(connection.recv(_REQUEST_BYTES_MAX)))

    def _answer(self, request: bytes) -> bytes:
        request_id = request_ids.new()
        method, _, rest = request.partition(b" ")
        path = rest.split(b" ", 1)[0].split(b"?", 1)[0]
        if path == b"/livez" and method in {b"GET", b"HEAD"}:
            return _encoded(method, "200 OK", "application/json", b'{"status":"ok"}', request_id)
        detail = f"The service has waited {self._silent_for_s:.0f} s for a read: does the disk of the database answer?"
        body = problems.encode(ErrorCode.NOT_READY, detail, request_id, {"reads": "stalled", "writes": "stalled"})
        self._refused.append(ErrorCode.NOT_READY)
        return _encoded(method, "503 Service Unavailable", problems.MEDIA_TYPE, body, request_id, "retry-after: 5\r\n")


def _encoded(method: bytes, status: str, media_type: str, body: bytes, request_id: str, more: str = "") -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\ncontent-type: {media_type}\r\ncontent-length: {len(body)}\r\n"
        f"x-request-id: {request_id}\r\n{more}connection: close\r\n\r\n"
    )
    return head.encode() + (b"" if method == b"HEAD" else body)
