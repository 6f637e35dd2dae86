"""Single transactions."""

from tests.live import LiveService


def test_every_type_of_transaction_is_read_at_one_place(service: LiveService) -> None:
    """A pending deposit has no balances yet, a confirmed one and a debit have them."""
    client = service.client()
    body = {"telegram_id": "4001", "amount": 10, "depositor_name": "홍길동"}
    pending = client.get(f"/v1/transactions/{client.write('/v1/deposits', body).json()['id']}").json()
    assert (pending["type"], pending["direction"], pending["status"]) == ("deposit", "credit", "pending")
    assert [pending[name] for name in ("balance_before", "balance_after", "version", "confirmed_at")] == [None] * 4
    confirmed = client.get(f"/v1/transactions/{client.credit('4001', 30)['id']}").json()
    assert (confirmed["balance_before"], confirmed["balance_after"], confirmed["version"]) == (0, 30, 1)
    debit = client.write("/v1/debits", {"telegram_id": "4001", "amount": 5, "reason": "fee"}).json()
    line = client.get(f"/v1/transactions/{debit['id']}").json()
    assert (line["type"], line["direction"], line["depositor_name"]) == ("debit", "debit", None)


def test_an_unknown_transaction_is_404(service: LiveService) -> None:
    """The largest id too."""
    for transaction_id in (999_999, 999_999_999_999_999):
        answer = service.client().get(f"/v1/transactions/{transaction_id}")
        assert (answer.status_code, answer.json()["code"]) == (404, "transaction_not_found")
