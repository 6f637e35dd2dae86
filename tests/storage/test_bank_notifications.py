"""The deposits that a notification may be for: also the bot's, and never by reading the whole table."""

import re
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service import resources
from service.ledger.bank_notifications import (
    DEPOSITS_READ_MAX,
    NAMES_ASKED_MAX,
    BankNotificationFilter,
    Candidates,
    MatchMethod,
)
from service.ledger.depositor_names import announced, could_be_confused, could_be_meant, match_name, printed
from service.storage import (
    bank_notification_lists,
    bank_notifications,
    deposits,
    explanations,
    migrator,
    sequences,
    sqlite,
    transactions,
)
from tests.some import some

SINCE, NOW, UNTIL = "2026-01-18 12:00:00.000", "2026-01-19 12:00:00.000", "2026-01-20 12:00:00.000"


@pytest.fixture
def tx(tmp_path: Path) -> Iterator[sqlite.Connection]:
    """A migrated database with three users."""
    connection = sqlite.connect_writer(tmp_path / "p.db", busy_timeout_ms=0, checkpoints=True)
    migrator.up(connection, migrator.load(resources.folder("migrations")), lambda _: None)
    connection.execute("INSERT INTO users (telegram_id) VALUES ('1'), ('2'), ('3')")
    yield connection
    connection.close()


def announce(
    tx: sqlite.Connection, name: str, *, at: str = NOW, status: str = "pending", by_bot: bool = False, user: int = 1
) -> int:
    """A deposit of 5,000 won as Passbook or the bot announced it."""
    if by_bot:
        made = tx.execute(
            "INSERT INTO deposit_transactions (user_id, type, amount, depositor_name, created_at)"
            " VALUES (?, 'deposit', 5000, ?, ?)",
            (user, name, at),
        ).lastrowid
        assert made is not None
    else:
        made = sequences.next_ids(tx).transaction
        row = transactions.pending_row(
            made, user_id=user, amount=5000, depositor_name=name, match_name=match_name(name), now=at
        )
        transactions.insert_many(tx, [row])
    if status != "pending":
        tx.execute("UPDATE deposit_transactions SET status = ? WHERE id = ?", (status, made))
    return made


CHAIN = ["RECURSIVE STEP", "SCAN chain", "SEARCH r USING COVERING INDEX idx_transactions_reverses (reverses_id=?)"]
"""How a plan goes from a transaction to its reversal, and to the reversal of that: as far as there are any."""


def whole_tables(plan: list[str]) -> list[str]:
    """The steps of a query plan that read a whole table."""
    steps = "\n".join(plan).replace("\n".join(CHAIN), CHAIN[0]).splitlines()
    return [step for step in steps if step.startswith("SCAN") and "json_each" not in step and "CONSTANT" not in step]


def found(tx: sqlite.Connection, name: str) -> list[tuple[int, str, str]]:
    """(deposit, status, likeness) of the candidates for 5,000 won of this name."""
    return [(c.deposit_id, c.status, c.likeness.value) for c in candidates(tx, name).listed]


def candidates(tx: sqlite.Connection, name: str) -> Candidates:
    """The candidates for 5,000 won of this name."""
    return bank_notifications.candidates(tx, name, amount=5000, since=SINCE, until=UNTIL, field_width=14)


def test_the_bots_deposits_are_compared_by_the_same_folding(tx: sqlite.Connection) -> None:
    """Its rows have no folded name; one that is spelled otherwise is a candidate all the same, and so a rival."""
    ours = announce(tx, "홍길동")
    bots = announce(tx, unicodedata.normalize("NFD", "홍 길동"), by_bot=True)
    cut = announce(tx, "홍길", by_bot=True)
    other = announce(tx, "김", by_bot=True)
    assert found(tx, "홍길동") == [
        (ours, "pending", "same_name"),
        (bots, "pending", "same_name"),
        (cut, "pending", "truncated_name"),
        (other, "pending", "same_amount"),
    ]
    assert meant(tx, "홍길동") == [(ours, "pending"), (bots, "pending")]
    assert rivals(tx, "홍길동") == [ours, bots, cut]


