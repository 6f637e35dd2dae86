"""The log on standard error: a JSON object a line, or a line for people.

This is the standard library's logging with one formatter. Only a dozen places log, and uvicorn and the OpenTelemetry
SDK log with it too: another library would be a second way beside it. Nobody can forge a line with a request or an
exception: characters that are not printable are escaped. No API key is logged: what looks like one is cut to its public
prefix, and what follows `Bearer` is left out.
"""

import json
import logging
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TextIO

Context = Callable[[], dict[str, str]]
"""What every line says of the request that it is written for, such as request_id and trace_id."""

_API_KEY = re.compile(r"(pbk_[0-9A-Za-z]{1,8})_?[0-9A-Za-z]*")
_CREDENTIALS = re.compile(r"(?i)\b(bearer|basic)\s+(?!pbk_)[^\s,;'\"]+")
_LEVELS = {"CRITICAL": "critical", "ERROR": "error", "WARNING": "warning", "INFO": "info", "DEBUG": "debug"}


class Formatter(logging.Formatter):
    """One line for each record; in text, a traceback follows in lines that begin with spaces.

    A record may bring `fields`, a dict of plain values, as its `extra`.
    """

    def __init__(self, *, as_json: bool, context: Context) -> None:
        super().__init__()
        self._as_json = as_json
        self._context = context

    def format(self, record: logging.LogRecord) -> str:
        """The record's line, or lines, without the last line break."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        level = _LEVELS.get(record.levelname, record.levelname)
        message = without_secrets(record.getMessage())
        trace = without_secrets(self.formatException(record.exc_info)) if record.exc_info else ""
        fields = {
            name: without_secrets(value) if isinstance(value, str) else value
            for name, value in {**getattr(record, "fields", {}), **self._context()}.items()
        }
        if self._as_json:
            line = {"timestamp": at, "level": level, "logger": record.name, "message": message, **fields}
            if trace:
                line["exception"] = trace
            # What JSON leaves as it is and a terminal does not is escaped in JSON's way.
            return _escaped(json.dumps(line, ensure_ascii=False, default=str), json_escapes=True)
        told = "".join(f" {name}={json.dumps(value, ensure_ascii=False)}" for name, value in fields.items())
        lines = [f"{at} {level.upper()} {record.name}: {message}{told}"]
        lines += [f"    {line}" for line in trace.split("\n") if line]
        return "\n".join(_escaped(line) for line in lines)


def without_secrets(text: str) -> str:
    """`text` with API keys cut to their public prefix and other credentials left out."""
    return _CREDENTIALS.sub(r"\1 …", _API_KEY.sub(r"\1_…", text))


def _escaped(text: str, *, json_escapes: bool = False) -> str:
    """`text` with what is not printable, such as ESC or a change of the writing's direction, escaped."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else json.dumps(one)[1:-1] if json_escapes else one.encode("unicode_escape").decode()
        for one in text
    )


def set_up(*, format_: str, level: str, context: Context, stream: TextIO | None = None) -> None:
    """Makes all logging of the process go to `stream`, or standard error.

    format_: "json", "text", or "auto": text on a terminal, else JSON. level: the least severe, such as "info".
    """
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    as_json = format_ == "json" or (format_ == "auto" and not stream.isatty())
    handler.setFormatter(Formatter(as_json=as_json, context=context))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
