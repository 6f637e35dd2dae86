"""The same request, or another one."""

import re

import pytest

from service.ledger.errors import AnswerErased, IdempotencyKeyReused
from service.ledger.idempotency import Request, check_same_request

ASKED = Request(idempotency_key="k", operation="POST /v1/debits", body='{"amount":1,"reason":"a"}')


def test_the_same_operation_and_body_pass() -> None:
    """Returns nothing, raises nothing."""
    check_same_request(ASKED, operation="POST /v1/debits", body='{"amount":1,"reason":"a"}', status=201)


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
        check_same_request(ASKED, operation=operation, body=body, status=201)
    assert refused.value.members == {"differing_fields": differing}


@pytest.mark.parametrize(("status", "said"), [(201, "carried out before (201)"), (409, "refused before (409)")])
def test_an_erased_answer_keeps_its_key(status: int, said: str) -> None:
    """Whatever the body, it says what became of the request; another operation is another request."""
    with pytest.raises(AnswerErased, match=re.escape(said)):
        check_same_request(ASKED, operation="POST /v1/debits", body="", status=status)
    with pytest.raises(IdempotencyKeyReused):
        check_same_request(ASKED, operation="POST /v1/users", body="", status=status)