def meant(tx: sqlite.Connection, name: str, *, occurred_at: str = NOW) -> list[tuple[int, str]]:
    """(deposit, status) of those that a line of 5,000 won with this name could mean."""
    line = printed(name, field_width=14)
    found = bank_notifications.meant(
        tx, line, amount=5000, since=SINCE, until=UNTIL, occurred_at=occurred_at, open_since=SINCE
    )
    return [(c.deposit_id, c.status) for c in found.deposits]


def rivals(tx: sqlite.Connection, name: str, *, user: str = "9") -> list[int]:
    """The deposits of 5,000 won that the user's announcement of this name would be confused with."""
    return bank_notifications.rivals(
        tx,
        amount=5000,
        name=announced(name, field_width=14),
        since=SINCE,
        until=UNTIL,
        field_width=14,
        telegram_id=user,
    )


def test_a_line_could_mean_whatever_it_begins_and_nothing_shorter(tx: sqlite.Connection) -> None:
    """Of ours and of the bot's, also where it was confirmed on another day than it was announced."""
    longer = announce(tx, "홍길동5678")
    bots = announce(tx, "홍 길동상사", by_bot=True)
    announce(tx, "홍길")
    announce(tx, "홍길", by_bot=True)
    late = announce(tx, "홍길동전", at="2026-01-09 12:00:00.000", user=1)
    confirm(tx, late)
    assert meant(tx, "홍길동") == [(longer, "pending"), (bots, "pending"), (late, "confirmed")]
    assert (late, "confirmed", "truncated_name") in found(tx, "홍길동")
    assert meant(tx, "홍길동") == meant(tx, "홍 길 동")
    assert meant(tx, "홍길순") == []
    assert late in rivals(tx, "홍길동")


def confirm(tx: sqlite.Connection, deposit: int) -> None:
    """Confirms it without a line, as the user's first movement."""
    tx.execute(
        "UPDATE deposit_transactions SET status = 'confirmed', confirmed_at = ?, balance_before = 0,"
        " balance_after = 5000, version = 1 WHERE id = ?",
        (NOW, deposit),
    )


def test_another_users_deposit_is_seen_behind_any_number_of_ones_own(tx: sqlite.Connection) -> None:
    """More of one user's than are ever listed, all of them before the rival; of those alone the oldest is read."""
    own = [announce(tx, "홍길동") for _ in range(25)]
    assert [deposit for deposit, _ in meant(tx, "홍길동")] == own[:1]
    rival = announce(tx, "홍길동전", user=2, at=UNTIL)
    assert {own[0], rival} <= {deposit for deposit, _ in meant(tx, "홍길동")}


def test_of_one_users_many_deposits_the_oldest_of_each_kind_is_read(tx: sqlite.Connection) -> None:
    """And the oldest of all, which is only begun, the oldest that is not cancelled, and the newest that is settled."""
    begun = announce(tx, "홍길동전")
    early = announce(tx, "홍길동", at="2026-01-18 12:00:00.000", status="expired")
    expired = [announce(tx, "홍길동", at="2026-01-18 12:00:00.001", status="expired") for _ in range(3)]
    pending = [announce(tx, "홍길동") for _ in range(3)]
    settled = [announce(tx, "홍길동") for _ in range(3)]
    for version, deposit in enumerate(settled):
        tx.execute(
            "UPDATE deposit_transactions SET status = 'confirmed', confirmed_at = ?, balance_before = ?,"
            " balance_after = ?, version = ? WHERE id = ?",
            (NOW, 5000 * version, 5000 * version + 5000, version + 1, deposit),
        )
    line = printed("홍길동", field_width=14)
    open_since = "2026-01-18 12:00:00.001"
    read = bank_notifications.meant(
        tx, line, amount=5000, since=SINCE, until=UNTIL, occurred_at=NOW, open_since=open_since
    )
    assert [deposit.deposit_id for deposit in read.deposits] == [
        begun, early, expired[0], pending[0], settled[0], settled[2],
    ]  # fmt: skip
    assert read.names == ["홍길동", "홍길동전"]
    assert bank_notifications.in_time(tx, read.deposits, open_since=open_since) == {expired[0]}


def test_the_rivals_are_few_however_many_there_are(tx: sqlite.Connection) -> None:
    """Of many deposits of many users two are read that tell of the ambiguity, not all of them."""
    for place in range(30):
        announce(tx, "홍길동", user=1 + place % 3)
    assert len(meant(tx, "홍길동")) <= 4


