"""A real browser: headless Chromium, asked over the two pipes of its DevTools protocol.

What a page does is kept: every address that it asked for, every line of its console, everything that its
Content-Security-Policy forbade.
"""

import base64
import contextlib
import fcntl
import itertools
import json
import os
import shutil
import struct
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-shell", "google-chrome")
LIFETIME_S = 120
"""After it the browser is killed, so that a test that waits for what never comes fails."""
_WATCH = "addEventListener('securitypolicyviolation', e => console.error('CSP', e.violatedDirective, e.blockedURI))"
_WAIT = """new Promise(done => {{
  const look = () => document.querySelectorAll({selector}).length >= {count} && (observer.disconnect(), done(true));
  const observer = new MutationObserver(look);
  observer.observe(document, {{childList: true, subtree: true}});
  look();
}})"""


@dataclass
class Page:
    """One tab. `asked` are the addresses of all its requests, `said` the lines of its console and of its log."""

    _ask: Callable[..., dict[str, Any]]
    session: str
    asked: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def open(self, url: str, *, width: int, height: int) -> None:
        """Goes to `url` in a window of so many pixels."""
        for domain in ("Page", "Network", "Runtime", "Log"):
            self._ask(f"{domain}.enable", session=self.session)
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._ask("Emulation.setDeviceMetricsOverride", session=self.session, **metrics)
        self._ask("Page.addScriptToEvaluateOnNewDocument", session=self.session, source=_WATCH)
        went = self._ask("Page.navigate", session=self.session, url=url)
        assert "errorText" not in went, went

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; of a promise, what it comes to."""
        answer = self._ask(
            "Runtime.evaluate", session=self.session, expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, selector: str, count: int = 1) -> None:
        """Returns when so many elements fit the CSS selector."""
        assert self.run(_WAIT.format(selector=json.dumps(selector), count=count))

    def picture(self, scale: float = 1.0) -> bytes:
        """What the window shows, as PNG."""
        shown = self._ask("Page.getLayoutMetrics", session=self.session)["cssVisualViewport"]
        clip = {
            "x": shown["pageX"],
            "y": shown["pageY"],
            "width": shown["clientWidth"],
            "height": shown["clientHeight"],
        }
        taken = self._ask("Page.captureScreenshot", session=self.session, clip={**clip, "scale": scale})
        return base64.b64decode(taken["data"])

    def heard(self, method: str, told: dict[str, Any]) -> None:
        """Keeps what the browser tells of this tab."""
        if method == "Network.requestWillBeSent":
            self.asked.append(told["request"]["url"])
        elif method == "Runtime.consoleAPICalled":
            self.said.append(" ".join(str(part.get("value", part.get("description"))) for part in told["args"]))
        elif method == "Runtime.exceptionThrown":
            self.said.append(str(told["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.said.append(f"{told['entry']['source']}: {told['entry']['text']}")


def program() -> str:
    """The browser of this machine; `make test` installs one."""
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    assert found, f"There is no browser: {', '.join(PROGRAMS)}"
    return found


@contextlib.contextmanager
def new_page(profile: Path) -> Iterator[Page]:
    """A tab of a browser of its own, which ends with the block."""
    (reads, tell), (hear, writes) = os.pipe(), os.pipe()
    theirs = [fcntl.fcntl(number, fcntl.F_DUPFD, 10) for number in (reads, writes)]
    arguments = (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe"),
        *("--disable-background-networking", "--no-first-run", f"--user-data-dir={profile}", "about:blank"),
    )
    process = subprocess.Popen(
        ["bash", "-c", f'exec "$0" "$@" 3<&{theirs[0]} 4>&{theirs[1]}', program(), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=theirs,
    )
    for number in (reads, writes, *theirs):
        os.close(number)
    watchdog = threading.Timer(LIFETIME_S, process.kill)
    watchdog.start()
    numbers = itertools.count(1)
    pages: dict[str, Page] = {}
    with open(tell, "wb", buffering=0) as requests, open(hear, "rb") as answers:

        def ask(method: str, *, session: str | None = None, **parameters: Any) -> dict[str, Any]:
            number = next(numbers)
            request = {
                "id": number,
                "method": method,
                "params": parameters,
                **({"sessionId": session} if session else {}),
            }
            requests.write(json.dumps(request).encode() + b"\0")
            while True:
                message = json.loads(_until_nul(answers))
                if message.get("id") == number:
                    assert "error" not in message, (method, message["error"])
                    answer: dict[str, Any] = message["result"]
                    return answer
                if message.get("sessionId") in pages:
                    pages[message["sessionId"]].heard(message["method"], message["params"])

        try:
            target = ask("Target.createTarget", url="about:blank")["targetId"]
            session = ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            pages[session] = Page(ask, session)
            yield pages[session]
        finally:
            watchdog.cancel()
            process.kill()
            process.wait()


def _until_nul(stream: Any) -> bytes:
    message = bytearray()
    while (byte := stream.read(1)) != b"\0":
        assert byte, "the browser ended"
        message += byte
    return bytes(message)


def pixels_of(png: bytes) -> tuple[int, int, set[bytes]]:
    """(width, height, its colours) of a PNG of 8 bits a channel, not interlaced (PNG, 3rd edition, §9 and §13)."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    at, packed, header = 8, b"", b""
    while at < len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        data = png[at + 8 : at + 8 + length]
        header, packed = (data, packed) if kind == b"IHDR" else (header, packed + data if kind == b"IDAT" else packed)
        at += 12 + length
    width, height, bits, colour, *_, interlaced = struct.unpack(">IIBBBBB", header)
    channels = {2: 3, 6: 4}[colour]
    assert (bits, interlaced) == (8, 0)
    raw, size = zlib.decompress(packed), width * channels
    above, colours = bytearray(size), set()
    for row in range(height):
        start = row * (size + 1)
        line = _unfiltered(raw[start], bytearray(raw[start + 1 : start + 1 + size]), above, channels)
        colours |= {bytes(line[x : x + channels]) for x in range(0, size, channels)}
        above = line
    return width, height, colours


def _unfiltered(kind: int, line: bytearray, above: bytearray, channels: int) -> bytearray:
    for x in range(len(line)):
        left = line[x - channels] if x >= channels else 0
        corner = above[x - channels] if x >= channels else 0
        up = above[x]
        nearest = min((left, up, corner), key=lambda value: abs(left + up - corner - value))
        line[x] = (line[x] + (0, left, up, (left + up) // 2, nearest)[kind]) % 256
    return line
