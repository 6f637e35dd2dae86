"""The composition root: the one place that knows all layers."""

import asyncio
import contextlib
import logging
import secrets
import sys
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

from litestar import Litestar
from litestar.routes import HTTPRoute
from litestar.types import ASGIApp, Receive, Scope, Send

from service import resources
from service.api import (
    audit_logs,
    audit_proofs,
    auth,
    balance_changes,
    bank_messages,
    bank_notifications,
    debits,
    deposits,
    docs,
    domain_purchases,
    error_handlers,
    explanations,
    head,
    health,
    integrity,
    learned_names,
    metrics,
    observation,
    problems,
    request_ids,
    transactions,
    users,
)
from service.api.audit_feed import AuditFeed
from service.api.checkpoints import Checkpoints
from service.api.figures import Figures
from service.api.limits import Limits
from service.api.openapi import PassbookOpenAPI, make_config
from service.api.proofs import Proofs
from service.api.pulse import Pulse
from service.api.request import ApiRequest, Passbook
from service.config import Config
from service.ledger.errors import ErrorCode
from service.ledger.policy import Policy
from service.ledger.timestamps import Clock, SteadyClock, system_clock
from service.measures import Measures
from service.repository.sweeper import Sweeper, system_elapsed
from service.repository.writer import Patience, Writer
from service.storage import guard, lock, migrator, schema, sqlite
from service.storage.audit_logs import find_newest_id
from service.storage.checkpoints import Contradiction, Signer
from service.storage.connection_process import ConnectionProcess
from service.storage.guard import Files, ReadersGuard
from service.storage.migrator import NotMigrated
from service.storage.sqlite import Connection
from service.telemetry import Telemetry

_RESOURCES = (
    users,
    explanations,
    deposits,
    bank_notifications,
    bank_messages,
    learned_names,
    debits,
    balance_changes,
    domain_purchases,
    transactions,
    audit_logs,
    audit_proofs,
    integrity,
    health,
    metrics,
)
"""A resource is removed by deleting its files and its name here."""
_log = logging.getLogger(__name__)
_LOOKUP_WAITS_MS = 100
"""How long a read on the event loop waits for a lock, which readers meet only while the log's index is put right."""
_TOLD_BEFORE_S = 0.7
_CLOSE_WITHIN_S = 5.0
_CLOSE_AT_MOST_S = 15.0
"""How long the end waits until the log is written back into the database; the next start can do that too.

The first where the writing process does nothing, the second while it is at work.
"""


def create_app(
    config: Config,
    clock: Clock = system_clock,
    *,
    telemetry: Telemetry | None = None,
    extra_routes: list[Any] | None = None,
    writes_here: bool = False,
) -> Litestar:
    """The application. Starting it opens the database; what it needs and lacks is raised then.

    `telemetry` is where spans and measures are sent, None for nowhere; /metrics is there in any case.
    `extra_routes` are handlers that a benchmark adds to measure the same edge without the ledger. `writes_here` gives
    the writing connection a thread of this process, for tests that change the code that it runs.
    """
    telemetry = telemetry or Telemetry({})
    measures = Measures(ErrorCode)
    openapi = make_config([body for resource in _RESOURCES for body in resource.BODIES])
    app = Litestar(
        route_handlers=[*(resource.ROUTER for resource in _RESOURCES), docs.ROUTER, *(extra_routes or [])],
        request_class=ApiRequest,
        exception_handlers=error_handlers.HANDLERS,
        before_send=[request_ids.add_header],
        middleware=[_answer_options, auth.guarded],
        lifespan=[
            partial(
                _opened,
                config=config,
                clock=clock,
                measures=measures,
                telemetry=telemetry,
                writes_here=writes_here,
            )
        ],
        request_max_body_size=config.body_bytes_max,
        openapi_config=openapi,
        logging_config=None,
        debug=False,
    )
    # Around everything, so that what no route answers is seen too; a middleware runs only after routing.
    app.asgi_handler = observation.observed(
        head.answered(app.asgi_handler), measures, telemetry.tracing, access_log=config.access_log
    )
    app.state["measures"] = measures
    app.state["query_parameters"] = auth.query_parameters(app)
    app.state["parameter_names"] = error_handlers.parameter_names(app)
    auth.check_handlers(app)
    _describe_operations(app, openapi)
    return app