def test_a_cancelled_deposit_could_be_meant_by_money_that_came_before(tx: sqlite.Connection) -> None:
    """Of one that was cancelled before the money came nothing is left; the audit log says when it was."""
    cancelled = announce(tx, "홍길동", status="cancelled")
    tx.execute(
        "INSERT INTO audit_logs (user_id, telegram_id, action, outcome, resource_type, resource_id, created_at)"
        " VALUES (1, '1', 'deposit_cancelled', 'success', 'deposit_transaction', ?, ?)",
        (cancelled, NOW),
    )
    assert meant(tx, "홍길동", occurred_at=NOW) == [(cancelled, "cancelled")]
    assert meant(tx, "홍길동", occurred_at="2026-01-19 12:00:00.001") == []
    assert (found(tx, "홍길동"), rivals(tx, "홍길동")) == ([], [])


def test_ones_own_deposits_are_rivals_only_where_their_money_may_still_come(tx: sqlite.Connection) -> None:
    """A second equal announcement is warned of another user's, and of one's own that was confirmed without a line."""
    waits = announce(tx, "홍길동")
    assert (rivals(tx, "홍길동", user="1"), rivals(tx, "홍길동", user="2")) == ([], [waits])
    confirm(tx, waits)
    assert rivals(tx, "홍길동", user="1") == [waits]


def test_expired_deposits_are_candidates_and_cancelled_ones_are_not(tx: sqlite.Connection) -> None:
    """Late money may be for what has expired; for what was cancelled there is none."""
    expired = announce(tx, "홍길동", status="expired")
    announce(tx, "홍길동", status="cancelled")
    assert found(tx, "홍길동") == [(expired, "expired", "same_name")]


def test_the_window_and_the_amount_bound_the_candidates(tx: sqlite.Connection) -> None:
    """A millisecond before or after it, and any other amount, is none."""
    announce(tx, "홍길동", at="2026-01-18 11:59:59.999")
    announce(tx, "홍길동", at="2026-01-20 12:00:00.001")
    first = announce(tx, "홍길동", at="2026-01-18 12:00:00.000")
    last = announce(tx, "홍길동", at="2026-01-20 12:00:00.000")
    assert [deposit_id for deposit_id, _, _ in found(tx, "홍길동")] == [first, last]
    other = bank_notifications.candidates(tx, "홍길동", amount=5001, since=SINCE, until=UNTIL, field_width=14)
    assert other == Candidates([], 0, True)


ODD_SINCE, ODD_UNTIL = "2026-01-18 12:00:00.123", "2026-01-20 12:00:00.123"
EDGES = {
    "2026-01-18 12:00:00.122": False,
    ODD_SINCE: True,
    "2026-01-18 12:00:00.124": True,
    "2026-01-20 12:00:00.122": True,
    ODD_UNTIL: True,
    "2026-01-20 12:00:00.124": False,
}
"""Instant -> whether it belongs to the window: both of its ends do."""
ODD_WINDOW: dict[str, Any] = {"amount": 5000, "name": "홍길동", "since": ODD_SINCE, "until": ODD_UNTIL}


def line_at(tx: sqlite.Connection, at: str) -> None:
    """A line of 5,000 won that waits."""
    tx.execute(
        "INSERT INTO bank_notifications (bank_transaction_id, depositor_name, match_name, amount, transaction_time,"
        " status) VALUES (?, '홍길동', '홍길동', 5000, ?, 'unmatched')",
        (at, at),
    )


def late_at(tx: sqlite.Connection, at: str) -> None:
    """A deposit that was announced long before the window and confirmed at that moment, by whom no line is known."""
    made = announce(tx, "홍길동", at="2026-01-10 12:00:00.000")
    tx.execute(
        "UPDATE deposit_transactions SET status = 'confirmed', confirmed_at = ?, balance_before = 0,"
        " balance_after = 5000, version = 1 WHERE id = ?",
        (at, made),
    )


