"""Logs sealed as the service seals them, for tests."""

from collections.abc import Callable, Collection, Sequence
from hashlib import sha256
from typing import Any

from service.ledger.audit_chain import NO_LEAF, Frontier, commitment, leaf_hash, public_details
from service.ledger.audit_export import header_line, row_line
from service.ledger.sealing_rules import FIRST_RULE, LATEST

TELEGRAM_ID, DETAILS, RESOURCE_TYPE, ACTOR = 5, 6, 8, 11
"""Where they are in COLUMNS."""


def rule_at(index: int) -> int:
    """The rule that `sealed_rows` seals a row by: a few rows of each, and then again."""
    return FIRST_RULE + index // 3 % (LATEST - FIRST_RULE + 1)


def sealed_rows(
    rows: Sequence[Sequence[Any]], erased: Collection[int] = (), rules: Callable[[int], int] = rule_at
) -> list[list[Any]]:
    """`rows` of COLUMNS with what they are sealed with; the personal values of those at `erased` are gone."""
    out, previous = [], NO_LEAF
    for index, row in enumerate(rows):
        salt = sha256(b"salt %d" % index).digest()[:16]
        details = row[DETAILS]
        committed = commitment(salt, row[TELEGRAM_ID], details)
        rule = rules(index)
        shown = public_details(details, rule=rule, resource_type=row[RESOURCE_TYPE], actor=row[ACTOR])
        public = None if shown is None else sha256(shown.encode()).digest()
        leaf = leaf_hash(previous, committed, public, row, rule=rule)
        if index in erased:
            left = [*row]
            left[TELEGRAM_ID], left[DETAILS] = None, details if shown is None else shown
            out.append([index, *left, None, public, committed, rule, leaf])
        else:
            out.append([index, *row, salt, public, None, rule, leaf])
        previous = leaf
    return out


def usual_rows(count: int) -> list[list[Any]]:
    """Rows of COLUMNS like those of a busy service."""
    return [
        [
            1 + index,
            index % 7,
            None if index % 5 == 0 else index,
            f"2026-01-19 12:00:{index % 60:02}.000",
            f"request-{index}",
            str(10**8 + index),
            '{"amount":5,"depositor_name":"홍길동"}' if index % 2 else '{"amount":5}',
            "deposit_confirmed",
            "deposit_transaction",
            "10.0.0.1",
            None,
            "bot",
            "pbk_3fJ9a2Qx",
            "success",
        ]
        for index in range(count)
    ]


def frontier_of(log: Sequence[Sequence[Any]]) -> Frontier:
    """The frontier of the leaves of `log`."""
    frontier = Frontier()
    for row in log:
        frontier.append(row[-1])
    return frontier


def export_lines(log: Sequence[Sequence[Any]], first_index: int = 0) -> list[bytes]:
    """The sealed export of `log` from a leaf on."""
    before = log[:first_index]
    header = header_line(first_index, before[-1][-1] if before else NO_LEAF, frontier_of(before).roots)
    return [header, *map(row_line, log[first_index:])]
