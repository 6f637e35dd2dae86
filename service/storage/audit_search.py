"""Pages of table audit_logs, in about the same time whether it has ten thousand rows or ten million.

Every list is in the order of ids. An index on one column holds the ids of equal values in order, so any single
condition is a walk from one end. Of several conditions, the one whose matches lie farthest apart there drives the walk.
The others are checked for each row that it meets. An action with `*`, an outcome, and a resource_id without its type
match a few values of an indexed column. These are found by skipping from one to the next, and their walks are merged.

The table audit_nodes turns a range of time into ranges of ids. It has the range of created_at for each 256 rows (level
8), each 65,536 rows (level 16) and so on. These are only hints, and created_at is checked for every row: the clock may
go back, the newest rows have no node yet, and the table may be behind or empty.
"""

import time
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from service.ledger.audit_chain import NODE_LEVELS
from service.ledger.audit_logs import FAILED, AuditLog, AuditLogFilter, Order, Outcome, outcome_of
from service.storage.audit_logs import COLUMNS, audit_log, find_newest_id
from service.storage.sqlite import Connection

Row = tuple[Any, ...]
"""Values of audit_logs.COLUMNS."""
Span = tuple[int, int]
"""The lowest and the highest of a range of ids."""

_ID_MAX = 2**63 - 1
_PROBE = 1000
_STEP_MIN, _STEP_MAX, _STEP_GROWTH = 128, 4096, 4
_BRANCHES_MAX = 200
_VALUES_MAX = 2000
_LEVEL_BITS = NODE_LEVELS
_NODE_CHILDREN = 2**_LEVEL_BITS
_GAP_MAX = 256
PAGE_CHARACTERS_MAX = 4 * 2**20
"""Of details, in one answer: a thousand rows could have 64 million, and a page is held until its client has it."""
_DETAILS = [name.strip() for name in COLUMNS.split(",")].index("details")

_EQUAL = {
    "request_id": "idx_audit_logs_request",
    "telegram_id": "idx_audit_logs_telegram_id",
    "actor": "idx_audit_logs_actor",
    "action": "idx_audit_logs_action",
    "resource_type": "idx_audit_logs_resource_type",
}
"""Column -> the index on it, those first that are likely to leave the fewest rows."""


class Found(NamedTuple):
    """`rows` in the order asked for. `reached`: the id up to and with which all were looked at; None: to the end."""

    rows: list[Row]
    reached: int | None


class _Driver(NamedTuple):
    """The walks that are merged, each as (index clause, condition), and the conditions that they make true."""

    walks: list[tuple[str, str]]
    parameters: dict[str, Any]
    covers: frozenset[str]


_ALL = _Driver([("NOT INDEXED", "TRUE")], {}, frozenset())


def search(
    tx: Connection,
    wanted: AuditLogFilter,
    *,
    order: Order,
    after: int | None,
    limit: int,
    budget_s: float,
    up_to: int = _ID_MAX,
) -> Found:
    """Up to `limit` rows that `wanted` holds for, behind the id `after` (None: from the start) in that order.

    Rows with an id above `up_to` are left out. Stops after about `budget_s` seconds with what it has: asked again
    behind `reached`, it goes on from there. Stops as well behind the row with which the details come to
    PAGE_CHARACTERS_MAX.
    """
    newest = order == Order.NEWEST
    deadline = time.monotonic() + budget_s
    ends = tx.execute("SELECT (SELECT MIN(id) FROM audit_logs), (SELECT MAX(id) FROM audit_logs)").fetchone()
    low, high = ends[0] or 0, min(ends[1] or 0, up_to)
    if after is not None:
        low, high = (low, min(high, after - 1)) if newest else (max(low, after + 1), high)
    walk: _Walk | None = None
    near = _Walk(tx, wanted, _ALL, newest)
    rows: list[Row] = []
    room = PAGE_CHARACTERS_MAX
    for number, span in enumerate(_merged(_spans(tx, wanted, low, high, newest), newest)):
        if number > 0 and time.monotonic() >= deadline:
            return Found(rows, span[1] + 1 if newest else span[0] - 1)
        if _ids(span) <= _PROBE:
            here = near
        else:
            # Chosen once, for the first range that is worth it: the rows without a node are a short one before it.
            ahead = (low, span[1]) if newest else (span[0], high)
            here = walk = walk or _Walk(tx, wanted, _driver(tx, wanted, ahead, newest), newest)
        step, rest = max(_STEP_MIN, 2 * limit), span
        while True:
            edge = None if here.is_exact or _ids(rest) <= step else here.nth(rest, step)
            part = rest if edge is None else (edge, rest[1]) if newest else (rest[0], edge)
            for row in here.rows(part, limit - len(rows)):
                rows.append(row)
                room -= len(row[_DETAILS] or "")
                if room <= 0:
                    return Found(rows, row[0])
            if len(rows) == limit:
                return Found(rows, rows[-1][0])
            if edge is None:
                break
            if time.monotonic() >= deadline:
                return Found(rows, edge)
            rest = (rest[0], edge - 1) if newest else (edge + 1, rest[1])
            step = min(_STEP_GROWTH * step, _STEP_MAX)
    return Found(rows, None)


