"""Many callers at the same money and the same key; callers that hang up, and a lock that somebody else holds."""

import asyncio
import contextlib
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tests.faults import lies, one_order
from tests.faults.journal import Journal, Load, check
from tests.faults.row import Row, Run
from tests.faults.variants import FORGETFUL, variant
from tests.faults.wire import Answer, Connection, NoAnswer, Request, at_once
from tests.ledger_check import broken_invariants
from tests.live import LiveService

DEBTORS = 100
SAME = 50
RETRIES = 1000
TWICE = "a retry is carried out again"
OVERDRAWN = "the last won is spent twice"


def _debit(user: str, amount: int, key: str, reason: str = "race", request_id: str | None = None) -> Request:
    return Request("/v1/debits", json.dumps({"telegram_id": user, "amount": amount, "reason": reason}), key, request_id)


def _all(live: LiveService, asked: Sequence[tuple[Request, str]]) -> list[Answer]:
    return asyncio.run(at_once(live.url, asked))


def _balance(live: LiveService, user: str) -> int:
    balance: int = live.client().get(f"/v1/users/{user}/balance").json()["balance"]
    return balance


def _rows(live: LiveService, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(f"{live.database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(sql, parameters).fetchall()


def last_won(run: Run) -> None:
    """In each round 100 callers debit the last won: exactly one has it."""
    live = LiveService(run.folder / "passbook.db").start()
    rounds = 0
    while run.goes_on(rounds):
        user = f"30{rounds}"
        live.client().credit(user, 1)
        answers = _all(live, [(_debit(user, 1, f"last-{rounds}-{n}"), live.admin_key) for n in range(DEBTORS)])
        run.broken += _not_one_winner(answers, _balance(live, user), rounds)
        run.count("debits", DEBTORS)
        run.count("rounds")
        run.count("successes", sum(answer.status == 201 for answer in answers))
        rounds += 1
    run.must(live.stop(code=None) == 0, live.said[-500:])
    run.broken += broken_invariants(live.database)
    forged = [Answer(201, {}, b"{}"), Answer(201, {}, b"{}"), *answers[2:]]
    run.mutant(OVERDRAWN, bool(_not_one_winner(forged, -1, 0)))


def _not_one_winner(answers: Sequence[Answer], balance: int, number: int) -> list[str]:
    found = Counter(answer.status for answer in answers)
    if found == {201: 1, 409: len(answers) - 1} and balance == 0:
        return []
    return [f"round {number}: {dict(found)}, and the balance is {balance}"]


def one_order_of_four(run: Run) -> None:
    """Two lines and two announcements of one amount in each round: some order of the four explains what came."""
    live = LiveService(run.folder / "passbook.db").start()
    track = one_order.Track(live, run.chance("one order"), first_user=330_000_000)
    for taught in (False, True):
        races = [race for race, teaches in one_order.TEACHING.items() if teaches is taught]
        part, rounds = run.part(0.5, run.at_least // 2), 0
        while part.goes_on(rounds):
            outcome = track.run(races[rounds % len(races)])
            if not one_order.orders_that_explain(outcome):
                run.broken.append(one_order.unexplained(outcome))
            for lie in one_order.LIES:
                told = one_order.lied_about(outcome, lie)
                if told is not None:
                    run.mutant(lie, not one_order.orders_that_explain(told))
            run.count("requests", len(outcome.asked))
            run.count("rounds")
            rounds += 1
    run.must(live.stop(code=None) == 0, live.said[-500:])
    run.broken += broken_invariants(live.database)


def same_key(run: Run) -> None:
    """One request, again and again: at once, one after the other, changed, and by somebody else."""
    live = LiveService(run.folder / "passbook.db").start()
    rounds = 0
    while run.goes_on(rounds):
        _same_key_once(run, live, f"31{rounds}", f"same-{rounds}", retries=RETRIES if rounds == 0 else SAME)
        rounds += 1
    run.must(live.stop(code=None) == 0, live.said[-500:])
    run.broken += broken_invariants(live.database)
    mutant = LiveService(run.folder / "mutant.db", environment=variant(run.folder / "variant", [FORGETFUL])).start()
    shadow = Run(run.folder, run.seed, 0, 0)
    try:
        _same_key_once(shadow, mutant, "319", "same", retries=1)
    except (NoAnswer, KeyError, AssertionError):
        shadow.broken.append("no answer")
    mutant.kill()
    run.mutant(TWICE, bool(shadow.broken))


def _same_key_once(run: Run, live: LiveService, user: str, key: str, *, retries: int) -> None:
    live.client().credit(user, 10_000)
    asked = (_debit(user, 10, key), live.admin_key)
    answers = _all(live, [asked] * SAME)
    bodies = {(answer.status, answer.body) for answer in answers}
    executed = sum("idempotency-replayed" not in answer.headers for answer in answers)
    run.must(
        len(bodies) == 1 and executed == 1, f"{key}: {SAME} at once got {len(bodies)} answers, {executed} executed"
    )

    async def again() -> set[tuple[int, bytes]]:
        connection = await Connection.open(live.url)
        found = {(a.status, a.body) for a in [await connection.ask(*asked) for _ in range(retries)]}
        await connection.close()
        return found

    run.must(asyncio.run(again()) == bodies, f"{key}: a retry got another answer")
    changed = _all(live, [(_debit(user, 11, key, "other"), live.admin_key)])[0]
    run.must(changed.status == 409 and changed.json().get("differing_fields") == ["amount", "reason"],
             f"{key}: with another body: {changed.status} {changed.body[:200]!r}")  # fmt: skip
    other = live.make_key("--role", "service")
    theirs = _all(live, [(_debit(user, 10, key), other)])[0]
    run.must(theirs.status == 201 and theirs.body not in {body for _, body in bodies},
             f"{key}: another caller's request of the same key: {theirs.status}")  # fmt: skip
    run.must(_balance(live, user) == 9980, f"{key}: the balance is {_balance(live, user)}, not 9980")
    run.count("requests of one key", SAME + retries + 1)
    run.count("effects of one key", executed)
    run.count("rounds")


def disconnects(run: Run) -> None:
    """RST after k bytes, k swept; RST at any moment after the request was sent: the writer is never left half-way."""
    live = LiveService(run.folder / "passbook.db").start()
    user = "3200"
    live.client().credit(user, 1_000_000)
    whole = _debit(user, 1, "torn").encoded(live.admin_key)
    chance = run.chance("disconnects")
    asked: list[Request] = []
    rounds = 0

    async def tear(length: int) -> None:
        connection = await Connection.open(live.url)
        await connection.send(whole[:length])
        connection.reset()

    async def leave(request: Request, seconds: float) -> None:
        connection = await Connection.open(live.url)
        await connection.send(request.encoded(live.admin_key))
        if chance.random() < 0.5:
            await asyncio.sleep(seconds)
            connection.reset()
            return
        with contextlib.suppress(TimeoutError, NoAnswer):  # the one who waits is cancelled at one of its awaits
            await asyncio.wait_for(connection.receive(), seconds)
        connection.reset()

    async def some(number: int) -> None:
        lengths = [1 + (number * 16 + n) % (len(whole) - 1) for n in range(16)]
        requests = [_debit(user, 1, f"left-{number}-{n}") for n in range(16)]
        asked.extend(requests)
        await asyncio.gather(*(tear(length) for length in lengths),
                             *(leave(request, chance.random() * 0.02) for request in requests))  # fmt: skip
        run.count("resets within a request", len(lengths))
        run.count("resets after a request", len(requests))

    while run.goes_on(rounds):
        asyncio.run(some(rounds))
        probe = live.client().write("/v1/debits", {"telegram_id": user, "amount": 1, "reason": "probe"})
        run.must(probe.status_code == 201, f"after {rounds} rounds a debit is answered {probe.status_code}")
        rounds += 1
    done = {key for (key,) in _rows(live, "SELECT idempotency_key FROM idempotency_answers")}
    run.count("unknown", len(asked))
    run.figures["unknown, done"] = sum(request.key in done for request in asked)
    run.must("torn" not in done, "a request that was torn before its end is carried out")
    for start in range(0, len(asked), 64):
        part = [(request, live.admin_key) for request in asked[start : start + 64]]
        first, second = _all(live, part), _all(live, part)
        run.must([a.body for a in first] == [a.body for a in second], "a replay got another answer")
        run.must({a.status for a in first} == {201}, f"replays: {Counter(a.status for a in first)}")
    expected = 1_000_000 - len(asked) - rounds
    run.must(_balance(live, user) == expected, f"the balance is {_balance(live, user)}, not {expected}")
    run.must(live.stop(code=None) == 0, live.said[-500:])
    run.must("Traceback" not in live.said, live.said[-500:])
    run.broken += broken_invariants(live.database)


def locked(run: Run) -> None:
    """Another process holds the write lock: those who wait are answered late, then told to come again; nothing half."""
    live = LiveService(run.folder / "passbook.db", environment={"PASSBOOK_BUSY_TIMEOUT_MS": "2000"}).start()
    held_s = [0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 30.0]
    with Journal.opened(run.folder / "journal") as journal:
        for number, seconds in enumerate(held_s):
            if not run.goes_on(number) or (number >= run.at_least and run.seconds_left() < 1.5 * seconds):
                break
            _locked_once(run, live, journal, seconds, number)
        run.found(check(live.database, journal, live, actor="first-admin", api_key=live.admin_key), "after the locks")
        run.must(live.stop(code=None) == 0, live.said[-500:])
        lies.tell(run, live.database, journal.entries, actor="first-admin")


def _locked_once(run: Run, live: LiveService, journal: Journal, seconds: float, number: int) -> None:
    async def work() -> float:
        """Returns how long the lock was held: a loaded machine gives it back late."""
        load = Load(journal, url=live.url, api_key=live.admin_key, seed=run.seed, clients=16, name=f"lock{number}")
        with contextlib.closing(sqlite3.connect(live.database, isolation_level=None, timeout=30)) as other:
            clients = asyncio.create_task(load.run(count=40))
            await asyncio.sleep(0.05)
            other.execute("BEGIN IMMEDIATE")
            since = time.monotonic()
            await asyncio.sleep(seconds)
            other.execute("ROLLBACK")
            held_s = time.monotonic() - since
        await clients
        return held_s

    began = time.monotonic()
    before = len(journal.entries)
    held_s = asyncio.run(work())
    entries = list(journal.entries.values())[before:]
    attempts = [a for entry in entries for a in entry.attempts if a.status is not None]
    refused = [a for a in attempts if a.status == 503]
    codes = {json.loads(a.answer or b"{}").get("code") for a in refused}
    run.must(codes <= {"database_busy", "overloaded"}, f"locked for {seconds} s: {codes}")
    run.must(bool(refused) == (held_s > 2.5) or 1.5 < held_s < 2.5 or time.monotonic() - began > seconds + 20,
             f"locked for {held_s:.1f} s: {len(refused)} refusals")  # fmt: skip
    run.count("locks held")
    run.count("seconds held", seconds)
    run.count("database_busy, not done", len(refused))


ROWS = (
    Row(
        "last-won",
        "100 clients debit the last won, x1,000",
        "the harness",
        share=0.06,
        at_least=20,
        inject=last_won,
        mutants=(OVERDRAWN,),
    ),
    Row(
        "one-order",
        "two bank lines and two announcements of one amount at once, x1,000",
        "the harness",
        share=0.06,
        at_least=1000,
        inject=one_order_of_four,
        mutants=tuple(one_order.LIES),
    ),
    Row(
        "same-key",
        "same key: 50 at once, 1,000 retries, changed body, other caller",
        "the harness",
        share=0.03,
        at_least=2,
        inject=same_key,
        mutants=(TWICE,),
    ),
    Row(
        "disconnects",
        "client disconnects / cancellation at each await",
        "RST after k bytes, wait_for sweep",
        share=0.04,
        at_least=12,
        inject=disconnects,
    ),
    Row(
        "locked",
        "another process holds the write lock 0.1–30 s",
        "sqlite3",
        share=0.05,
        at_least=4,
        inject=locked,
        mutants=tuple(lies.LIES),
    ),
)
