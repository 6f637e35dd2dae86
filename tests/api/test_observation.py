"""What is known of a request whose answer never began."""

import asyncio
from typing import Any

import pytest

from service.api.observation import observed
from service.measures import Measures


@pytest.mark.parametrize("error", [RuntimeError("it broke"), asyncio.CancelledError()], ids=["an error", "its end"])
def test_a_request_that_no_answer_came_of_counts_as_500(error: BaseException) -> None:
    """Neither as 200 nor not at all: the share of failures is what alerts are made of."""
    measures = Measures([])

    async def broken(*_: Any) -> None:
        raise error

    async def run() -> None:
        scope: Any = {"type": "http", "method": "GET", "path_template": "/x", "headers": [], "state": {}}
        nothing: Any = None
        await observed(broken, measures, None, access_log=False)(scope, nothing, nothing)

    with pytest.raises(type(error)):
        asyncio.run(run())
    assert list(measures.requests.points) == [("GET", "/x", "500")]
    assert measures.active_requests == 0