def find_page(
    tx: Connection,
    wanted: AuditLogFilter,
    *,
    order: Order,
    after: int | None,
    limit: int,
    budget_s: float,
    up_to: int = _ID_MAX,
) -> tuple[list[AuditLog], int | None]:
    """A page of at most `limit` rows, and the id behind which the next one begins; None when this is the last."""
    found = search(tx, wanted, order=order, after=after, limit=limit + 1, budget_s=budget_s, up_to=up_to)
    rows = [audit_log(row) for row in found.rows[:limit]]
    return rows, rows[-1].id if len(found.rows) > limit else found.reached


def find_after(
    tx: Connection, wanted: AuditLogFilter, *, after: int, limit: int, budget_s: float
) -> tuple[list[AuditLog], int, int]:
    """At most `limit` rows behind the id `after`, oldest first; the id up to which it looked; the newest id there is.

    SQLite has one writer at a time, which gives out ids in the order of its commits. So no row becomes visible below
    the newest id that was seen, and none is left out.
    """
    newest = find_newest_id(tx)
    found = search(tx, wanted, order=Order.OLDEST, after=after, limit=limit, budget_s=budget_s, up_to=newest)
    return [audit_log(row) for row in found.rows], max(after, found.reached or newest), newest


class _Walk:
    """A driver with the other conditions, in one direction. Lifetime: one search."""

    def __init__(self, tx: Connection, wanted: AuditLogFilter, driver: _Driver, newest: bool) -> None:
        others = {name: sql for name, sql in _conditions(wanted).items() if name not in driver.covers}
        self.is_exact = not others
        self._tx = tx
        self._parameters = {**_values(wanted), **driver.parameters}
        self._walks = driver.walks
        self._others = "".join(f" AND {sql}" for sql in others.values())
        self._order = f"ORDER BY id {'DESC' if newest else 'ASC'}"

    def nth(self, span: Span, count: int) -> int | None:
        """The id of the row number `count` that the driver meets in `span`; None when there are fewer."""
        found = self._tx.execute(
            f"SELECT id FROM ({self._select('id', '')} {self._order} LIMIT 1 OFFSET :count - 1)",
            {**self._parameters, "low": span[0], "high": span[1], "count": count},
        ).fetchone()
        return found[0] if found else None

    def rows(self, span: Span, limit: int) -> Iterable[Row]:
        """The first rows in `span` that all conditions hold for, as they are asked for."""
        return self._tx.execute(
            f"{self._select(COLUMNS, self._others)} {self._order} LIMIT :limit",
            {**self._parameters, "low": span[0], "high": span[1], "limit": limit},
        )

    def _select(self, columns: str, others: str) -> str:
        return " UNION ALL ".join(
            f"SELECT {columns} FROM audit_logs {index} WHERE {condition} AND id BETWEEN :low AND :high{others}"
            for index, condition in self._walks
        )


