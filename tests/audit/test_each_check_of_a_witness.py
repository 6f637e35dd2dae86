"""Every check that a witness makes of its files refuses something that no other one does."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import click

from service.cli import audit_witness
from service.ledger import notes
from service.ledger.audit_chain import EMPTY_ROOT
from service.ledger.notes import Checkpoint, NoteError, make_signing_key
from service.ledger.witness import LogMisbehaved
from tests.removed_checks import checks_of
from tests.storage.test_each_check_of_the_log import needless

KEY, OTHER = make_signing_key("log", bytes(32)), make_signing_key("log", b"x" * 32)
NOTE = notes.sign(Checkpoint("log", 0, EMPTY_ROOT).text(), KEY).encode()
FUNCTIONS = ("_opened", "_accept", "_locked", "_files", "_service")


def accepted(folder: Path, *, key: str | None, trust_first: bool, note: bytes = NOTE) -> str:
    """What a witness whose files are in `folder` says of a checkpoint that is given as a file."""
    (folder.parent / "offered").write_bytes(note)
    state = audit_witness._opened(folder, key, None, trust_first=trust_first)
    return audit_witness._accept(state, audit_witness._files(folder.parent / "offered", None))


def is_refused(attempt: Callable[[], str]) -> bool:
    """Whether it is, in words, or nothing new is accepted."""
    try:
        return not attempt().startswith("Accepted")
    except (NoteError, LogMisbehaved, click.UsageError):
        return True
    except (AttributeError, TypeError):  # a traceback is no word
        return False


class _Endless(BaseHTTPRequestHandler):
    """A service whose every answer is one byte longer than a note may be."""

    def do_GET(self) -> None:
        body = b"x" * (notes.NOTE_BYTES_MAX + 1)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextlib.contextmanager
def endless() -> Iterator[str]:
    """The URL of that service, for the block."""
    with HTTPServer(("127.0.0.1", 0), _Endless) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            serving.join()


def held_twice(folder: Path) -> str:
    """What comes of a second witness while one works in `folder`."""
    with audit_witness._locked(folder), audit_witness._locked(folder):
        return "Accepted by two at once"


def answered(source: Callable[[], audit_witness._Source], *, proof: bool = False) -> str:
    """What comes of asking a source for its checkpoint, or for a proof."""
    made = source()
    asked = made.consistency(1, 2) if proof else made.checkpoint()
    return f"Accepted: {len(asked)} bytes"


def forgeries(folder: Path, url: str) -> dict[str, Callable[[], bool]]:
    """What a witness must not accept; each has a folder of its own, which it makes anew."""
    numbers = iter(range(10**6))

    def fresh() -> Path:
        made = folder / str(next(numbers)) / "state"
        made.mkdir(parents=True)
        return made

    def used() -> Path:
        made = fresh()
        assert accepted(made, key=KEY.verifier.text(), trust_first=True).startswith("Accepted: 0 rows")
        return made

    def shown(attempt: Callable[[], str]) -> Callable[[], bool]:
        return lambda: is_refused(attempt)

    vkey, other = KEY.verifier.text(), OTHER.verifier.text()
    forged = notes.sign(Checkpoint("log", 0, EMPTY_ROOT).text(), OTHER).encode()
    grown = notes.sign(Checkpoint("log", 5, bytes(32)).text(), KEY).encode()
    assert accepted(used(), key=vkey, trust_first=False, note=grown).startswith("Accepted: 5 rows, 0 before")
    offered = folder / "offered"
    return {
        "a second witness in one folder": shown(lambda: held_twice(fresh())),
        "a file without the proof": shown(lambda: answered(lambda: audit_witness._files(offered, None), proof=True)),
        "a URL that is no HTTP": shown(lambda: answered(lambda: audit_witness._service("file:///etc/hostname"))),
        "an answer without end": shown(lambda: answered(lambda: audit_witness._service(url))),
        "no key is kept": shown(lambda: accepted(fresh(), key=None, trust_first=True)),
        "another key is kept": shown(lambda: accepted(used(), key=other, trust_first=True, note=grown)),
        "the first checkpoint, unasked": shown(lambda: accepted(fresh(), key=vkey, trust_first=False)),
        "the same checkpoint again": shown(lambda: accepted(used(), key=None, trust_first=False)),
        "another key's checkpoint": shown(lambda: accepted(fresh(), key=vkey, trust_first=True, note=forged)),
    }


def test_each_check_of_a_witness_of_its_files_is_needed(tmp_path: Path) -> None:
    """Of the key that it keeps, of what it accepted before, of who else works there, and of what it asks."""
    checks = checks_of(audit_witness, *FUNCTIONS)
    with endless() as url:
        assert needless(checks, forgeries(tmp_path, url), {}) == set()
    assert {check.function for check in checks} == {*FUNCTIONS}
