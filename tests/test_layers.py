"""The house keeps its shape: imports go one way, SQL lives in one place, words keep one meaning."""

import ast
import re
from pathlib import Path

import pytest

from tests.live import CHECKOUT
from tests.some import some

SERVICE = CHECKOUT / "service"
ALLOWED = {
    "ledger": {"ledger"},
    "storage": {"garbage", "ledger", "storage", "signals"},
    "repository": {"ledger", "storage", "repository"},
    "api": {"ledger", "storage", "repository", "api", "measures", "telemetry"},
    "config": set(),
    "resources": set(),
    "measures": set(),
    "garbage": set(),
    "signals": set(),
    "telemetry": {"measures"},
    "logs": set(),
    "app": {"ledger", "storage", "repository", "api", "config", "resources", "measures", "telemetry"},
    "http_framing": set(),
    "connections": {"measures"},
    "http_protocol": {"ledger", "api", "connections", "http_framing"},
    "lifeguard": {"ledger", "api"},
    "server": {"config", "connections", "garbage", "http_protocol", "ledger", "lifeguard", "measures", "signals"},
    "cli": {"ledger", "storage", "repository", "api", "app", "server", "config", "resources", "cli"}
    | {"logs", "telemetry"},
}
"""What each part of service/ may import of the others."""
FRAMEWORKS = {
    "litestar": {"api", "app", "server"},
    "uvicorn": {"server", "http_protocol"},
    "click": {"cli"},
    "aiosqlite": {"storage"},
    "opentelemetry": {"telemetry"},
}
PURE = {"asyncio", "aiosqlite", "sqlite3", "litestar", "os", "pathlib", "time", "random", "secrets", "logging"}


def modules() -> list[Path]:
    """Every Python file of the service."""
    return sorted(path for path in SERVICE.rglob("*.py") if "data" not in path.relative_to(SERVICE).parts)


def part_of(path: Path) -> str:
    """The layer or top module that a file belongs to."""
    return path.relative_to(SERVICE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> list[str]:
    """Dotted names that a file imports."""
    names = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.module == "service":
                names += [f"service.{alias.name}" for alias in node.names]
            else:
                names.append("." * node.level + (node.module or ""))
    return names


def test_imports_go_one_way() -> None:
    """ledger <- storage <- repository <- api <- app <- cli; config and resources import nothing of ours."""
    inner = [path for path in modules() if part_of(path) != "__init__"]
    for path, name in some((one, name) for one in inner for name in imports_of(one)):
        part = part_of(path)
        root, _, rest = name.partition(".")
        assert root, f"{path}: relative import"
        if root == "service" and rest and rest != "__version__":
            assert rest.split(".")[0] in ALLOWED[part], f"{path} imports {name}"
        if root in FRAMEWORKS:
            assert part in FRAMEWORKS[root], f"{path} imports {name}"
        if part == "ledger":
            assert root not in PURE - {"pathlib"}, f"{path} is not pure: {name}"


SQL = re.compile(r"\b(SELECT .* FROM|INSERT INTO|UPDATE \w+ SET|DELETE FROM|CREATE TABLE|PRAGMA )", re.DOTALL)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SERVICE)))
def test_no_sql_outside_storage(path: Path) -> None:
    """All SQL is in storage/; the repository opens and ends transactions and says nothing else to the database."""
    if part_of(path) == "storage":
        return
    for node in some(ast.walk(ast.parse(path.read_text("utf-8")))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert not SQL.search(node.value), f"{path}:{node.lineno}"


def test_awaits_and_async_stay_out_of_pure_and_sql_code() -> None:
    """ledger/ has no coroutine; in storage/ only what reaches the engine has."""
    for path in some(modules()):
        if part_of(path) == "ledger" or (
            part_of(path) == "storage" and path.name not in {"sqlite.py", "connection_process.py"}
        ):
            tree = ast.parse(path.read_text("utf-8"))
            assert not any(isinstance(node, ast.AsyncFunctionDef | ast.Await) for node in ast.walk(tree)), path


def test_every_public_thing_has_a_docstring() -> None:
    """A docstring is a contract: modules, classes and functions whose names do not begin with _ have one."""
    for path in some(modules()):
        tree = ast.parse(path.read_text("utf-8"))
        assert ast.get_docstring(tree), path
        for node in some(tree.body):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name[0] != "_":
                bare_error = isinstance(node, ast.ClassDef) and len(node.body) == 1 and "errors" in path.name
                assert ast.get_docstring(node) or bare_error, f"{path}: {node.name}"


def test_top_level_holds_what_architecture_names() -> None:
    """Nothing stands at the top without a reason in ARCHITECTURE.md."""
    text = (CHECKOUT / "ARCHITECTURE.md").read_text("utf-8")
    for path in some(CHECKOUT.iterdir()):
        generated = {".git", ".venv", ".cache", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", "data"}
        if path.name not in generated | {".venv-bench", "build", "dist", ".gitignore"}:
            assert f"`{path.name}" in text, path.name
