"""Loops of assertions that would pass over nothing, found in the text of a test."""

import ast
from collections.abc import Iterator, Mapping

ALWAYS_SOME = {"some", "range", "itertools.count"}
KEEP = {"enumerate", "zip", "sorted", "reversed", "list", "tuple", "set", "map", "product"}
"""Calls that have something if their arguments have."""


def over_nothing(tree: ast.Module) -> Iterator[ast.expr]:
    """What loops with assertions, and `all` in an assertion, go over though it may be empty.

    It cannot be if it is written down in the file, or is a `range`, or went through `tests.some.some`. Under Hypothesis
    it may be: nothing is one of the cases that it draws.
    """
    yield from _in(tree, _assigned(tree.body))


def _in(node: ast.AST, names: Mapping[str, ast.expr | None]) -> Iterator[ast.expr]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        if any(ast.unparse(one).startswith("given(") for one in node.decorator_list):
            return
        names = {**names, **{one.arg: None for one in ast.walk(node.args) if isinstance(one, ast.arg)}}
        names |= _assigned([one for part in node.body for one in ast.walk(part)])
    yield from (one for one in _gone_over(node) if not _has_some(one, names))
    for child in ast.iter_child_nodes(node):
        yield from _in(child, names)


def _assigned(nodes: list[ast.AST] | list[ast.stmt]) -> dict[str, ast.expr | None]:
    """What each name is; None if it is more than one thing, or comes from a loop."""
    found: dict[str, ast.expr | None] = {}
    for node in nodes:
        for target in ast.walk(node) if isinstance(node, ast.Assign | ast.AnnAssign | ast.For | ast.With) else ():
            if isinstance(target, ast.Name) and isinstance(target.ctx, ast.Store):
                is_alone = isinstance(node, ast.Assign | ast.AnnAssign) and target in _targets(node)
                found[target.id] = node.value if is_alone and target.id not in found else None
    return found


def _targets(node: ast.Assign | ast.AnnAssign) -> list[ast.expr]:
    return node.targets if isinstance(node, ast.Assign) else [node.target]


def _gone_over(node: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, ast.For | ast.AsyncFor) and any(_checks(one) for part in node.body for one in ast.walk(part)):
        yield node.iter
    if isinstance(node, ast.Assert):
        for call in ast.walk(node.test):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "all":
                yield from _of_all(call.args[0])


def _of_all(argument: ast.expr) -> Iterator[ast.expr]:
    if isinstance(argument, ast.GeneratorExp | ast.ListComp):
        yield from (loop.iter for loop in argument.generators)
    else:
        yield argument


def _checks(node: ast.AST) -> bool:
    return isinstance(node, ast.Assert) or (isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.raises")


def _has_some(node: ast.expr | None, names: Mapping[str, ast.expr | None]) -> bool:
    match node:
        case ast.List(elts=elements) | ast.Tuple(elts=elements) | ast.Set(elts=elements):
            return bool(elements)
        case ast.Dict(keys=keys):
            return bool(keys)
        case ast.Constant(value=value):
            return bool(value)
        case ast.Name(id=name):
            return _has_some(names.get(name), {**names, name: None})
        case ast.IfExp(body=one, orelse=other):
            return _has_some(one, names) and _has_some(other, names)
        case ast.BinOp(left=left, right=right):
            return _has_some(left, names) or _has_some(right, names)
        case ast.ListComp(generators=loops) | ast.SetComp(generators=loops) | ast.DictComp(generators=loops):
            return all(not loop.ifs and _has_some(loop.iter, names) for loop in loops)
        case ast.Call(func=ast.Attribute(value=value, attr="items" | "keys" | "values" | "split" | "splitlines")):
            return _has_some(value, names)
        case ast.Call(func=called, args=arguments, keywords=options):
            name = ast.unparse(called)
            enough = any if any(one.arg == "strict" for one in options) else all
            known = [_has_some(one, names) for one in arguments[1 if name == "map" else 0 :]]
            return name in ALWAYS_SOME or (name.rpartition(".")[2] in KEEP and enough(known))
    return False