@pytest.mark.parametrize(
    ("put", "edges"),
    [
        (lambda tx, at: announce(tx, "홍길동", at=at), EDGES),
        (lambda tx, at: announce(tx, "홍길동", at=at, by_bot=True), EDGES),
        (line_at, EDGES),
        # What was confirmed late is a candidate from a window before its confirmation on, for ever.
        (late_at, {at: at >= ODD_SINCE for at in EDGES}),
    ],
    ids=["a deposit", "the bot's deposit", "a line", "a deposit confirmed late"],
)
def test_each_look_up_finds_what_lies_on_the_edges_of_the_window(
    tx: sqlite.Connection, put: Callable[[sqlite.Connection, str], object], edges: dict[str, bool]
) -> None:
    """One at a time: whether it is found as a candidate or an open line, and whether it is quiet, is one answer."""
    name = announced("홍길동", field_width=14)
    window: Any = {**ODD_WINDOW, "name": name}
    assert bank_notifications.is_quiet(tx, **window)
    for at, belongs in some(edges.items()):
        tx.execute("SAVEPOINT one")
        put(tx, at)
        line = printed("홍길동", field_width=14)
        looks = [
            bank_notifications.candidates(
                tx, "홍길동", amount=5000, since=window["since"], until=window["until"], field_width=14
            ).listed,
            bank_notifications.meant(
                tx,
                line,
                amount=5000,
                since=window["since"],
                until=window["until"],
                occurred_at=ODD_SINCE,
                open_since=ODD_SINCE,
            ).deposits,
            bank_notifications.rivals(tx, **window, field_width=14, telegram_id="9"),
        ]
        assert len({bool(look) for look in looks}) == 1, looks
        found = looks[0] or bank_notifications.list_open(tx, **window, field_width=14)
        quiet = bank_notifications.is_quiet(tx, **window)
        tx.execute("ROLLBACK TO one")
        tx.execute("RELEASE one")
        assert (bool(found), quiet) == (belongs, not belongs), at


def test_at_most_ten_candidates_are_listed_and_the_rest_is_counted(tx: sqlite.Connection) -> None:
    """A popular name stays readable: the same name comes first, then the oldest."""
    for place in range(6):
        announce(tx, "김철수")
        announce(tx, "홍길동전")
        announce(tx, "홍길동", status="pending" if place else "expired")
    likenesses = ["same_name"] * 6 + ["truncated_name"] * 4
    assert [alike for _, _, alike in found(tx, "홍길동")] == likenesses
    assert [deposit for deposit, _, _ in found(tx, "홍길동")] == [3, 6, 9, 12, 15, 18, 2, 5, 8, 11]
    assert (candidates(tx, "홍길동").more, candidates(tx, "홍길동").counted) == (8, True)


@pytest.mark.parametrize("printed_name", ["이몽룡", ""])
def test_what_is_open_of_the_amount_is_a_candidate_of_any_name(tx: sqlite.Connection, printed_name: str) -> None:
    """Also of a line without a name. What was confirmed without its line has to have a like name."""
    waits, expired = announce(tx, "홍길동"), announce(tx, "김철수", status="expired", user=2)
    announce(tx, "박하나", status="cancelled", user=2)
    confirm(tx, announce(tx, "최하나", user=3))
    assert found(tx, printed_name) == [(waits, "pending", "same_amount"), (expired, "expired", "same_amount")]


def test_a_deposit_whose_name_was_erased_is_like_nothing(tx: sqlite.Connection) -> None:
    """Who could be credited by it is nobody any more."""
    deposit = announce(tx, "홍길동")
    tx.execute("DROP TRIGGER deposit_transactions_keep_match_name")
    for (trigger,) in tx.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        tx.execute(f"DROP TRIGGER {trigger}")
    tx.execute("UPDATE deposit_transactions SET depositor_name = NULL, match_name = '' WHERE id = ?", (deposit,))
    assert (found(tx, "홍길동"), found(tx, "")) == ([], [])


def test_of_ten_thousand_deposits_of_one_amount_a_limited_number_is_read(tx: sqlite.Connection) -> None:
    """The likely names are found behind all others, in the order of their likeness; the rest is told as more than."""
    at = ["2026-01-18 23:00:00.000"] * 5000 + [NOW] * 5000
    rows = [
        transactions.pending_row(
            place, user_id=1, amount=5000, depositor_name=f"가{place}", match_name=f"가{place}", now=moment
        )
        for place, moment in enumerate(at, 1)
    ]
    transactions.insert_many(tx, rows)
    names = ("홍길동", "홍길동전", "(주)홍길동", "홍길동", "홍길")
    same, longer, corporate, again, shorter = (announce(tx, name) for name in names)
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    tx.set_progress_handler(step, 1)
    there = candidates(tx, "홍길동")
    tx.set_progress_handler(None, 1)
    assert [one.deposit_id for one in there.listed[:5]] == [same, again, longer, corporate, shorter]
    assert [one.likeness for one in there.listed[5:]] == ["same_amount"] * 5
    assert (there.counted, there.more) == (False, DEPOSITS_READ_MAX - 5)
    assert steps < 60 * DEPOSITS_READ_MAX
    assert [alike for _, _, alike in found(tx, "국민홍길동")[:2]] == ["decorated_name"] * 2


