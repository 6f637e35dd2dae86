"""Keys, scopes and roles."""

import os
import re
import string
from collections import Counter

import pytest

from service.ledger.access import RANDOM_BYTES, ROLES, Scope, hash_of, is_well_formed, make_key, prefix_of

BASE_62 = string.digits + string.ascii_letters


def test_a_key_has_the_documented_form() -> None:
    """pbk_, 8 characters, _, 32 and 6 more, all in base 62; the prefix is what stands before the second underscore."""
    key = make_key(os.urandom(RANDOM_BYTES))
    assert re.fullmatch(r"pbk_[0-9A-Za-z]{8}_[0-9A-Za-z]{38}", key)
    assert prefix_of(key) == key.rpartition("_")[0]
    assert is_well_formed(key)
    assert len(hash_of(key)) == 32


def test_a_known_key_keeps_its_checksum() -> None:
    """The algorithm is part of every key that was given out: CRC-32 in base 62."""
    assert make_key(bytes(RANDOM_BYTES)) == "pbk_00000000_" + "0" * 32 + "1pgqJ8"


def test_every_single_mistake_is_noticed() -> None:
    """Any one character changed, any two neighbours swapped, anything cut off or added."""
    key = make_key(os.urandom(RANDOM_BYTES))
    for place in range(len(key)):
        for other in BASE_62 + "_-":
            if other != key[place]:
                assert not is_well_formed(key[:place] + other + key[place + 1 :])
        swapped = key[:place] + key[place : place + 2][::-1] + key[place + 2 :]
        assert swapped == key or not is_well_formed(swapped)
        assert not is_well_formed(key[:place])
    for mistaken in (
        "",
        "pbk_",
        key + "0",
        "0" + key,
        key.upper(),
        key.replace("pbk", "PBK"),
        key[:-1] + "１",
        f" {key}",
    ):
        assert not is_well_formed(mistaken)


def test_no_digit_is_favoured() -> None:
    """Bytes of 248 and more are passed over: with them 0 to 7 would be drawn more often. Every byte value once."""
    drawn: Counter[str] = Counter()
    for byte in range(248):
        drawn.update(make_key(bytes([byte]) * RANDOM_BYTES)[4:12])
    assert drawn == dict.fromkeys(BASE_62, 4 * 8)
    for byte in range(248, 256):
        with pytest.raises(ValueError, match="too few"):
            make_key(bytes([byte]) * RANDOM_BYTES)


def test_too_few_random_bytes_are_refused() -> None:
    """Never a shorter secret."""
    with pytest.raises(ValueError, match="too few"):
        make_key(bytes(39))


def test_a_leaked_bot_key_cannot_make_money() -> None:
    """The bot's role neither confirms, nor changes balances, nor reverses, nor notifies of bank transfers."""
    assert not ROLES["bot"] & {
        Scope.DEPOSITS_CONFIRM,
        Scope.BALANCE_CHANGE,
        Scope.TRANSACTIONS_REVERSE,
        Scope.BANK_NOTIFY,
    }
    assert ROLES["admin"] == frozenset(Scope)
