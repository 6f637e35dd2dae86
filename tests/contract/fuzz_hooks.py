"""What schemathesis loads before it asks: parameters that exclude each other, which a document cannot say."""

from typing import Any

import schemathesis

_EXCLUDED = {"follow": ("cursor", "order"), "on": ("since", "until")}


@schemathesis.hook
def map_query(context: Any, query: dict[str, Any] | None) -> dict[str, Any] | None:
    """Of those only the first is asked for; the coverage phase asks for all of them. Nobody is waited for long."""
    if query and "follow" in query:
        query = {**query, "wait": 1}
    for name, others in _EXCLUDED.items():
        if query and name in query and context.operation.path == "/v1/audit-logs":
            query = {key: value for key, value in query.items() if key not in others}
    return query


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """An id that an answer has as null names nothing; schemathesis would write it into a path as None."""
    for name, value in (case.path_parameters or {}).items():
        if value is None or value == "None":
            case.path_parameters[name] = "1"