class Counted:
    """A transaction that counts the rows that leave SQLite, and the steps of its virtual machine."""

    def __init__(self, tx: sqlite.Connection) -> None:
        self.tx = tx
        self.rows = self.steps = 0

    def execute(self, sql: str, parameters: Any = ()) -> "Counted":
        """Reads all rows at once."""
        self.found = iter(self.tx.execute(sql, parameters).fetchall())
        return self

    def __iter__(self) -> Iterator[Any]:
        for row in self.found:
            self.rows += 1
            yield row

    def fetchall(self) -> list[Any]:
        return list(self)

    def fetchone(self) -> Any:
        return next(iter(self), None)

    def close(self) -> None:
        """Nothing is left open."""

    def step(self) -> int:
        """STEPS_COUNTED of them went by."""
        self.steps += 1
        return 0


MANY = 2_000
STEPS_COUNTED = 100
STEPS_OF_A_DEPOSIT_MAX = 60
OF_MANY: dict[str, tuple[Callable[[int], str], str, bool]] = {
    "one name of many users": (lambda _: "홍길동", "홍길동", False),
    "one name of many users of the bot": (lambda _: "홍 길동", "홍길동", True),
    "names that the bank cuts": (lambda n: f"주식회사가나다{n:05}", "주식회사가나다", False),
    "names with one beginning": (lambda n: f"김{n:05}", "김", False),
    "the bot's names with one beginning": (lambda n: f"김{n:05}", "김", True),
    "another name each": (lambda n: f"가{n:05}", "가00007", False),
    "another name each, of the bot": (lambda n: f"가{n:05}", "가00007", True),
    "none of them": (lambda n: f"가{n:05}", "성춘향", True),
}
"""How thousands of deposits of one amount are named, what is printed, and whether they are the bot's."""


@pytest.mark.parametrize("kind", OF_MANY)
@pytest.mark.long
def test_of_thousands_of_deposits_of_one_amount_few_leave_sqlite(tx: sqlite.Connection, kind: str) -> None:
    """To judge a line and to warn of a collision takes few rows and a bounded walk, whatever they are named. Those of
    other amounts cost nothing."""
    name_of, name, by_bot = OF_MANY[kind]
    tx.executemany(
        "INSERT INTO deposit_transactions (id, user_id, type, direction, amount, depositor_name, match_name,"
        f" created_at) VALUES (?, ?, 'deposit', 'credit', ?, ?, ?, '{NOW}')",
        [
            (n, n % 3 + 1, amount, name_of(n), None if by_bot else match_name(name_of(n)))
            for first, amount in ((0, 5000), (MANY, 6000))
            for n in range(first + 1, first + MANY + 1)
        ],
    )
    counted: Any = Counted(tx)
    tx.set_progress_handler(counted.step, STEPS_COUNTED)
    line = printed(name, field_width=14)
    key: Any = {"amount": 5000, "since": SINCE, "until": UNTIL}
    meant = bank_notifications.meant(counted, line, occurred_at=NOW, open_since=SINCE, **key)
    rows, steps = counted.rows, counted.steps
    warned = bank_notifications.rivals(
        counted, name=announced(name, field_width=14), field_width=14, telegram_id="9", **key
    )
    tx.set_progress_handler(None, 1)
    assert len(meant.deposits) == (0 if kind == "none of them" else 1 if name.endswith("7") else 2)
    assert bool(warned) is (kind != "none of them")
    assert rows <= 20
    assert counted.rows - rows <= 60
    assert steps * STEPS_COUNTED < STEPS_OF_A_DEPOSIT_MAX * MANY
    assert (counted.steps - steps) * STEPS_COUNTED < STEPS_OF_A_DEPOSIT_MAX * MANY


