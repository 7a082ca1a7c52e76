"""Sentry, OpenTelemetry, django-debug-toolbar and the response headers, each with its real library."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sentry_sdk
from django.core.cache import caches
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pytest_django.fixtures import Settings
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from cacheapp.cached import cached
from cacheapp.telemetry import middleware, otel, sentry
from cacheapp.telemetry.middleware import cache_headers
from cacheapp.telemetry.sentry import CacheappIntegration


@pytest.fixture(autouse=True)
def _caches(settings: Settings, tmp_path: Path) -> Iterator[None]:
    lmdb = {"BACKEND": "cacheapp.backends.LMDBCache", "OPTIONS": {"size_limit": 2**21}}
    settings.CACHES = {"default": {**lmdb, "LOCATION": str(tmp_path / "cache")}}
    yield
    for module in (sentry, middleware):  # other tests run without a subscriber
        module._subscribe()()  # noqa: SLF001
        module._subscribe.cache_clear()  # noqa: SLF001


@cached(60)
def double(number: int) -> int:
    return 2 * number


def use_the_cache(_request: Any = None) -> HttpResponse:
    """Do seven operations."""
    cache = caches["default"]
    cache.get("not")
    cache.set("key", "x" * 100)
    cache.get("key")
    cache.get_many(["key", "not"])
    cache.get_or_set("computed", lambda: 1)
    double(4)
    double(4)
    return HttpResponse("<html><body></body></html>")


OPERATIONS = ["get", "set", "get", "get_many", "get_or_set", "get_or_set", "get_or_set"]
HITS = [0, None, 1, 1, 0, 0, 1]


# -- Sentry ----------------------------------------------------------------------------------------


class Kept(Transport):
    """Keeps what would be sent."""

    envelopes: list[Envelope] = []  # noqa: RUF012 (Sentry makes the object)

    def capture_envelope(self, envelope: Envelope) -> None:
        self.envelopes.append(envelope)


@pytest.fixture
def sent() -> Iterator[list[Envelope]]:
    Kept.envelopes = []
    sentry_sdk.init(
        dsn="https://public@sentry.invalid/1",
        transport=Kept,
        traces_sample_rate=1.0,
        integrations=[CacheappIntegration()],
        auto_enabling_integrations=False,
        default_integrations=False,
    )
    sentry._subscribe()  # noqa: SLF001 (Sentry calls `setup_once` for the first client only)
    yield Kept.envelopes
    sentry_sdk.get_client().close(timeout=0)
    sentry_sdk.get_global_scope().set_client(None)


def test_sentry_gets_a_span_for_each_operation(sent: list[Envelope]) -> None:
    use_the_cache()  # outside of a transaction: nothing
    caches["default"].clear()
    with sentry_sdk.start_transaction(name="page"):
        use_the_cache()
        with pytest.raises(ValueError, match="not found"):
            caches["default"].incr("not")
    (envelope,) = sent
    transaction = envelope.get_transaction_event()
    assert transaction is not None
    spans: Any = transaction["spans"]
    assert [span["data"]["cache.operation"] for span in spans] == [*OPERATIONS, "incr"]
    assert [span["op"] for span in spans[:3]] == ["cache.get", "cache.put", "cache.get"]
    hits = [span["data"].get("cache.hit") for span in spans[:-1]]
    assert hits == [None if found is None else found > 0 for found in HITS]
    assert not any("cache.key" in span["data"] for span in spans)
    assert (spans[0]["description"], spans[3]["description"]) == ("get", "get_many")
    assert 100 <= spans[1]["data"]["cache.item_size"] < 200
    assert all(span["start_timestamp"] <= span["timestamp"] for span in spans)
    assert spans[-1]["status"] == "internal_error"


def test_sentry_has_the_spans_of_a_factory_below_the_span_of_its_call(
    sent: list[Envelope],
) -> None:
    def compute() -> int:
        caches["default"].get("inner")
        with sentry_sdk.start_span(op="db", name="query"):
            return 1

    async def acompute() -> int:
        return compute()

    with sentry_sdk.start_transaction(name="page"):
        caches["default"].get_or_set("computed", compute)
        asyncio.run(caches["default"].aget_or_set("awaited", acompute))
        caches["default"].get("outer")
    transaction: Any = sent[0].get_transaction_event()
    root = transaction["contexts"]["trace"]["span_id"]
    names = {span["span_id"]: span["description"] for span in transaction["spans"]}
    found = [
        (span["description"], names.get(span["parent_span_id"])) for span in transaction["spans"]
    ]
    computed = [("get_or_set", None), ("query", "get_or_set"), ("get", "get_or_set")]
    assert sorted(found, key=str) == sorted([*computed, *computed, ("get", None)], key=str)
    outer = [it for it in transaction["spans"] if it["parent_span_id"] == root]
    assert [it["description"] for it in outer] == ["get_or_set", "get_or_set", "get"]


@pytest.mark.parametrize("by_argument", [True, False])
def test_sentry_gets_keys_only_if_they_are_wanted(
    sent: list[Envelope], *, by_argument: bool
) -> None:
    client = sentry_sdk.get_client()
    client.options["send_default_pii"] = not by_argument
    client.integrations["cacheapp"] = CacheappIntegration(keys=by_argument)
    with sentry_sdk.start_transaction(name="page"):
        caches["default"].get_many(["key", "not"])
    transaction = sent[0].get_transaction_event()
    assert transaction is not None
    spans: Any = transaction["spans"]
    assert [span["description"] for span in spans] == ["key, not"]
    assert spans[0]["data"]["cache.key"] == ["key", "not"]


# -- OpenTelemetry ---------------------------------------------------------------------------------


def test_opentelemetry_gets_spans_and_durations_without_keys_unless_wanted() -> None:
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    meters = MeterProvider([reader])
    end = otel.instrument(tracers, meters)
    use_the_cache()
    end()
    end = otel.instrument(tracers, meters, keys=True)
    with pytest.raises(ValueError, match="not found"):
        caches["default"].incr("not")
    end()
    use_the_cache()  # no longer recorded
    spans = exporter.get_finished_spans()
    attributes = [dict(span.attributes or {}) for span in spans]
    assert [it["db.operation.name"] for it in attributes] == [*OPERATIONS, "incr"]
    assert [it.get("cacheapp.hits") for it in attributes] == [*HITS, None]
    assert attributes[3]["db.operation.batch.size"] == 2
    assert {(it["db.system.name"], it["db.namespace"]) for it in attributes} == {
        ("lmdb", "default")
    }
    assert [it.get("cacheapp.keys") for it in attributes] == [*[None] * 7, ("not",)]
    assert attributes[-1]["error.type"] == "ValueError"
    assert not spans[-1].status.is_ok
    assert all((span.start_time or 0) <= (span.end_time or 0) for span in spans)
    points: Any = reader.get_metrics_data()
    (metric,) = points.resource_metrics[0].scope_metrics[0].metrics
    assert (metric.name, metric.unit) == ("db.client.operation.duration", "s")
    assert sum(point.count for point in metric.data.data_points) == 8
    tracers.shutdown()
    meters.shutdown()


def test_opentelemetry_has_the_spans_of_a_factory_below_the_span_of_its_call() -> None:
    exporter = InMemorySpanExporter()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = tracers.get_tracer("application")
    end = otel.instrument(tracers)
    cache = caches["default"]

    def compute() -> int:
        cache.get("inner")
        with tracer.start_as_current_span("query"):
            return 1

    async def acompute() -> int:
        return compute()

    def fail() -> int:
        with tracer.start_as_current_span("query"):
            raise KeyError

    with tracer.start_as_current_span("request"):
        cache.get_or_set("computed", compute)
        asyncio.run(cache.aget_or_set("awaited", acompute))
        with pytest.raises(KeyError):
            cache.get_or_set("failed", fail)
        cache.get("outer")
    end()
    spans = {span.context.span_id: span for span in exporter.get_finished_spans() if span.context}
    parents = [
        (span.name, spans[span.parent.span_id].name) for span in spans.values() if span.parent
    ]
    computed = [
        ("get default", "get_or_set default"),
        ("query", "get_or_set default"),
        ("get_or_set default", "request"),
    ]
    assert parents == [*computed, *computed, *computed[1:], ("get default", "request")]
    assert len(spans) == len(parents) + 1
    for span in spans.values():
        parent = span.parent and spans[span.parent.span_id]
        assert parent is None or (parent.start_time or 0) <= (span.start_time or 0)
        assert parent is None or (span.end_time or 0) <= (parent.end_time or 0)
    failed = [span for span in spans.values() if span.name != "query" and not span.status.is_ok]
    assert [(span.name, (span.attributes or {}).get("error.type")) for span in failed] == [
        ("get_or_set default", "KeyError")
    ]
    tracers.shutdown()


# -- django-debug-toolbar --------------------------------------------------------------------------


def test_the_toolbar_shows_each_call_once(settings: Settings) -> None:
    settings.DEBUG = True
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "debug_toolbar"]
    settings.DEBUG_TOOLBAR_PANELS = ["debug_toolbar.panels.cache.CachePanel"]
    from debug_toolbar.panels.cache import CachePanel  # noqa: PLC0415 (when it is installed)
    from debug_toolbar.toolbar import DebugToolbar  # noqa: PLC0415 (the same)

    panel_class: Any = CachePanel
    toolbar_class: Any = DebugToolbar
    panel_class.ready()
    (panel,) = toolbar_class(RequestFactory().get("/"), use_the_cache).enabled_panels
    panel.enable_instrumentation()
    try:
        use_the_cache()
    finally:
        panel.disable_instrumentation()
    assert [call["name"] for call in panel.calls] == OPERATIONS
    assert all(call["time"] > 0 for call in panel.calls)
    assert (panel.hits, panel.misses) == (5, 2)  # it takes what get_or_set computes for a hit


# -- the response headers --------------------------------------------------------------------------


def _respond(_request: HttpRequest) -> HttpResponse:
    return use_the_cache()


def test_the_headers_say_what_a_request_did() -> None:
    respond: Any = cache_headers(_respond)
    response = respond(RequestFactory().get("/"))
    assert response["Cache-Status"] == 'default; fwd=miss; detail="3 of 7 keys"; stored'
    name, duration, text = response["Server-Timing"].split(";")
    assert (name, text) == ("cache-default", 'desc="7 operations"')
    assert float(duration.removeprefix("dur=")) > 0


def test_a_request_that_only_found_what_it_read_is_a_hit() -> None:
    caches["default"].set("key", 1)

    def read(_request: HttpRequest) -> HttpResponse:
        caches["default"].get("key")
        return HttpResponse(headers={"Server-Timing": "db;dur=1"})

    respond: Any = cache_headers(read)
    response = respond(RequestFactory().get("/"))
    assert response["Cache-Status"] == 'default; hit; detail="1 of 1 keys"'
    assert response["Server-Timing"].startswith("db;dur=1, cache-default;dur=")
    quiet: Any = cache_headers(lambda _request: HttpResponse())
    assert "Cache-Status" not in quiet(RequestFactory().get("/"))


def test_async_requests_are_told_apart() -> None:
    async def read(request: HttpRequest) -> HttpResponse:
        for _ in range(int(request.GET["times"])):
            await caches["default"].aget("not")
            await asyncio.sleep(0)
        return HttpResponse()

    respond: Any = cache_headers(read)

    async def both() -> list[Any]:
        requests = [RequestFactory().get(f"/?times={times}") for times in (1, 3)]
        return list(await asyncio.gather(*(respond(request) for request in requests)))

    found = [response["Cache-Status"] for response in asyncio.run(both())]
    assert found == [f'default; fwd=miss; detail="0 of {times} keys"' for times in (1, 3)]


def test_a_thread_that_still_uses_a_cache_breaks_no_header() -> None:
    class Growing(middleware._Usage):  # noqa: SLF001
        def timing(self, alias: str) -> str:
            usage.setdefault("late", middleware._Usage())  # noqa: SLF001
            return super().timing(alias)

    usage: dict[str, middleware._Usage] = {"default": Growing()}
    response = HttpResponse()
    middleware._add_headers(response, usage)  # noqa: SLF001
    assert response["Server-Timing"].startswith("cache-default;")
    assert response["Cache-Status"] == "default"
