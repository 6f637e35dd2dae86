"""OpenTelemetry: spans, and the export of spans and measures over OTLP/HTTP. Off unless the OTEL_ variables ask for it.

The SDK is imported only when it is on. Nothing personal goes out: spans carry route templates, names of API keys and
codes, never a path, an address, a name or a body.
"""

import asyncio
import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from service import __version__
from service.measures import Distribution, Family, Kind, Labels, Value

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import Metric as OtlpMetric
    from opentelemetry.sdk.metrics.export import MetricExporter, MetricsData
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, SpanContext

_log = logging.getLogger(__name__)
_NAME = "passbook"
_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_SAMPLERS = {"always_on", "always_off", "traceidratio"}
_SAMPLERS |= {f"parentbased_{name}" for name in _SAMPLERS}
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_LAST_EXPORT_S = 2.0

Headers = Iterable[tuple[bytes, bytes]]
Collect = Callable[[], Sequence[Family]]


class TelemetryError(Exception):
    """An OTEL_ variable is wrong, or asks for what Passbook has not. The text names each of them."""


class Telemetry:
    """Where spans and measures go. Lifetime: the process's; `close` sends what is left.

    `environ` is the process's environment, which the SDK reads by itself. Raises TelemetryError.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        traces, metrics = wanted(environ)
        self._provider: TracerProvider | None = None
        self._exporter: MetricExporter | None = None
        self._interval_s = _interval_s(environ)
        if traces:
            self._provider = _tracer_provider()
        if metrics:
            from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # noqa: PLC0415

            self._exporter = OTLPMetricExporter()
        self.tracing = Tracing(self._provider) if self._provider else None
        """None when there are no traces."""

    async def export_measures(self, collect: Collect, started_at_ns: int, stopping: asyncio.Event) -> None:
        """Sends what `collect` gives every OTEL_METRIC_EXPORT_INTERVAL and once more when `stopping`; never raises.

        started_at_ns: when counting began, in nanoseconds since the epoch.
        """
        if self._exporter is None:
            return
        resource = _resource()
        done = asyncio.Event()
        done.set()
        while True:
            stopped = await _is_set_within(stopping, self._interval_s)
            if not done.is_set() and not stopped:
                continue  # the collector takes longer than the interval
            try:
                data = _metrics_data(collect(), resource, started_at_ns)
                done = _in_thread(self._exporter.export, data)
            except Exception:
                _log.exception("measures could not be sent")
            if stopped:
                await _is_set_within(done, _LAST_EXPORT_S)
                return

    def close(self) -> None:
        """Sends the spans that are left; gives up after two seconds."""
        for part in (self._provider, self._exporter):
            if part is not None:
                ending = threading.Thread(target=part.shutdown, daemon=True)
                ending.start()
                ending.join(_LAST_EXPORT_S)


class Tracing:
    """Makes spans. Lifetime: within the Telemetry's."""

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry import trace  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        self._trace = trace
        self._tracer = provider.get_tracer(_NAME, __version__)
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, method: str, headers: Headers) -> "RequestTrace | None":
        """The span of a request, which continues the caller's `traceparent`; None when it is not sampled."""
        carrier = {
            name.decode(): value.decode("latin-1") for name, value in headers if name in {b"traceparent", b"tracestate"}
        }
        span = self._tracer.start_span(
            method,
            self._propagator.extract(carrier) if carrier else None,
            self._trace.SpanKind.SERVER,
            {"http.request.method": method},
        )
        return RequestTrace(self, span) if span.is_recording() else None

    def commit(self, writes: "Sequence[RequestTrace]", *, size: int, began_ns: int, ended_ns: int) -> "SpanContext":
        """The span of a commit that `writes` wait for: of the first one's trace, with links to the others.

        began_ns, ended_ns: of time.perf_counter_ns.
        """
        first, *others = writes
        span = self._tracer.start_span(
            "COMMIT",
            self._trace.set_span_in_context(first.span),
            attributes={"db.system.name": "sqlite", "db.operation.name": "COMMIT", "db.operation.batch.size": size},
            links=[self._trace.Link(other.span.get_span_context()) for other in others],
            start_time=first.wall_ns(began_ns),
        )
        span.end(first.wall_ns(ended_ns))
        return span.get_span_context()

    def _unit_of_work(
        self, request: "RequestTrace", operation: str, began_ns: int, ended_ns: int, commit: "SpanContext | None"
    ) -> None:
        span = self._tracer.start_span(
            f"unit_of_work {operation}",
            self._trace.set_span_in_context(request.span),
            attributes={"db.system.name": "sqlite", "passbook.operation": operation},
            links=[self._trace.Link(commit)] if commit else (),
            start_time=request.wall_ns(began_ns),
        )
        span.end(request.wall_ns(ended_ns))

    def _fail(self, span: "Span") -> None:
        span.set_status(self._trace.StatusCode.ERROR)


class RequestTrace:
    """A sampled request. Lifetime: from its head to the end of its answer."""

    __slots__ = ("_anchor_ns", "_tracing", "span")

    def __init__(self, tracing: Tracing, span: "Span") -> None:
        self._tracing = tracing
        self._anchor_ns = time.time_ns() - time.perf_counter_ns()
        self.span = span

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""
        return f"{self.span.get_span_context().trace_id:032x}"

    def wall_ns(self, perf_ns: int) -> int:
        """Nanoseconds since the epoch of an instant of time.perf_counter_ns."""
        return self._anchor_ns + perf_ns

    def unit_of_work(self, operation: str, *, began_ns: int, ended_ns: int, commit: "SpanContext | None") -> None:
        """The span of what the writer's thread did for the request, linked to the commit that ended it."""
        self._tracing._unit_of_work(self, operation, began_ns, ended_ns, commit)

    def end(self, name: str, attributes: Mapping[str, str | int | float], *, failed: bool) -> None:
        """Ends the span. `failed`: by the service's fault, not the caller's."""
        self.span.update_name(name)
        self.span.set_attributes(attributes)
        if failed:
            self._tracing._fail(self.span)
        self.span.end()