@contextlib.asynccontextmanager
async def _opened(
    app: Litestar, *, config: Config, clock: Clock, measures: Measures, telemetry: Telemetry, writes_here: bool
) -> AsyncIterator[None]:
    """Opens what a running application holds, in this order, and closes it in the reverse."""
    path = config.database_path
    timeout_ms = config.busy_timeout_ms
    policy = Policy(
        match_window_s=config.match_window_s,
        bank_name_width=config.bank_name_width,
        deposit_expiry_s=config.deposit_expiry_s,
        hold_expiry_s=config.hold_expiry_s,
    )
    async with contextlib.AsyncExitStack() as stack:
        held = stack.enter_context(lock.exclusive(path, purpose="serve"))
        if held.database is None:
            raise NotMigrated(f"There is no database {path}. Make one with: passbook migrate up")
        migrations = migrator.load(resources.folder("migrations"))
        wanted = migrator.schema_after(migrations)
        files = Files(path, descriptor=held.database)
        connector = partial(
            guard.connect_writer,
            files,
            wanted,
            busy_timeout_ms=timeout_ms,
            lock_file=None if writes_here else held.lock_file,
        )
        writing = (
            sqlite.Thread(connector)
            if writes_here
            else ConnectionProcess(
                connector,
                imports=[problems.__name__, *(name for name in sys.modules if name.startswith("service.repository."))],
                keeps=held.descriptors,
                starts_within_s=config.write_restart_s or None,
            )
        )
        with _told_after(config.write_stall_s, "the writing process has not opened the database for %d s"):
            await writing.open()
        stack.push_async_callback(_close_writing, app, writing)
        files.learn()
        schema_version = await writing.run(migrator.require_latest, migrations)
        await writing.run(schema.check, wanted)
        engine = await writing.run(sqlite.engine_info)
        readers = await stack.enter_async_context(
            sqlite.Readers(path, count=config.readers, busy_timeout_ms=timeout_ms).opened()
        )
        signer = await readers.read(_signer, config)
        lookups = sqlite.connect_reader(path, busy_timeout_ms=min(timeout_ms, _LOOKUP_WAITS_MS), index_is_kept=True)
        stack.callback(lookups.close)
        writer = Writer(
            writing,
            clock=clock,
            policy=policy,
            render_refusal=problems.render_refusal,
            queue_max=config.write_queue_max,
            queue_bytes_max=config.write_queue_bytes_max,
            batch_max=config.write_batch_max,
            watch=partial(observation.watch_batch, measures, telemetry.tracing),
            patience=Patience(
                stall_s=config.write_stall_s, timeout_s=config.write_timeout_s, restart_s=config.write_restart_s
            ),
        )
        app.state["writer"] = writer
        await stack.enter_async_context(writer.running())
        sweeper = Sweeper(
            readers,
            writer,
            clock=SteadyClock(clock, system_elapsed, window_s=max(policy.deposit_expiry_s, policy.hold_expiry_s)),
            policy=policy,
            interval_s=config.expiry_interval_s,
        )
        app.state["sweeper"] = await stack.enter_async_context(sweeper.running())
        proofs = Proofs(path, migrations, clock, busy_timeout_ms=timeout_ms)
        stack.push_async_callback(proofs.close)
        checkpoints = Checkpoints(readers, signer)
        figures = await stack.enter_async_context(Figures(path, busy_timeout_ms=timeout_ms).running())
        audit_readers = sqlite.Readers(path, count=config.readers, busy_timeout_ms=timeout_ms)
        await stack.enter_async_context(audit_readers.opened())
        passbook = app.state["passbook"] = Passbook(
            writer=writer,
            readers=readers,
            lookups=lookups,
            clock=clock,
            engine=engine,
            schema_version=schema_version,
            policy=policy,
            proofs=proofs,
            trusted_proxies=config.trusted_networks,
            audit_feed=AuditFeed(audit_readers, writer, partial(find_newest_id, lookups)),
            checkpoints=checkpoints,
            measures=measures,
            figures=figures,
            database=path,
            pulse=await stack.enter_async_context(Pulse(path, ReadersGuard(files, wanted).check).running()),
            limits=Limits(
                key_requests_max=config.key_requests_max,
                key_writes_per_s=config.key_writes_per_s,
                refused_keys_per_s=config.refused_keys_per_s,
                bodies_bytes_max=config.bodies_bytes_max,
                clock=time.monotonic,
            ),
            cursor_key=secrets.token_bytes(32),
            writes_in=lambda: writing.pid if isinstance(writing, ConnectionProcess) else None,
        )
        await stack.enter_async_context(_exporting(telemetry, passbook))
        yield