def test_a_name_of_one_letter_is_looked_for_like_any_other(tx: sqlite.Connection) -> None:
    """It begins with nothing shorter; SQLite refuses a named index where a list is empty."""
    one: Any = {"amount": 5000, "name": announced("홍", field_width=14), "since": SINCE, "until": UNTIL}
    assert bank_notifications.is_quiet(tx, **one)
    assert bank_notifications.list_open(tx, field_width=14, **one) == []
    deposit = announce(tx, "홍", user=2)
    assert not bank_notifications.is_quiet(tx, **one)
    assert bank_notifications.rivals(tx, field_width=14, telegram_id="1", **one) == [deposit]


def test_of_one_users_many_names_a_hundred_and_one_are_asked_for(tx: sqlite.Connection) -> None:
    """More are not looked for among the lines: a person looks."""
    for number in range(150):
        announce(tx, f"홍길동{number:03}")
    line = printed("홍길동", field_width=14)
    key: Any = {"amount": 5000, "since": SINCE, "until": UNTIL}
    read = bank_notifications.meant(tx, line, occurred_at=NOW, open_since=SINCE, **key)
    assert len(read.names) == NAMES_ASKED_MAX + 1


@pytest.mark.parametrize(
    "printed_name", ["홍길동", "홍", "kim", "W", "가가", "~", "홍길동전자서비스", "kimabcdefghijklmno", "홍나"]
)
def test_of_the_bots_deposits_sql_leaves_out_none_that_could_be_meant(tx: sqlite.Connection, printed_name: str) -> None:
    """However they are spelled: SQL folds plain names alone, and every other one is compared as ours are."""
    names = [
        *(
            "홍길동",
            "홍 길동",
            "홍\0길동",
            "\0홍길동",
            "홍길동전자",
            unicodedata.normalize("NFD", "홍길동"),
            "홍\u2060길동",
        ),
        *("KIM", "K im", "ＫＩＭ", "ｗ", "Ｗ", "W\0", "w ~", "~", "", "가\t가", "가　가", "각가", "kimabcdefghijkl"),
        *("홍                길동", "홍길 동전자서비스", "홍길동전자서비스"),
    ]
    made = {announce(tx, name, by_bot=True): name for name in names}
    line = printed(printed_name, field_width=14)
    key: Any = {"amount": 5000, "since": SINCE, "until": UNTIL}
    read = bank_notifications.meant(tx, line, occurred_at=NOW, open_since=SINCE, **key)
    could_be = {one for one, name in made.items() if could_be_meant(line, match_name(name)) is not None}
    assert {one.deposit_id for one in read.deposits} == could_be
    name = announced(printed_name, field_width=14)
    warned = bank_notifications.rivals(tx, name=name, field_width=14, telegram_id="9", **key)
    confused = {one for one, other in made.items() if could_be_confused(name, announced(other, field_width=14))}
    assert set(warned) == confused


def test_quiet_means_that_nothing_at_all_fits(tx: sqlite.Connection) -> None:
    """The short question of every announcement never misses a deposit or a notification, of ours or of the bot's."""

    def is_quiet(name: str) -> bool:
        whole = announced(name, field_width=14)
        return bank_notifications.is_quiet(tx, amount=5000, name=whole, since=SINCE, until=UNTIL)

    assert is_quiet("홍길동")
    announce(tx, "홍길동")
    announce(tx, "주식회사가나다라마")
    assert [is_quiet(name) for name in ("홍길동", "홍길", "홍길동전", "주식회사가나다바")] == [False] * 4
    assert is_quiet("홍길순")
    assert is_quiet("주식회사가나라")
    for place, name in enumerate(("김철수", "김철수")):
        tx.execute(
            "INSERT INTO bank_notifications (depositor_name, match_name, amount, transaction_time, bank_transaction_id)"
            " VALUES (?, ?, 5000, ?, ?)",
            (name, match_name(name), NOW, str(place)),
        )
    assert [is_quiet(name) for name in ("김철수", "김철수산", "김철")] == [False, False, True]
    announce(tx, "누구", by_bot=True)
    assert not is_quiet("홍길순")


