"""Each check of a Python module, and a way to run the program without it.

A check is an `if` that raises, refuses or reports, a loop or an `except` that reports, a call of a function named
check_… or require_…, a `raise` by itself, or one that ends an `except` and hides what it caught. Each alternative of a
condition is a check of its own, and so is each part of a conjunction that is returned. The second of two that read the
same in a function is called "again". What is left without a check is put into the running functions, so that every
importer of them has it too.
"""

import ast
import contextlib
import copy
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType

_CALLS = re.compile(r"(\w+\.)*_?(check|require|verify)(_\w+)?$")
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Change = Callable[[ast.AST, _Function], None]
Place = tuple[str, str]
"""The file of a function, and its name within the module."""
_REPORTS = re.compile(r"(self\.)?(_add|wrong\.append|open\.append)\(")


@dataclass(frozen=True)
class Check:
    """function: its name within the module. said: the condition or the call, as the program has it."""

    module: ModuleType
    function: str
    said: str
    without: ast.Module

    def __str__(self) -> str:
        return f"{self.function}: {self.said}"

    @property
    def place(self) -> Place:
        """Of its function."""
        return str(self.module.__file__), self.function


def checks_of(module: ModuleType, *functions: str, refusal: str = "False") -> list[Check]:
    """Those of the functions named, each a function of the module or `Class.method`; of all without names.

    `refusal`: the constant, or the expression, that they return where they refuse; "" where they return nothing.
    """
    assert module.__file__
    tree = ast.parse(Path(module.__file__).read_text("utf-8"))
    found: list[Check] = []
    for name, body in _functions(tree):
        if functions and name not in functions:
            continue
        for number, node in enumerate(ast.walk(body)):
            for said, change in _ways(node, refusal):
                twin = copy.deepcopy(body)
                change([*ast.walk(twin)][number], twin)
                again = any((one.function, one.said) == (name, said) for one in found)
                found.append(Check(module, name, f"{said} (again)" if again else said, _alone(twin, name)))
    return found


@contextlib.contextmanager
def removed(check: Check) -> Iterator[None]:
    """The program without it, for the block."""
    target: object = check.module
    for part in check.function.split("."):
        target = vars(target)[part] if not isinstance(target, ModuleType) else getattr(target, part)
    target = getattr(target, "__func__", target)
    while hasattr(target, "__wrapped__"):
        target = target.__wrapped__
    assert isinstance(target, FunctionType), check
    whole = compile(check.without, str(check.module.__file__), "exec")
    was, target.__code__ = target.__code__, _code(whole, check.function)
    try:
        yield
    finally:
        target.__code__ = was


@contextlib.contextmanager
def entered() -> Iterator[set[Place]]:
    """The functions that this thread calls in the block."""
    found: set[Place] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            found.add((frame.f_code.co_filename, frame.f_code.co_qualname))

    earlier = sys.getprofile()
    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(earlier)


def _functions(tree: ast.Module) -> Iterator[tuple[str, _Function]]:
    for node in tree.body:
        if isinstance(node, _Function):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from ((f"{node.name}.{one.name}", one) for one in node.body if isinstance(one, _Function))


def _alone(function: _Function, name: str) -> ast.Module:
    """A module of that function, within its class if it has one."""
    statement: ast.stmt = function
    if "." in name:
        within = name.partition(".")[0]
        statement = ast.ClassDef(within, bases=[], keywords=[], body=[function], decorator_list=[])
    return ast.fix_missing_locations(ast.Module([statement], type_ignores=[]))


