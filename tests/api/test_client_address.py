"""Whose address the audit log holds: the connection's, unless a named proxy says for whom it asks."""

import pytest

from service.api import client_address
from service.config import Config
from tests.live import LiveService, passbook

TRUSTED = Config(trusted_proxies="127.0.0.1, 10.0.0.0/8,::1, fd00::/8,::ffff:192.168.0.0/112").trusted_networks


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("198.51.100.1", [], "198.51.100.1"),
        ("198.51.100.1", ["203.0.113.7"], "198.51.100.1"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("127.0.0.1", ["203.0.113.7:4711"], "203.0.113.7"),
        ("127.0.0.1", ["6.6.6.6, 203.0.113.7, 10.1.2.3"], "203.0.113.7"),
        ("127.0.0.1", ["6.6.6.6", "203.0.113.7 ,10.1.2.3", "10.9.9.9"], "203.0.113.7"),
        ("127.0.0.1", ["6.6.6.6", "203.0.113.7, 192.168.0.9"], "203.0.113.7"),
        ("127.0.0.1", ["10.0.0.1, 10.0.0.2"], "10.0.0.1"),
        ("127.0.0.1", ["203.0.113.7, unknown"], "127.0.0.1"),
        ("127.0.0.1", ["203.0.113.7, , 10.0.0.1"], "10.0.0.1"),
        ("127.0.0.1", ["203.0.113.7, 10.0.0.256, 10.0.0.1"], "10.0.0.1"),
        ("127.0.0.1", ["203.0.113.7:port"], "127.0.0.1"),
        ("127.0.0.1", ["203.0.113.007"], "127.0.0.1"),
        ("127.0.0.1", [""], "127.0.0.1"),
        ("::1", ["2001:db8::1"], "2001:db8::1"),
        ("::1", ["[2001:DB8:0::1]"], "2001:db8::1"),
        ("::1", ["[2001:db8::1]:4711, fd00::5"], "2001:db8::1"),
        ("::1", ["[2001:db8::1"], "::1"),
        ("::1", ["fe80::1%<script>"], "::1"),
        ("::1", ["::ffff:203.0.113.7"], "203.0.113.7"),
        ("::ffff:127.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("::ffff:198.51.100.1", ["203.0.113.7"], "198.51.100.1"),
        ("testclient", ["203.0.113.7"], "testclient"),
        (None, ["203.0.113.7"], None),
    ],
)
def test_the_first_address_from_the_right_that_is_no_proxys(
    peer: str | None, forwarded: list[str], expected: str | None
) -> None:
    """What a client writes into the header itself stands left of what a proxy appends, and is never reached."""
    scope = {
        "client": peer and (peer, 4711),
        "headers": [(b"x-forwarded-for", value.encode()) for value in forwarded],
    }
    assert client_address.of(scope, TRUSTED) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(("trusted", "address"), [("", "127.0.0.1"), ("127.0.0.0/8", "203.0.113.7")])
def test_the_header_is_believed_when_the_peer_is_named(own_service: LiveService, trusted: str, address: str) -> None:
    """By default nobody is."""
    own_service.environment = {"PASSBOOK_TRUSTED_PROXIES": trusted}
    client = own_service.start().client()
    forwarded = {"X-Forwarded-For": "6.6.6.6, 203.0.113.7"}
    written = client.write("/v1/users", {"telegram_id": "1"}, **forwarded).json()
    assert client.get(f"/v1/audit-logs/{written['audit_log_id']}").json()["ip_address"] == address


@pytest.mark.parametrize("value", ["localhost", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.1;10.0.0.2"])
def test_a_wrong_setting_is_named_at_the_start(value: str) -> None:
    """With what is wrong about it."""
    refused = passbook("serve", env={"PASSBOOK_TRUSTED_PROXIES": f"127.0.0.1,{value}"})
    assert refused.returncode == 1
    assert f"PASSBOOK_TRUSTED_PROXIES='127.0.0.1,{value}'" in refused.stderr
    assert value in refused.stderr.partition(": ")[2]