def trace_id_of(headers: Headers) -> str | None:
    """The caller's trace id in `traceparent` (W3C Trace Context), 32 hexadecimal digits, or None."""
    given = next((value for name, value in headers if name == b"traceparent"), b"")
    found = _TRACEPARENT.match(given)
    return found[1].decode() if found and found[1].strip(b"0") else None


def wanted(environ: Mapping[str, str]) -> tuple[bool, bool]:
    """Whether traces and metrics are to be sent. Raises TelemetryError naming every variable that is wrong."""
    given = {name: value.strip() for name, value in environ.items() if name.startswith("OTEL_") and value.strip()}
    errors = [
        f"{name}={given[name]!r}: expected {' or '.join(sorted(allowed))}"
        for name, allowed in (
            ("OTEL_SDK_DISABLED", {"true", "false"}),
            ("OTEL_TRACES_EXPORTER", {"otlp", "none"}),
            ("OTEL_METRICS_EXPORTER", {"otlp", "prometheus", "none"}),
            ("OTEL_LOGS_EXPORTER", {"none"}),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", {"http/protobuf"}),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", {"http/protobuf"}),
            ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", {"http/protobuf"}),
            ("OTEL_TRACES_SAMPLER", _SAMPLERS),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", {"cumulative"}),
        )
        if name in given and given[name].lower() not in allowed
    ]
    errors += [
        f"{name}={given[name]!r}: expected a URL that begins with http:// or https://"
        for name in (_ENDPOINT, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")
        if name in given and not re.match(r"https?://[^/\s]", given[name])
    ]
    errors += [
        f"{name}={given[name]!r}: expected {meaning}"
        for name, pattern, meaning in (
            ("OTEL_METRIC_EXPORT_INTERVAL", r"[1-9][0-9]{0,8}", "milliseconds"),
            ("OTEL_TRACES_SAMPLER_ARG", r"0?\.[0-9]+|[01](\.0*)?", "a ratio from 0 to 1"),
        )
        if name in given and not re.fullmatch(pattern, given[name])
    ]
    if errors:
        raise TelemetryError("; ".join(sorted(errors)))
    if given.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False, False

    def is_on(signal: str) -> bool:
        has_endpoint = _ENDPOINT in given or f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT" in given
        return given.get(f"OTEL_{signal}_EXPORTER", "otlp" if has_endpoint else "none").lower() == "otlp"

    return is_on("TRACES"), is_on("METRICS")


def _interval_s(environ: Mapping[str, str]) -> float:
    return int(environ.get("OTEL_METRIC_EXPORT_INTERVAL", "").strip() or 60_000) / 1000


def _resource() -> Any:
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415

    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win.
    return Resource.create({"service.name": _NAME, "service.version": __version__}).merge(
        OTELResourceDetector().detect()
    )


def _tracer_provider() -> "TracerProvider":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def _metrics_data(families: Sequence[Family], resource: Any, started_at_ns: int) -> "MetricsData":
    from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics  # noqa: PLC0415
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415

    now_ns = time.time_ns()
    metrics = [_otlp_metric(family, started_at_ns, now_ns) for family in families if family.points]
    scope = ScopeMetrics(InstrumentationScope(_NAME, __version__), metrics, "")
    return MetricsData([ResourceMetrics(resource, [scope], "")])


def _otlp_metric(family: Family, started_at_ns: int, now_ns: int) -> "OtlpMetric":
    from opentelemetry.sdk.metrics import export  # noqa: PLC0415

    metric, cumulative = family.metric, export.AggregationTemporality.CUMULATIVE
    data: Any
    if metric.kind is Kind.HISTOGRAM:
        data = export.Histogram(
            [
                export.HistogramDataPoint(
                    attributes=_attributes(metric.attributes, labels),
                    start_time_unix_nano=started_at_ns,
                    time_unix_nano=now_ns,
                    count=sum(found.counts),
                    sum=found.sum,
                    bucket_counts=list(found.counts),
                    explicit_bounds=found.bounds,
                    min=None,  # type: ignore[arg-type]  # optional in the format
                    max=None,  # type: ignore[arg-type]
                )
                for labels, found in cast("dict[Labels, Distribution]", family.points).items()
            ],
            cumulative,
        )
    else:
        points = [
            export.NumberDataPoint(_attributes(metric.attributes, labels), started_at_ns, now_ns, value)
            for labels, value in cast("dict[Labels, Value]", family.points).items()
        ]
        data = (
            export.Sum(points, cumulative, is_monotonic=True) if metric.kind is Kind.COUNTER else export.Gauge(points)
        )
    return export.Metric(metric.name, metric.description, metric.unit, data)


def _attributes(names: Labels, labels: Labels) -> dict[str, str | int]:
    return {
        name: int(value) if name == "http.response.status_code" else value
        for name, value in zip(names, labels, strict=True)
        if value
    }


def _in_thread(function: Callable[[Any], object], argument: Any) -> asyncio.Event:
    """Runs `function` in a thread that nobody has to wait for, unlike those of the event loop; set when it is done."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def run() -> None:
        try:
            function(argument)
        except Exception:
            _log.exception("measures could not be sent")
        finally:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, name="passbook-export", daemon=True).start()
    return done


async def _is_set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False