def test_a_notification_of_the_bot_shows_what_it_holds(tx: sqlite.Connection) -> None:
    """Odd times and missing names are shown, not refused; its candidates are those of today's rules."""
    deposit = announce(tx, "홍길동")
    tx.execute(
        "INSERT INTO bank_notifications (depositor_name, amount, transaction_time, created_at) VALUES"
        " ('홍길동', 5000, '2026-01-19 12:00:00', '2026-01-19 12:00:00'), (NULL, 5000, NULL, NULL),"
        " ('홍길동', 5000, 'yesterday', '2026-01-19 12:00:00')"
    )
    wanted = BankNotificationFilter(status="unmatched")
    page = bank_notification_lists.find_page(tx, wanted, window_s=86400, field_width=14, after=2**53, limit=10)
    odd, unnamed, plain = page.items
    assert (odd.occurred_at, odd.candidates) == ("yesterday", [])
    assert (unnamed.depositor_name, unnamed.occurred_at, unnamed.candidates) == (None, None, [])
    assert (plain.occurred_at, plain.bank_transaction_id) == ("2026-01-19T12:00:00Z", None)
    assert [c.deposit_id for c in plain.candidates] == [deposit]


def test_the_line_that_passbook_matched_stands_before_the_bots(tx: sqlite.Connection) -> None:
    """Of two lines of the bot's on one deposit, the deposit and its explanation name the one that was matched here,
    also when the bot's own has the higher id."""
    deposit = announce(tx, "홍길동")
    tx.execute(
        "UPDATE deposit_transactions SET status = 'confirmed', confirmed_at = ?, balance_before = 0,"
        " balance_after = 5000, version = 1",
        (NOW,),
    )
    tx.execute(
        "INSERT INTO bank_notifications (id, depositor_name, amount, status, matched_transaction_id)"
        " VALUES (1, '홍길동', 5000, 'unmatched', NULL), (2, '홍길동', 5000, 'matched', ?)",
        (deposit,),
    )
    bank_notifications.match(tx, notification_id=1, deposit_id=deposit, method=MatchMethod.MANUAL, actor="ops", now=NOW)
    shown = deposits.find(tx, deposit)
    assert shown is not None
    assert (shown.matched_bank_notification_id, bank_notifications.find_of_deposit(tx, deposit)) == (1, 1)
    (cause,) = explanations.list_versions(tx, 1, version_max=1, limit=2)
    assert cause.bank_notification is not None
    assert (cause.bank_notification.id, cause.bank_notification.matched_by) == (1, "ops")


@pytest.mark.parametrize(
    "statement",
    [
        *(
            "_SAME_NAME",
            "_OF_THE_BOT",
            "_LONGER_NAME",
            "_LIKELY_NAME",
            "_LIKELY_NAME_LATE",
            "_QUIET",
            "_SAME_NAME_LATE",
            "_OF_THE_BOT_LATE",
        ),
        *(
            "_LONGER_NAME_LATE",
            "_EMPTY_AROUND",
            *(f"_MEANT {n}" for n in range(2)),
            *(f"_MEANT_NAMES {n}" for n in range(2)),
            *(f"_OF_THE_BOT_MEANT {n}" for n in range(2)),
            *(f"_RIVALS {n}" for n in range(4)),
            *(f"_RIVALS_OF_THE_BOT {n}" for n in range(2)),
        ),
    ],
)
def test_no_look_up_reads_a_whole_table(tx: sqlite.Connection, statement: str) -> None:
    """Every step is a search by an index that bounds amount and name, however many deposits there are."""
    name, _, place = statement.partition(" ")
    found = getattr(bank_notifications, name)
    sql = bank_notifications._filled_in(
        found[int(place)] if place else found, bank_notifications._days(SINCE, UNTIL), 3
    )
    parameters = dict.fromkeys(re.findall(r":(\w+)", sql), "1")
    plan = [row[3] for row in tx.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)]
    assert not whole_tables(plan), plan
    of_deposits = [step for step in plan if "idx_transactions_match" in step]
    assert of_deposits
    wanted = re.compile(
        r"match \(<expr>=\? AND amount=\? AND match_name|match_late \(amount=\? AND match_name(=\? AND conf|>\? AND m)"
    )
    assert all(wanted.search(step) for step in some(of_deposits)), plan


