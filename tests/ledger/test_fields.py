"""Patterns that bound what comes in."""

import re
import unicodedata

import pytest

from service.ledger import fields
from service.ledger.fields import REMEDIES
from tests.some import some

PATTERNS = {name: value for name, value in vars(fields).items() if name.endswith("_PATTERN")}


def test_every_pattern_has_a_remedy_in_words() -> None:
    """A pattern without one would be answered as "text of another form"."""
    assert set(PATTERNS.values()) == REMEDIES.keys()
    assert len(PATTERNS) >= 9


@pytest.mark.parametrize("name", PATTERNS)
def test_every_pattern_is_anchored_and_reads_the_same_in_ecma_262(name: str) -> None:
    """No `\\d`, `\\w` or `\\s` (Python's know every script), no group that ECMA 262 lacks, no newline at the end."""
    pattern = PATTERNS[name]
    assert pattern.startswith("^")
    assert pattern.endswith(r"$(?!\n)")
    assert not re.search(r"\\[dwsDWSbBAZ]|\(\?P|\(\?[aiLmsux]", pattern)
    assert bool(re.search(pattern, "")) is (pattern == fields.PRINTED_NAME_PATTERN)


GOOD = {
    "TELEGRAM_ID_PATTERN": ["0", "1" * 20],
    "KNOWN_USER_PATTERN": ["0", "1" * 20, "erased-1", f"erased-{'9' * 15}"],
    "ID_PATTERN": ["1", "9" * 15],
    "TEXT_PATTERN": ["a", "홍길동", " a ", "אבג", "e\u0301", "👩‍👩‍👧", "'--", "a\u200db", "\u3000가"],
    "MESSAGE_PATTERN": ["a", "\n[Web]\r\n홍길동\t5,000원\n", " a"],
    "BANK_TRANSACTION_ID_PATTERN": ["1", "KB-2026/01:19", "x" * 100, "가", "국민 2026-01-19 / 3", "가" * 100],
    "PRINTED_NAME_PATTERN": [
        "",
        "홍길동",
        "홍 길동",
        "홍길동\0\0",
        "\0\t \u3000",
        "\t홍길동 ",
        "x" * 50,
        " " * 75 + "x" * 50,
    ],
    "BANK_ACCOUNT_PATTERN": ["427******27104", "140-012-603310", "*", "1" * 40],
    "BANK_MESSAGE_STATUS_PATTERN": ["unreadable", "waiting", "kept", "settled"],
    "BANK_NOTIFICATION_STATUS_PATTERN": ["unmatched", "matched"],
    "DOMAIN_PATTERN": ["a.b", "한글.kr", "xn--bj0bj06e.kr", "경쟁。kr"],
    "DEPOSIT_STATUS_PATTERN": ["pending", "reversed"],
    "HEADER_TOKEN_PATTERN": ["a", '"a"', '"', "x" * 255, '"' + "x" * 255 + '"', "a,b;c=d"],
    "REQUEST_ID_PATTERN": ["a", "x" * 128],
    "ACTION_PATTERN": ["a", "*_failed", "deposit_*", "*x*"],
    "WORD_PATTERN": ["user_domains", "a1"],
    "INSTANT_PATTERN": ["2026-01-19T12:00:00Z", "2026-01-19t23:59:59.123456789+23:59", "0001-12-31T00:00:00-00:00"],
    "EXPLANATION_CURSOR_PATTERN": ["0-0-v1", "63904406400123-12-v7", "9-h-t345", f"1-{'9' * 15}-t{'9' * 15}"],
    "EVENT_ACTION_PATTERN": ["a", "login_2", "a" * 57],
    "DAY_PATTERN": ["2026-11-22", "0001-01-31"],
    "INSTANT_OR_DAY_PATTERN": ["2026-11-22", "2026-01-19T12:00:00Z", "2026-01-19t23:59:59.123456789+23:59"],
    "ZONE_PATTERN": ["UTC", "Asia/Seoul", "America/Argentina/Buenos_Aires", "Etc/GMT+9", "EST5EDT"],
    "ORDER_PATTERN": ["newest", "oldest"],
    "OUTCOME_PATTERN": ["success", "failure"],
    "SWITCH_PATTERN": ["true", "false"],
    "QUEUE_CURSOR_PATTERN": ["1", "o1", f"o{'9' * 15}", "9" * 15],
    "AUDIT_CURSOR_PATTERN": ["n1", f"o{'9' * 15}"],
    "FOLLOW_PATTERN": ["0", "1", "9" * 15],
    "DURATION_PATTERN": ["PT1H", "P1D", "P999DT9999H99999M9999999S"],
}
BAD = {
    "MESSAGE_PATTERN": ["", "\n", " \t\u3000", "a\0", "\0a", "a\u202e", "a\x0b"],
    "BANK_TRANSACTION_ID_PATTERN": ["", " ", " a", "a\u3000", "\u200ba", "x" * 101, "a\tb", "a\0", "a\u202eb", "a\n"],
    "PRINTED_NAME_PATTERN": ["x" * 51, "홍\0길동", "홍\t길동", "홍길동\n", "\n", "\r", "홍길동\x01", "\u202e홍길동"],
    "BANK_ACCOUNT_PATTERN": ["", " ", "a", "１", "140 012", "1" * 41, "1\n"],
    "BANK_MESSAGE_STATUS_PATTERN": ["", "matched", "kept ", "Settled", "settled\n"],
    "BANK_NOTIFICATION_STATUS_PATTERN": ["", "pending", "matched\n", "unmatched "],
    "DOMAIN_PATTERN": ["", "a", ".", ".kr", "a.", "a b.kr", "a.kr\n"],
    "DEPOSIT_STATUS_PATTERN": ["", "null", "PENDING", "pending\n"],
    "TELEGRAM_ID_PATTERN": ["", "1" * 21, "-1", "a", "١", "１", " 1", "1\n"],
    "KNOWN_USER_PATTERN": ["", "1" * 21, "erased-", "erased-0", "erased-01", "Erased-1", "erased-1\n", "erased-１"],
    "ID_PATTERN": ["", "0", "01", "1" * 16, "-1", "1.0", "١", "1\n"],
    "TEXT_PATTERN": [
        *("", " ", "\u00a0", "\u200b", "\ufeff", "\u3164", "\u2800", "\u3000", "\u00ad", "\u115f", "\uffa0", "\ufe0f"),
        *("a\n", "\0", "a\0", "a\x7f", "a\x9f", "a\u2028", "a\u202e", "a\u2067", "a\uffff", "\ufffe"),
    ],
    "HEADER_TOKEN_PATTERN": ["", '""', "a b", "x" * 256, "é", "a\n", "\x7f"],
    "REQUEST_ID_PATTERN": ["", "x" * 129, "a b", "é", "a\n"],
    "ACTION_PATTERN": ["", "*", "**", "a*b", "A", "%", "[a]", "a" * 65, "a\n"],
    "WORD_PATTERN": ["", "A", "a-b", "a" * 65, "a\n"],
    "EXPLANATION_CURSOR_PATTERN": [
        *("", "1", "1-1", "-1-v1", "1-01-v1", "1-1-v0", "1-1-x1", "1-hh-t1", "1" * 15 + "-1-v1", "1-1-v" + "1" * 16),
        *("1-" + "1" * 16 + "-v1", "１-1-v1", "1-1-v1\n"),
    ],
    "INSTANT_PATTERN": [
        *("2026-01-19", "2026-01-19T12:00:00", "2026-01-19 12:00:00Z", "2026-13-01T00:00:00Z", "2026-01-32T00:00:00Z"),
        *("2026-01-19T24:00:00Z", "2026-01-19T23:60:00Z", "2026-01-19T23:59:60Z", "2026-01-19T00:00:00+99:99"),
        *("2026-01-19T00:00:00+00:60", "2026-01-19T00:00:00.Z", "２026-01-19T00:00:00Z", "2026-01-19T12:00:00Z\n"),
    ],
    "EVENT_ACTION_PATTERN": ["", "A", "_a", "1a", "a-b", "*", "a" * 58, "a\n"],
    "DAY_PATTERN": ["", "2026-1-2", "2026-13-01", "2026-01-32", "2026-01-19T12:00:00Z", "２026-01-19", "2026-01-19\n"],
    "INSTANT_OR_DAY_PATTERN": ["", "2026-01", "2026-01-19T", "2026-01-19T12:00", "2026-01-19T12:00:00", "2026-01-19\n"],
    "ZONE_PATTERN": ["", "/UTC", "../UTC", "Asia/", "Asia//Seoul", "Asia/../UTC", "1/2", "서울", "A/B/C/D", "UTC\n"],
    "ORDER_PATTERN": ["", "NEWEST", "newest ", "oldest\n"],
    "OUTCOME_PATTERN": ["", "failed", "success\n"],
    "SWITCH_PATTERN": ["", "TRUE", "1", "yes", "true\n", "falsetrue"],
    "QUEUE_CURSOR_PATTERN": ["", "0", "01", "o", "o0", "o01", "n1", "O1", f"o{'1' * 16}", "o１", "o1\n"],
    "AUDIT_CURSOR_PATTERN": ["", "1", "n", "n0", "n01", "x1", "N1", f"n{'1' * 16}", "n１", "n1\n"],
    "FOLLOW_PATTERN": ["", "-1", "01", "1" * 16, "1.0", "１", "1\n"],
    "DURATION_PATTERN": ["", "1H", "P1Y", "-PT1H", "pt1h", "PT1H\n", "PT١H", "P1000D"],
}


@pytest.mark.parametrize("name", PATTERNS)
def test_patterns_take_what_is_good_and_nothing_else(name: str) -> None:
    """By example; every pattern has some of both."""
    assert [text for text in GOOD[name] if not re.search(PATTERNS[name], text)] == []
    assert [text for text in BAD[name] if re.search(PATTERNS[name], text)] == []


def test_text_of_one_character_is_something_to_see() -> None:
    """Of all characters of the first plane that Unicode calls spaces, controls or formats, none is a text by itself."""
    taken = [character for character in map(chr, range(0xFFFF)) if re.search(fields.TEXT_PATTERN, character)]
    unseen = {"Cc", "Zs", "Zl", "Zp"}
    assert [hex(ord(c)) for c in taken if unicodedata.category(c) in unseen] == []
    formats = [c for c in taken if unicodedata.category(c) == "Cf"]
    assert all(unicodedata.bidirectional(c) in {"AN", "AL"} for c in some(formats))  # Arabic number signs can be seen
