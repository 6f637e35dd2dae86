"""A quota that is used up: the disk has room, and not for this user."""

from tests.faults import tracing
from tests.live import LiveService
from tests.waiting import until


def test_a_used_up_quota_is_a_full_disk_and_passes_with_it(own_service: LiveService) -> None:
    """SQLite calls it an I/O error, as of a broken disk. It is `storage_full`, and needs no restart to be over."""
    assert tracing.why_not() == ""
    client = own_service.start().client()
    client.credit("1", 1000)
    debit = {"telegram_id": "1", "amount": 10, "reason": "x"}
    # Of the writing process, which answers over a socket: all its writes to files.
    inject = ["pwrite64,write:error=EDQUOT:when=1+"]
    record = own_service.database.with_name("trace")
    with tracing.attached(own_service.writer_pid, record, calls="pwrite64,write", inject=inject):
        for _ in range(2):
            refused = client.write("/v1/debits", debit, key="once")
            assert (refused.status_code, refused.json()["code"]) == (503, "storage_full"), refused.text
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["writes"], ready.json()["reads"]) == (503, "storage_full", "ok")
        assert client.get("/v1/users/1/balance").json()["balance"] == 1000
    assert "INJECTED" in record.read_text()
    assert client.write("/v1/debits", debit, key="once").json()["balance_after"] == 990
    until(lambda: client.get("/readyz").status_code == 200, "it is ready again")
    assert own_service.stop() == 0


def test_a_commit_that_may_be_on_disk_is_no_full_disk(own_service: LiveService) -> None:
    """With the quota used up, the sync of a commit fails: its frames are all in the log, and a start finds them."""
    client = own_service.start().client()
    client.credit("1", 1000)
    debit = {"telegram_id": "1", "amount": 10, "reason": "x"}
    inject = [f"{tracing.SYNCS}:error=EIO:when=1+", "write:error=EDQUOT:when=1+"]
    record = own_service.database.with_name("trace")
    with tracing.attached(own_service.writer_pid, record, calls=f"{tracing.SYNCS},write", inject=inject):
        refused = client.write("/v1/debits", debit, key="once")
        assert (refused.status_code, refused.json()["code"]) == (503, "outcome_unknown"), refused.text
        assert client.write("/v1/debits", debit).json()["code"] == "writes_stopped"
    own_service.kill()
    assert own_service.start().client().write("/v1/debits", debit, key="once").json()["balance_after"] == 990
    assert own_service.stop() == 0
