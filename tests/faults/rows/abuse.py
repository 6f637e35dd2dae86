"""Input that nobody should send, slow clients, and connections that say nothing: nothing moves, nothing grows."""

import asyncio
import contextlib
import random
import resource
import time
from collections import Counter
from pathlib import Path

from tests.contents import contents
from tests.faults.row import Row, Run
from tests.faults.wire import Connection, NoAnswer, Request
from tests.live import LiveService
from tests.waiting import until

IDLE = 5000
GROWTH_MAX_MIB = 200
AMOUNTS = (
    "0",
    "-1",
    "9007199254740993",
    "9223372036854775808",
    "1" + "0" * 5000,
    "1e3",
    "1.5",
    "true",
    '"1"',
    "NaN",
    "1e400",
    "-0",
    "1e-99999999999999999999",
    "0e99999999999999999999",
    "Infinity",
    "null",
    "[]",
    "{}",
    "01",
    "0x10",
    "1_000",
    "１",
    "1.0000000000000000000000001",
)
"""As they stand in the JSON text."""
TEXTS = (
    "a\\u0000b",
    "\\ud800",
    "\\u202etxt",
    "'; DROP TABLE users; --",
    '\\" OR 1=1 --',
    "x" * 100_000,
    "e\\u0301\\u0301" * 400,
    "%00",
    "${7*7}",
    "../../etc/passwd",
    "\\r\\nSet-Cookie: a=b",
)
SEEN = "a row that abuse has left"


def inject(run: Run) -> None:
    """All of it against one service; what it holds is compared with what it held."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    live = LiveService(run.folder / "passbook.db").start()
    assert live.process is not None
    live.client().credit("4100", 1000)
    asyncio.run(_odd_bodies(run, live))
    before = _money(live)
    memory, descriptors = _memory_mib(live), _descriptors(live)
    rounds = 0
    while run.goes_on(rounds):
        asyncio.run(_odd_bodies(run, live))
        asyncio.run(_odd_bytes(run, live, run.chance(rounds)))
        rounds += 1
    run.must(_money(live) == before, "abuse has moved money or made a transaction")
    asyncio.run(_idle(run, live))
    until(lambda: _descriptors(live) <= descriptors + 20, "descriptors are free again", every_s=0.1)
    run.figures["MiB before"], run.figures["MiB after"] = memory, _memory_mib(live)
    run.figures["descriptors before"], run.figures["descriptors after"] = descriptors, _descriptors(live)
    run.must(_memory_mib(live) < memory + GROWTH_MAX_MIB, f"memory grew from {memory} to {_memory_mib(live)} MiB")
    run.must(_descriptors(live) <= descriptors + 20, f"descriptors grew from {descriptors} to {_descriptors(live)}")
    live.client().credit("4100", 1)
    run.mutant(SEEN, _money(live) != before)
    run.must(live.stop(code=None) == 0, live.said[-500:])
    run.must("Traceback" not in live.said, "abuse left a traceback in the log: " + live.said[-800:])


def _money(live: LiveService) -> list[str]:
    """What must be as it was: everything but the audit log, the stored answers and what seals them."""
    return [
        line
        for line in contents(live.database)
        if line.startswith(('INSERT INTO "user_deposits"', 'INSERT INTO "deposit_transactions"'))
    ]


async def _odd_bodies(run: Run, live: LiveService) -> None:
    connection = await Connection.open(live.url)
    number = 0
    asked = [f'{{"telegram_id": "4100", "amount": {amount}, "reason": "a"}}' for amount in AMOUNTS]
    asked += [f'{{"telegram_id": "4100", "amount": 2000000, "reason": "{text}"}}' for text in TEXTS]
    asked += [f'{{"telegram_id": "{text}", "amount": 1, "reason": "a"}}' for text in TEXTS]
    asked += [
        "[" * 100_000,
        '{"a":' * 100_000,
        "",
        "\x00",
        '{"telegram_id": "4100", "amount": 1, "amount": 1, "reason": "a"}',
    ]
    for body in asked:
        number += 1
        try:
            answer = await connection.ask(Request("/v1/debits", body, f"abuse-{time.monotonic_ns()}"), live.admin_key)
        except NoAnswer:
            connection = await Connection.open(live.url)
            continue
        run.count("odd bodies")
        run.must(
            400 <= answer.status < 500 or (answer.status == 201 and '"amount": 1e3' in body),
            f"{answer.status} for {body[:120]!r}",
        )
    await connection.close()


async def _odd_bytes(run: Run, live: LiveService, chance: random.Random) -> None:
    """Whole requests with some bytes changed, lost or doubled; and heads without an end or of too many lines."""
    whole = Request("/v1/debits", '{"telegram_id": "4199", "amount": 1, "reason": "a"}', "odd", None).encoded("pbk_no")

    async def send(data: bytes) -> None:
        try:
            connection = await Connection.open(live.url)
        except NoAnswer:
            return
        with contextlib.suppress(NoAnswer, TimeoutError, ValueError, IndexError):
            await connection.send(data)
            async with asyncio.timeout(0.5):
                answer = await connection.receive()
                run.count(f"odd bytes: {answer.status // 100}xx")
                run.must(answer.status < 500, f"{answer.status} for {data[:200]!r}")
        connection.reset()
        run.count("odd requests")

    def mangled() -> bytes:
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            place = chance.randrange(len(data))
            data[place : place + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
        return bytes(data)

    await asyncio.gather(*(send(mangled()) for _ in range(32)))
    await send(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000)
    await send(b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n")


async def _idle(run: Run, live: LiveService) -> None:
    """Connections that say nothing, and some that send a byte now and then; another caller is answered meanwhile."""
    opened: list[Connection] = []
    refused = 0
    for _ in range(0, IDLE, 100):
        made = await asyncio.gather(*(Connection.open(live.url) for _ in range(100)), return_exceptions=True)
        opened += [one for one in made if isinstance(one, Connection)]
        refused += sum(not isinstance(one, Connection) for one in made)
    run.figures["idle connections"] = len(opened)
    peak = _memory_mib(live)
    slow = opened[:200]
    for byte in b"POST /v1/debits HTTP/1.1\r\nHost: x\r\n":
        with contextlib.suppress(NoAnswer):
            await asyncio.gather(*(one.send(bytes([byte])) for one in slow))
    run.count("slow clients", len(slow))
    waits, answered = [], Counter[int]()
    for _ in range(20):
        began = time.monotonic()
        with contextlib.suppress(NoAnswer):
            caller = await Connection.open(live.url)
            answer = await caller.ask(Request("/v1/users/4100/balance", "", "", method="GET"), live.admin_key)
            answered[answer.status] += 1
            await caller.close()
        waits.append(time.monotonic() - began)
    run.times("another caller's balance", waits)
    run.figures["MiB at the peak"] = peak
    run.figures["another caller among them was answered"] = answered[200]
    run.must(set(answered) <= {200, 503}, f"another caller among the idle: {answered}")
    for one in opened:
        one.reset()


def _pids(live: LiveService) -> list[int]:
    assert live.process is not None
    return [live.process.pid, live.writer_pid]


def _memory_mib(live: LiveService) -> int:
    kib = 0
    for pid in _pids(live):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        kib += next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    return kib // 1024


def _descriptors(live: LiveService) -> int:
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in _pids(live))


ROW = Row(
    "abuse",
    "amounts, odd bytes, SQL in every field, limits, nesting; slow clients; 5,000 idle connections",
    "the harness",
    share=0.06,
    at_least=2,
    inject=inject,
    mutants=(SEEN,),
)