@pytest.mark.parametrize("name", ["_LEARNED_MEANT", "_LEARNED_CANDIDATES", "_LEARNED_RIVALS", "_LEARNED_AROUND"])
@pytest.mark.parametrize("place", [0, 1])
def test_the_deposits_of_whom_a_name_was_learned_are_found_by_their_user(
    tx: sqlite.Connection, name: str, place: int
) -> None:
    """The names by their index, and then the deposits of these few users alone."""
    statement = getattr(bank_notifications, name)[place]
    sql = bank_notifications._filled_in(statement, bank_notifications._days(SINCE, UNTIL), 3)
    plan = [row[3] for row in tx.execute(f"EXPLAIN QUERY PLAN {sql}", dict.fromkeys(re.findall(r":(\w+)", sql), "1"))]
    assert not whole_tables(plan), plan
    assert [
        step for step in plan if re.search(r"t USING INDEX idx_transactions_user \(user_id=\? AND created_at[<>]", step)
    ]
    assert [
        step for step in plan if re.search(r"learned_names USING .*INDEX idx_learned_names_name \(match_name", step)
    ]


def test_of_many_of_the_same_name_only_the_oldest_are_read(tx: sqlite.Connection) -> None:
    """They come in the order of the index: nothing is sorted, so that thousands cost no more than ten."""
    sql = bank_notifications._SAME_NAME.format(days=bank_notifications._days(SINCE, UNTIL))
    parameters = dict.fromkeys(re.findall(r":(\w+)", sql), "1")
    assert not [row[3] for row in tx.execute(f"EXPLAIN QUERY PLAN {sql}", parameters) if "TEMP B-TREE" in row[3]]
    later = announce(tx, "홍길동")
    before = announce(tx, "홍길동", at=SINCE)
    names = {"amount": 5000, "name": "홍길동", "since": SINCE, "until": UNTIL, "limit": 1}
    found = tx.execute(bank_notifications._SAME_NAME.format(days=bank_notifications._days(SINCE, UNTIL)), names)
    assert (later, [row[0] for row in found.fetchall()]) == (1, [before])


@pytest.mark.parametrize(
    "other",
    [
        {"amount": 4999},
        {"match_name": "김"},
        {"transaction_time": "2026-01-18 11:59:59.999"},
        {"transaction_time": "2026-01-20 12:00:00.001"},
        {"status": "matched"},
        {"closed_as": "dismissed"},
        {"closed_as": "cancelled"},
        {"bank_transaction_id": None},
    ],
    ids="-".join,
)
@pytest.mark.long
def test_what_waits_is_of_the_name_and_the_amount_within_the_window(
    tx: sqlite.Connection, other: dict[str, object]
) -> None:
    """A line that differs in one thing, or is settled, is none; both ends of the window are within it."""
    for (trigger,) in tx.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        tx.execute(f"DROP TRIGGER {trigger}")
    usual = {"depositor_name": "홍길동", "amount": 5000, "match_name": "홍길동", "status": "unmatched"}
    # The other first: only the first two are asked for.
    for number, line in enumerate((other, {"transaction_time": SINCE}, {"transaction_time": UNTIL}), 1):
        row: dict[str, object] = {
            "id": number,
            "bank_transaction_id": f"B-{number}",
            "transaction_time": NOW,
            **usual,
            **line,
        }
        names, places = ", ".join(row), ", ".join("?" * len(row))
        tx.execute(f"INSERT INTO bank_notifications ({names}) VALUES ({places})", [*row.values()])
    name = announced("홍길동", field_width=14)
    waiting = bank_notifications.list_open(tx, amount=5000, name=name, since=SINCE, until=UNTIL, field_width=14)
    assert [line.id for line in waiting] == [2, 3]


def test_waiting_notifications_are_found_by_index(tx: sqlite.Connection) -> None:
    """Those that are settled are not even looked at."""
    parameters = {"amount": 1, "name": "a", "since": SINCE, "until": UNTIL, "b0": "a"}
    searched = "(amount=? AND match_name=? AND transaction_time>? AND transaction_time<?)"
    wanted = [f"SEARCH bank_notifications USING INDEX idx_bank_notifications_waiting {searched}"]
    for of_name in some(bank_notifications._OPEN):
        sql = bank_notifications._filled_in(f"SELECT id FROM {of_name}", "", 1)
        assert [row[3] for row in tx.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)] == wanted