def _conditions(wanted: AuditLogFilter) -> dict[str, str]:
    """What is asked for, as SQL of a row."""
    asked = {name: f"{name} = :{name}" for name in (*_EQUAL, "resource_id") if getattr(wanted, name) is not None}
    if wanted.action is not None and "*" in wanted.action:
        # GLOB knows only * among the characters that an action filter may hold.
        asked["action"] = "action GLOB :action"
    if wanted.outcome is not None:
        asked["outcome"] = f"action {'' if wanted.outcome == Outcome.FAILURE else 'NOT '}GLOB '*{FAILED}'"
    if wanted.since is not None:
        asked["since"] = "created_at >= :since"
    if wanted.until is not None:
        asked["until"] = "created_at < :until"
    return asked


def _values(wanted: AuditLogFilter) -> dict[str, Any]:
    names = (*_EQUAL, "resource_id", "since", "until")
    return {name: value for name in names if (value := getattr(wanted, name)) is not None}


def _driver(tx: Connection, wanted: AuditLogFilter, ahead: Span, newest: bool) -> _Driver:
    """The condition that leaves the fewest rows where the search begins, at one end of `ahead`."""
    candidates = list(_drivers(tx, wanted))
    if wanted.since is None and wanted.until is None and len(candidates) == 1:
        return candidates[0]
    best, farthest = _ALL, _PROBE
    for driver in candidates:
        edge = _Walk(tx, wanted, driver, newest).nth(ahead, _PROBE)
        if edge is None:
            return driver
        distance = ahead[1] - edge if newest else edge - ahead[0]
        if distance > farthest:
            best, farthest = driver, distance
    return best


def _drivers(tx: Connection, wanted: AuditLogFilter) -> Iterator[_Driver]:
    if wanted.resource_id is not None:
        types = [wanted.resource_type] if wanted.resource_type is not None else _distinct(tx, "resource_type")
        if types is not None and len(types) < _BRANCHES_MAX:
            yield _of_resource(wanted, types)
    for column, index in _EQUAL.items():
        value = getattr(wanted, column)
        if value is not None and not (column == "action" and "*" in value):
            yield _Driver([(f"INDEXED BY {index}", f"{column} = :{column}")], {}, frozenset({column}))
    if wanted.outcome is not None or (wanted.action is not None and "*" in wanted.action):
        pattern = wanted.action or "*"
        actions = _distinct(tx, "action", pattern.partition("*")[0])
        if actions is not None:
            matching = [
                action
                for action in actions
                if fnmatchcase(action, pattern) and wanted.outcome in {None, outcome_of(action)}
            ]
            if len(matching) <= _BRANCHES_MAX:
                yield _of_actions(matching)


def _of_resource(wanted: AuditLogFilter, types: list[str | None]) -> _Driver:
    untyped = [] if wanted.resource_type is not None else [None]
    named = {f"type_{number}": value for number, value in enumerate(types)}
    return _Driver(
        [
            ("INDEXED BY idx_audit_logs_resource", f"resource_type IS :{name} AND resource_id = :resource_id")
            for name in (*named, *(["untyped"] if untyped else []))
        ],
        {**named, "untyped": None},
        frozenset({"resource_id", "resource_type"}),
    )


def _of_actions(actions: list[str]) -> _Driver:
    named = {f"action_{number}": value for number, value in enumerate(actions)}
    walks = [("INDEXED BY idx_audit_logs_action", f"action = :{name}") for name in named]
    return _Driver(walks or [("NOT INDEXED", "FALSE")], named, frozenset({"action", "outcome"}))


