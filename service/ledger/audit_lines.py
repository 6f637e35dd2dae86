"""Rows of the audit log as lines: newline-delimited JSON, and comma-separated values.

NDJSON: one JSON object a line, as GET /v1/audit-logs/{id} answers it, ended by LF.

CSV (RFC 4180, UTF-8, with a byte-order mark where one is asked for): a header line, then one line a row, ended by CRLF;
a null is an empty cell, details are JSON text. A text that begins with = + - @, their full-width forms, a tab or a
carriage return gets an apostrophe before it, so that no spreadsheet takes it for a formula; line ends within a text are
written as \\n and \\r.
"""

import codecs
import csv
import io
from collections.abc import Iterable

import msgspec

from service.ledger.audit_logs import AuditLog

CSV_HEADER = (",".join(AuditLog.__struct_fields__) + "\r\n").encode()
CSV_HEADER_BOM = codecs.BOM_UTF8 + CSV_HEADER
"""Excel takes a file without the mark to be of the code page of its machine, such as CP949."""
_FORMULA = frozenset("=+-@＝＋－＠\t\r")
_encoder = msgspec.json.Encoder()


def ndjson(rows: Iterable[AuditLog]) -> bytes:
    """A line for each row."""
    return _encoder.encode_lines(list(rows))


def csv_lines(rows: Iterable[AuditLog]) -> bytes:
    """A line for each row, without the header."""
    text = io.StringIO(newline="")
    lines = ([_cell(value) for value in msgspec.structs.astuple(row)] for row in rows)
    csv.writer(text, lineterminator="\r\n").writerows(lines)
    return text.getvalue().encode()


def _cell(value: object) -> object:
    if isinstance(value, msgspec.Raw):
        return bytes(value).decode()
    if not isinstance(value, str):
        return value
    text = f"'{value}" if value[:1] in _FORMULA else value
    return text.replace("\n", "\\n").replace("\r", "\\r") if "\n" in text or "\r" in text else text
