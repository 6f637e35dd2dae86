"""Rows of the audit log as lines: newline-delimited JSON, and comma-separated values.

NDJSON: one JSON object a line, as GET /v1/audit-logs/{id} answers it, ended by LF.

CSV (RFC 4180, UTF-8): a header line, then one line a row, ended by CRLF; a null is an empty cell, details are JSON
text. A text that begins with = + - @, their full-width forms, a tab or a carriage return gets an apostrophe before it,
so that no spreadsheet takes it for a formula; line ends within a text are written as \\n and \\r.
"""

import csv
import io
import re
from collections.abc import Iterable

import msgspec

from service.ledger.audit_logs import AuditLog

CSV_HEADER = (",".join(AuditLog.__struct_fields__) + "\r\n").encode()
_FORMULA = tuple("=+-@＝＋－＠\t\r")
_LINE_ENDS = {"\n": "\\n", "\r": "\\r"}
_LINE_END = re.compile(r"[\r\n]")
_encoder = msgspec.json.Encoder()


def ndjson(rows: Iterable[AuditLog]) -> bytes:
    """A line for each row."""
    return _encoder.encode_lines(list(rows))


def csv_lines(rows: Iterable[AuditLog]) -> bytes:
    """A line for each row, without the header."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows([_cell(value) for value in _values(row)] for row in rows)
    return text.getvalue().encode()


def _values(row: AuditLog) -> Iterable[object]:
    return (getattr(row, name) for name in AuditLog.__struct_fields__)


def _cell(value: object) -> object:
    if isinstance(value, msgspec.Raw):
        return bytes(value).decode()
    if isinstance(value, str):
        text = f"'{value}" if value.startswith(_FORMULA) else value
        return _LINE_END.sub(lambda found: _LINE_ENDS[found[0]], text) if _LINE_END.search(text) else text
    return value