@contextlib.contextmanager
def _told_after(seconds: int, what: str) -> Iterator[None]:
    """Warns of `what` where the block takes longer than that."""
    timer = asyncio.get_running_loop().call_later(seconds, _log.warning, what, seconds)
    try:
        yield
    finally:
        timer.cancel()


@contextlib.asynccontextmanager
async def _exporting(telemetry: Telemetry, passbook: Passbook) -> AsyncIterator[None]:
    """Sends the measures for the block, and at its end once more."""
    stopping = asyncio.Event()
    task = asyncio.create_task(
        telemetry.export_measures(partial(metrics.collect, passbook), passbook.measures.started_at_ns, stopping),
        name="passbook-export",
    )
    try:
        yield
    finally:
        stopping.set()
        await task


def _signer(tx: Connection, config: Config) -> Signer:
    """The key of the audit log, which continues what it signed last. Raises KeyUnusable, Contradiction."""
    signer = Signer.open(config.audit_key_path, origin=config.audit_origin)
    try:
        signer.check(tx)
    except Contradiction as error:
        raise Contradiction(
            f"The audit log is not the one that was signed: {error}. Was an older copy put back? To go on from what is"
            f" there, on record as a break, move {signer.last_file} away."
        ) from error
    return signer


def stop_being_ready(app: Litestar) -> None:
    """Makes /readyz say 503; everything else is answered as before."""
    app.state["stopping"] = True


def prepare_to_stop(app: Litestar, *, grace_s: float) -> None:
    """Ends at once what requests would wait for longer than a stopping service waits for requests: `grace_s`."""
    passbook: Passbook = app.state["passbook"]
    passbook.proofs.stop()
    passbook.audit_feed.stop()
    # A little earlier, so that those who wait are told before their requests are cut off.
    passbook.writer.finish_by(max(grace_s - _TOLD_BEFORE_S, grace_s / 2))


def hurry(app: Litestar) -> None:
    """Has the end wait no longer for writes than the batch under way usually takes."""
    app.state["passbook"].writer.hurry()


def unfinished(app: Litestar) -> str | None:
    """After the end: what was left undone, as a sentence."""
    found: str | None = app.state.get("unfinished")
    return found


async def _close_writing(app: Litestar, writing: ConnectionProcess | sqlite.Thread) -> None:
    """Closes the writing connection, and puts on record what was not finished."""
    writer: Writer | None = app.state.get("writer")
    left = writer.unfinished if writer else None
    if isinstance(writing, ConnectionProcess):
        told = await writing.close(within_s=0 if left else _CLOSE_WITHIN_S, at_most_s=_CLOSE_AT_MOST_S)
        left = " ".join(filter(None, (left, told))) or None
    else:
        await writing.close()
    app.state["unfinished"] = left


def _answer_options(app: ASGIApp) -> ASGIApp:
    """Answers OPTIONS for every method of the path; Litestar's own answer lists one handler and asks for a key."""

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("method") != "OPTIONS":
            await app(scope, receive, send)
            return
        methods = next(
            sorted(head.methods(set(route.route_handler_map)))
            for route in scope["litestar_app"].routes
            if isinstance(route, HTTPRoute) and route.path_format == scope["path_template"]
        )
        await send({"type": "http.response.start", "status": 204, "headers": [(b"allow", ", ".join(methods).encode())]})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return middleware


def _describe_operations(app: Litestar, openapi: PassbookOpenAPI) -> None:
    """Tells the OpenAPI document what each handler's `opt` and body type are."""
    for route in app.routes:
        for handler in route.route_handlers if isinstance(route, HTTPRoute) else ():
            if handler.operation_id:
                field = handler.parsed_data_field
                openapi.operations[str(handler.operation_id)] = (handler.opt, field.annotation if field else None)