def _ways(node: ast.AST, refusal: str) -> Iterator[tuple[str, _Change]]:
    if isinstance(node, ast.If) and node.orelse and _refuses(node.orelse, refusal):
        yield f"not {ast.unparse(node.test)}", _always
    if isinstance(node, ast.For) and _reports(node.body):
        yield f"for {ast.unparse(node.target)} in {ast.unparse(node.iter)}", _over_nothing
    if isinstance(node, ast.ExceptHandler) and (_reports(node.body) or _raises_anew(node.body[-1])):
        yield f"except {ast.unparse(node.type) if node.type else ''}", _without_report
    if isinstance(node, ast.If) and _refuses(node.body, refusal):
        yield ast.unparse(node.test), _never
        if isinstance(node.test, ast.BoolOp) and isinstance(node.test.op, ast.Or):
            for number, one in enumerate(node.test.values):
                yield f"{ast.unparse(one)} (of {ast.unparse(node.test)})", _without_alternative(number)
    elif isinstance(node, ast.Return) and isinstance(node.value, ast.BoolOp) and isinstance(node.value.op, ast.And):
        for number, one in enumerate(node.value.values):
            yield f"{ast.unparse(one)} (of what it returns)", _without_condition(number)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        if _CALLS.match(ast.unparse(node.value.func)):
            yield ast.unparse(node), _pass
    elif isinstance(node, _Function) and isinstance(node.body[-1], ast.Raise) and node.body[-1].cause is None:
        yield ast.unparse(node.body[-1]), _end


def _refuses(body: list[ast.stmt], refusal: str) -> bool:
    last = body[-1]
    if isinstance(last, ast.Return):
        said = last.value.value if isinstance(last.value, ast.Constant) else last.value
        return isinstance(said, str | ast.JoinedStr) or refusal == (
            ast.unparse(said) if isinstance(said, ast.AST) else "" if last.value is None else str(said)
        )
    return isinstance(last, ast.Raise) or _reports(body)


def _reports(body: list[ast.stmt]) -> bool:
    """Whether a report is the last that is done, or all but the end of a loop."""
    said = body[-2] if isinstance(body[-1], ast.Break) and len(body) > 1 else body[-1]
    return bool(_REPORTS.match(ast.unparse(said)))


def _raises_anew(last: ast.stmt) -> bool:
    """Whether it is `raise … from None`: what was caught was asked for, and only this refuses."""
    return isinstance(last, ast.Raise) and isinstance(last.cause, ast.Constant)


def _over_nothing(node: ast.AST, _: _Function) -> None:
    assert isinstance(node, ast.For)
    node.iter = ast.Tuple([], ast.Load())


def _without_report(node: ast.AST, _: _Function) -> None:
    assert isinstance(node, ast.ExceptHandler)
    node.body[-1] = ast.Pass()


def _never(node: ast.AST, _: _Function) -> None:
    assert isinstance(node, ast.If)
    node.test = ast.BoolOp(ast.And(), [node.test, ast.Constant(False)])


def _always(node: ast.AST, _: _Function) -> None:
    assert isinstance(node, ast.If)
    node.test = ast.BoolOp(ast.Or(), [node.test, ast.Constant(True)])


def _without_alternative(number: int) -> _Change:
    def change(node: ast.AST, _: _Function) -> None:
        assert isinstance(node, ast.If)
        assert isinstance(node.test, ast.BoolOp)
        del node.test.values[number]
        if len(node.test.values) == 1:
            node.test = node.test.values[0]

    return change


def _without_condition(number: int) -> _Change:
    def change(node: ast.AST, _: _Function) -> None:
        assert isinstance(node, ast.Return)
        assert isinstance(node.value, ast.BoolOp)
        left = [one for place, one in enumerate(node.value.values) if place != number]
        node.value = left[0] if len(left) == 1 else ast.BoolOp(ast.And(), left)

    return change


def _pass(node: ast.AST, _: _Function) -> None:
    assert isinstance(node, ast.Expr)
    node.value = ast.Constant(None)


def _end(_: ast.AST, function: _Function) -> None:
    function.body[-1] = ast.Pass()


def _code(whole: CodeType, name: str) -> CodeType:
    waiting = [whole]
    while waiting:
        code = waiting.pop()
        if code.co_qualname == name:
            return code
        waiting += [one for one in code.co_consts if isinstance(one, CodeType)]
    raise LookupError(name)
