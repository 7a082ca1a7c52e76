"""Spans and metrics of OpenTelemetry for each cache operation, by the conventions for databases."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from cacheapp import clock
from cacheapp.backends.core.operation import Operation
from cacheapp.backends.core.operations import subscribe
from cacheapp.extras import needed_for

with needed_for("cacheapp.telemetry.otel", "opentelemetry"):
    from opentelemetry import metrics, trace
    from opentelemetry.trace import SpanKind, Status, StatusCode

_SYSTEMS: Mapping[str, str] = {
    "LMDBCache": "lmdb",
    "DiskCache": "sqlite",
    "RedisCache": "redis",
    "NearCache": "redis",
}
# Those that the conventions advise for `db.client.operation.duration`, and shorter ones.
_BOUNDS_S = (0.00001, 0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)


def instrument(
    tracer_provider: Any = None, meter_provider: Any = None, *, keys: bool = False
) -> Callable[[], None]:
    """Record each operation as a span, and in `db.client.operation.duration`; return what ends it.

    The providers default to the global ones. With `keys`, spans have the keys, as `cacheapp.keys`: they
    may contain personal data.
    """
    tracer = trace.get_tracer("cacheapp", tracer_provider=tracer_provider)
    duration = metrics.get_meter("cacheapp", meter_provider=meter_provider).create_histogram(
        "db.client.operation.duration",
        unit="s",
        description="Duration of cache operations.",
        explicit_bucket_boundaries_advisory=_BOUNDS_S,
    )

    def begin(operation: Operation, attributes: dict[str, str], now_ns: int) -> "trace.Span":
        return tracer.start_span(
            f"{operation.operation} {operation.alias}",
            kind=SpanKind.CLIENT,
            attributes=attributes,
            start_time=now_ns - int(operation.seconds * 1e9),
        )

    def around(operation: Operation) -> AbstractContextManager[object]:
        """Make the span the parent of what the function of a `get_or_set` does."""
        if tracer not in operation.notes:
            now_ns = int(clock.wall_s() * 1e9)
            operation.notes[tracer] = begin(operation, _attributes(operation), now_ns)
        return trace.use_span(
            operation.notes[tracer], record_exception=False, set_status_on_exception=False
        )

    def record(operation: Operation) -> None:
        attributes = _attributes(operation)
        duration.record(operation.seconds, attributes)
        ended_ns = int(clock.wall_s() * 1e9)
        begun = operation.notes.pop(tracer, None) if operation.operation == "get_or_set" else None
        span = begun or begin(operation, attributes, ended_ns)
        if span.is_recording():
            _describe(span, operation, keys=keys)
        span.end(ended_ns)

    return subscribe(record, around)


def _attributes(operation: Operation) -> dict[str, str]:
    """Return the attributes of few values, which metrics have too."""
    found = {
        "db.system.name": _SYSTEMS.get(operation.backend, "cacheapp"),
        "db.namespace": operation.alias,
        "db.operation.name": operation.operation,
    }
    if operation.error is not None:
        found["error.type"] = type(operation.error).__qualname__
    return found


def _describe(span: "trace.Span", operation: Operation, *, keys: bool) -> None:
    if len(operation.keys) > 1:
        span.set_attribute("db.operation.batch.size", len(operation.keys))
    if operation.hits is not None:
        span.set_attribute("cacheapp.hits", operation.hits)
    if operation.factory_seconds:
        span.set_attribute("cacheapp.factory_seconds", operation.factory_seconds)
    if operation.waited_seconds:
        span.set_attribute("cacheapp.waited_seconds", operation.waited_seconds)
    if keys:
        span.set_attribute("cacheapp.keys", [str(key) for key in operation.keys])
    if operation.error is not None:
        span.set_attributes(_attributes(operation))  # one that began before the error lacks it
        span.set_status(Status(StatusCode.ERROR))
