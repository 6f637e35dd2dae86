"""Which tests need more than their own process: read from the text of the tests, for `make check` to leave them out.

A test is outside if it, a fixture of it, or a function of tests/ that one of these names leads to a process: a
service, a command, a browser, wrangler. What the service starts of its own accord is not in the tests' text: such a
test is marked `long` by hand, and `make check` fails the one that is not (`forbid`).
"""

import ast
import functools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STARTERS = (
    *("subprocess", "multiprocessing", "os.fork", "os.posix_spawn", "os.exec", "asyncio.create_subprocess"),
    *("service.storage.connection_process", "service.storage.audit_workers"),
)
"""Names that begin like these start a process: of the standard library, and of the service."""
EVENTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec"}
"""What the interpreter's audit hook calls the same."""

Node = tuple[str, str]
"""A module and a name at its top; the name is empty for the whole module."""


class _Module:
    """What the names at the top of a module are, and which other names each of them mentions."""

    def __init__(self, name: str) -> None:
        tree = ast.parse(_path(name).read_text("utf-8"))
        self.imported: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for one in node.names:
                    whole = one.name if one.asname else one.name.partition(".")[0]
                    self.imported[one.asname or whole] = whole
            elif isinstance(node, ast.ImportFrom) and node.module:
                self.imported |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
        self.tops: dict[str, list[ast.AST]] = {}
        for statement in tree.body:
            for top in _names(statement):
                self.tops.setdefault(top, []).append(statement)

    def mentioned(self, top: str) -> Iterator[str]:
        """The full names that a name at the top mentions, of imported ones and of the module's own."""
        for statement in self.tops.get(top, ()) if top else [one for some in self.tops.values() for one in some]:
            for node in ast.walk(statement):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                    whole = self.imported.get(node.value.id)
                    if whole:
                        yield f"{whole}.{node.attr}"
                elif isinstance(node, ast.Name):
                    yield self.imported.get(node.id, f".{node.id}")


def _names(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return []
    return [node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]


def _path(module: str) -> Path:
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@functools.cache
def _module(name: str) -> _Module:
    return _Module(name)


def _resolved(whole: str) -> Node | None:
    """`tests.live.passbook.x` is the name `passbook` of the module `tests.live`."""
    parts = whole.split(".")
    for end in range(len(parts), 0, -1):
        if _path(".".join(parts[:end])).is_file():
            return ".".join(parts[:end]), parts[end] if end < len(parts) else ""
    return None


@functools.cache
def _next(node: Node) -> frozenset[Node | None]:
    """The names of tests/ that one mentions; None among them if it mentions one that starts a process."""
    module = _module(node[0])
    found: set[Node | None] = set()
    for whole in module.mentioned(node[1]):
        if whole.startswith("."):
            found |= {(node[0], whole[1:])} if whole[1:] in module.tops else set()
        elif whole.startswith(STARTERS):
            found.add(None)
        elif whole.startswith("tests.") and (other := _resolved(whole)) and (other[1] or other[0] != whole):
            found.add(other)
    return frozenset(found)


def leads_outside(module: str, name: str) -> bool:
    """Whether what this name of a module mentions, and what that mentions in turn, starts a process."""
    seen: set[Node] = set()
    waiting: list[Node] = [(module, name)]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        for other in _next(node):
            if other is None:
                return True
            waiting.append(other)
    return False


def is_outside(item: pytest.Item) -> bool:
    """Whether this test or one of its fixtures starts a process, as far as the text of tests/ tells."""
    if not isinstance(item, pytest.Function) or not item.path.is_relative_to(ROOT / "tests"):
        return False
    parent = item.getparent(pytest.Class)
    tops = {(item.module.__name__, parent.name if parent else item.originalname)}
    for definitions in item._fixtureinfo.name2fixturedefs.values():
        for one in definitions:
            tops.add((one.func.__module__, one.func.__name__))
    return any(leads_outside(*top) for top in tops if top[0].startswith("tests."))


def forbid() -> None:
    """From now on, a test that starts a process in this process of pytest fails and says why."""

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in EVENTS and "PYTEST_CURRENT_TEST" in os.environ:
            raise RuntimeError(
                f"make check runs no test that starts a process ({event} {arguments[:2]!r}): mark it pytest.mark.long"
            )

    sys.addaudithook(hook)
