"""The metrics of `/metrics`, in the formats of Prometheus and OpenMetrics.

Any process gives the sums of the machine: they are in shared memory and in the database, not in the
process. So the library's own registry and its directory for several processes are not used, and a
worker that is killed takes no count with it.
"""

import logging
from collections.abc import Callable, Iterator

from django.conf import settings
from django.core.cache import caches
from django.db import DatabaseError

from cacheapp.backends.core.shared import SharedCache
from cacheapp.conf import conf
from cacheapp.errors import CacheappError
from cacheapp.extras import needed_for
from cacheapp.telemetry import operation_counts
from cacheapp.telemetry.installed import has_downloads
from cacheapp.telemetry.metric_table import CACHE_METRICS, DOWNLOAD_METRICS, Kind, Metric

with needed_for("/metrics", "metrics"):
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )
    from prometheus_client.core import (
        Metric as Family,
    )
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.registry import Collector, CollectorRegistry

logger = logging.getLogger(__name__)


def exposition(accept: str) -> tuple[bytes, str]:
    """Return all metrics in the format that the `Accept` header prefers, and its content type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Machine())
    encoder, content_type = choose_encoder(accept)
    return encoder(registry), content_type


class _Machine(Collector):
    """Collects the metrics of this machine, at each scrape anew."""

    def collect(self) -> Iterator[Family]:
        """Yield each family."""
        yield from _of_caches()
        if conf().metrics:
            yield from _of_operations()
        if has_downloads():
            yield from _of_downloads()

    def describe(self) -> list[Family]:
        """Return nothing: the names are unique by construction."""
        return []


def shared_caches() -> dict[str, SharedCache]:
    """Return the caches of this project by alias; of equal entries, which are one cache, the first."""
    found: dict[str, SharedCache] = {}
    for alias in settings.CACHES:
        cache = caches[alias]
        if isinstance(cache, SharedCache):
            found.setdefault(cache.alias or alias, cache)
    return found


def _of_caches() -> Iterator[Family]:
    labels = ["alias", "backend"]
    up = GaugeMetricFamily(
        "cacheapp_cache_up", "Whether the figures of the cache could be read.", labels=labels
    )
    families = [(metric, _family(metric, labels)) for metric in CACHE_METRICS]
    for alias, cache in shared_caches().items():
        values = [alias, cache.backend_name]
        try:
            stats = cache.stats()
        except CacheappError as exc:  # its message may name paths and hosts
            logger.warning("%s: %s", alias, exc, extra={"event": "metrics_cache_unreadable"})
            stats = {}
        up.add_metric(values, 1 if stats else 0)
        for metric, family in families:
            if all(name in stats for name in metric.sources):
                family.add_metric(values, metric.value(stats))
    yield up
    yield from (family for _, family in families if family.samples)


def _of_operations() -> Iterator[Family]:
    durations = HistogramMetricFamily(
        "cacheapp_cache_operation_duration_seconds",
        "Duration of cache operations; of a lock, how long it took to acquire.",
        labels=["alias", "operation"],
    )
    errors = CounterMetricFamily(
        "cacheapp_cache_operation_errors",
        "Cache operations that failed, by the kind of the error.",
        labels=["alias", "kind"],
    )
    for alias in shared_caches():
        for found in operation_counts.durations(alias):
            durations.add_metric(
                [alias, found.operation], _buckets(found.by_class), sum_value=found.total_s
            )
        for kind, count in operation_counts.errors(alias).items():
            errors.add_metric([alias, kind], count)
    yield durations
    yield errors


def _buckets(by_class: tuple[int, ...]) -> list[tuple[str, float]]:
    """Return cumulative counts, as a histogram has them."""
    bounds = [*(str(bound) for bound in operation_counts.BOUNDS_S), "+Inf"]
    return [(bound, sum(by_class[: number + 1])) for number, bound in enumerate(bounds)]


def _of_downloads() -> Iterator[Family]:
    from cacheapp.telemetry import download_figures  # noqa: PLC0415 (where downloads are installed)

    totals = download_figures.machine_totals()
    for metric in DOWNLOAD_METRICS:
        family = _family(metric, [])
        family.add_metric([], metric.value(totals))
        yield family
    yield from _from_database(
        ("jobs", "Jobs in the database, by state.", download_figures.jobs_by_state),
        ("files", "Files of the jobs in the database, by state.", download_figures.files_by_state),
    )


def _from_database(*figures: tuple[str, str, Callable[[], dict[str, int]]]) -> Iterator[Family]:
    up = GaugeMetricFamily("cacheapp_downloads_database_up", "Whether the database responds.")
    found = []
    try:
        for name, text, read in figures:
            family = GaugeMetricFamily(f"cacheapp_downloads_{name}", text, labels=["state"])
            for state, count in read().items():
                family.add_metric([state], count)
            found.append(family)
    except DatabaseError as exc:
        logger.warning("the database is unavailable: %s", exc, extra={"event": "no_database"})
        found = []
    up.add_metric([], 1 if found else 0)
    yield up
    yield from found


def _family(metric: Metric, labels: list[str]) -> CounterMetricFamily | GaugeMetricFamily:
    cls = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    return cls(metric.name.removesuffix("_total"), metric.text, labels=labels)