def _distinct(tx: Connection, column: str, prefix: str = "") -> list[Any] | None:
    """The values of an indexed column that begin with `prefix`, without null; None when there are too many."""
    found = tx.execute(
        f"WITH RECURSIVE distinct_value(value) AS ("
        f" SELECT MIN({column}) FROM audit_logs WHERE {column} >= :from AND {column} < :to UNION ALL"
        f" SELECT (SELECT MIN({column}) FROM audit_logs WHERE {column} > value AND {column} < :to)"
        f" FROM distinct_value WHERE value IS NOT NULL"
        f") SELECT value FROM distinct_value WHERE value IS NOT NULL LIMIT {_VALUES_MAX + 1}",
        {"from": prefix, "to": f"{prefix}\U0010ffff"},
    ).fetchall()
    return [value for (value,) in found] if len(found) <= _VALUES_MAX else None


def _spans(tx: Connection, wanted: AuditLogFilter, low: int, high: int, newest: bool) -> Iterator[Span]:
    """Ranges of ids within `low` to `high`, in the order of the search, that hold all rows of the wanted time."""
    nodes = _Nodes(tx, wanted, low, high, newest)
    strips = list(nodes.strips())
    if (wanted.since is None and wanted.until is None) or not strips:
        yield low, high
        return
    last_level, _, last_position = strips[-1]
    tail = nodes.last_id(last_level, last_position) + 1
    if newest and tail <= high:
        yield max(tail, low), high
    for strip in reversed(strips) if newest else strips:
        yield from nodes.overlapping(*strip)
    if not newest and tail <= high:
        yield max(tail, low), high


class _Nodes:
    """Table audit_nodes, asked for a range of time and of ids. Lifetime: one search."""

    def __init__(self, tx: Connection, wanted: AuditLogFilter, low: int, high: int, newest: bool) -> None:
        self._tx = tx
        self._order = "DESC" if newest else "ASC"
        self._asked = {"since": wanted.since or "", "until": wanted.until or "\U0010ffff", "low": low, "high": high}

    def strips(self) -> Iterator[tuple[int, int, int]]:
        """(level, first position, last position) from the left: together they cover each node of the lowest level once.

        The nodes of the highest level, then on each level below those that have no node above them yet.
        """
        level = self._tx.execute("SELECT MAX(level) FROM audit_nodes").fetchone()[0] or 0
        first = 0
        while level > 0:
            last = self._tx.execute("SELECT MAX(position) FROM audit_nodes WHERE level = ?", (level,)).fetchone()[0]
            if last is not None and last >= first:
                yield level, first, last
                first = last + 1
            level -= _LEVEL_BITS
            first *= _NODE_CHILDREN

    def last_id(self, level: int, position: int) -> int:
        """The id of the last row below a node."""
        found: int = self._tx.execute(
            "SELECT last_id FROM audit_nodes WHERE level = ? AND position = ?", (level, position)
        ).fetchone()[0]
        return found

    def overlapping(self, level: int, first: int, last: int) -> Iterator[Span]:
        """The ids below the nodes that the range of time touches; where only in part, below their children."""
        found = self._tx.execute(
            "SELECT position, first_id, last_id, created_at_min >= :since AND created_at_max < :until FROM audit_nodes"
            " WHERE level = :level AND position BETWEEN :first AND :last AND last_id >= :low AND first_id <= :high"
            f" AND created_at_max >= :since AND created_at_min < :until ORDER BY position {self._order}",
            {**self._asked, "level": level, "first": first, "last": last},
        ).fetchall()
        for position, first_id, last_id, is_whole in found:
            if is_whole or level == _LEVEL_BITS:
                yield max(first_id, self._asked["low"]), min(last_id, self._asked["high"])
            else:
                child = position * _NODE_CHILDREN
                yield from self.overlapping(level - _LEVEL_BITS, child, child + _NODE_CHILDREN - 1)


def _ids(span: Span) -> int:
    """How many ids it spans; of rows there are at most so many."""
    return span[1] - span[0] + 1


def _merged(spans: Iterable[Span], newest: bool) -> Iterator[Span]:
    """`spans` with those joined that lie close together."""
    last: Span | None = None
    for low, high in spans:
        if last is not None and (last[0] - high if newest else low - last[1]) <= _GAP_MAX:
            last = min(last[0], low), max(last[1], high)
        else:
            if last is not None:
                yield last
            last = low, high
    if last is not None:
        yield last
