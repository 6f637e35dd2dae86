"""Rows of the audit log for eyes: one line each, in columns, with nothing in them that a terminal obeys."""

import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from service.ledger.audit_logs import AuditLog, Outcome

_WIDTHS = {"id": 6, "time": 23, "outcome": 1, "action": 20, "telegram_id": 10, "resource": 20, "actor": 12}
"""The least width of each column in cells; a wider value makes it wider from then on."""
_WIDTH_MAX = 40
_STYLES = {"id": "dim", "time": "cyan", "telegram_id": "magenta", "actor": "blue", "details": "dim"}
_OUTCOME_STYLES = {Outcome.SUCCESS: "green", Outcome.FAILURE: "bold red"}
_MARKS = {Outcome.SUCCESS: "✓", Outcome.FAILURE: "✗"}
_MILLISECONDS = re.compile(r"\.(\d{3})\d*")


def visible(text: str, *, kept: str = "") -> str:
    """`text` with every character that is not printed but obeyed, or not seen, as \\uXXXX, which JSON reads the same.

    Those are control characters, also those of Latin-1, and format characters, which turn the direction of writing.
    """
    if text.isprintable():
        return text
    return "".join(one if one in kept or one.isprintable() else _escaped(one) for one in text)


def _escaped(one: str) -> str:
    units = one.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


class AuditView:
    """Prints rows as they come, times in the zone `at`. Lifetime: one command."""

    def __init__(self, console: Console, at: ZoneInfo) -> None:
        self._console = console
        self._at = at
        self._widths = dict(_WIDTHS)

    def show(self, rows: list[AuditLog]) -> None:
        """Prints a line for each; columns widen for what is among `rows`."""
        lines = [(row, self._cells(row)) for row in rows]
        for name in self._widths:
            widest = max((cell_len(cells[name]) for _, cells in lines), default=0)
            self._widths[name] = max(self._widths[name], min(widest, _WIDTH_MAX))
        for row, cells in lines:
            self._console.print(self._line(row, cells), no_wrap=True, overflow="ellipsis", crop=True)

    def _cells(self, row: AuditLog) -> dict[str, str]:
        resource = " ".join(str(part) for part in (row.resource_type, row.resource_id) if part is not None)
        cells = {
            "id": str(row.id),
            "time": self._time(row.created_at),
            "outcome": _MARKS[row.outcome],
            "action": row.action,
            "telegram_id": row.telegram_id or "-",
            "resource": resource or "-",
            "actor": row.actor or "-",
            "details": _details(row),
        }
        return {name: visible(str(cell)) for name, cell in cells.items()}

    def _time(self, spoken: str | None) -> str:
        try:
            instant = datetime.fromisoformat(_MILLISECONDS.sub(r".\1", spoken or "").replace("Z", "+00:00"))
        except ValueError:
            return spoken or "-"
        aware = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
        return aware.astimezone(self._at).replace(tzinfo=None).isoformat(sep=" ", timespec="milliseconds")

    def _line(self, row: AuditLog, cells: dict[str, str]) -> Text:
        line = Text()
        for name, width in self._widths.items():
            cell = cells[name]
            sized = set_cell_size(cell, width) if cell_len(cell) <= width else f"{set_cell_size(cell, width - 1)}…"
            style = _OUTCOME_STYLES[row.outcome] if name in {"outcome", "action"} else _STYLES.get(name, "")
            line.append(f"{sized} ", style)
        return line.append(cells["details"], _STYLES["details"])


def _details(row: AuditLog) -> str:
    """What a person reads of the details: members that are not null, as name=value."""
    members = msgspec.json.decode(row.details) if row.details is not None else {}
    return " ".join(
        f"{name}={value if isinstance(value, str) else msgspec.json.encode(value).decode()}"
        for name, value in members.items()
        if value is not None
    )
