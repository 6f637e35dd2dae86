"""The same request, or another one."""

import pytest

from service.ledger.errors import IdempotencyKeyReused
from service.ledger.idempotency import Request, check_same_request

ASKED = Request(idempotency_key="k", operation="POST /v1/debits", body='{"amount":1,"reason":"a"}')


def test_the_same_operation_and_body_pass() -> None:
    """Returns nothing, raises nothing."""
    check_same_request(ASKED, operation="POST /v1/debits", body='{"amount":1,"reason":"a"}')


@pytest.mark.parametrize(
    ("operation", "body", "differing"),
    [
        ("POST /v1/users", '{"amount":1,"reason":"a"}', ["path"]),
        ("POST /v1/users", "{}", ["path"]),
        ("POST /v1/debits", '{"amount":2,"reason":"a"}', ["amount"]),
        ("POST /v1/debits", '{"amount":2,"reason":"b"}', ["amount", "reason"]),
        ("POST /v1/debits", '{"amount":1}', ["reason"]),
        ("POST /v1/debits", '{"amount":1,"reason":"a","reference":null}', ["reference"]),
    ],
)
def test_another_request_is_refused_and_says_what_differs(operation: str, body: str, differing: list[str]) -> None:
    """A member that is null and one that is absent are two requests."""
    with pytest.raises(IdempotencyKeyReused) as refused:
        check_same_request(ASKED, operation=operation, body=body)
    assert refused.value.members == {"differing_fields": differing}
