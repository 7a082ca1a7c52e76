"""The table of metrics: name, meaning, and the counters that each is made from. Pure.

Names follow Prometheus's conventions: the application, the subject, the unit, and `_total` for what
only grows.
"""

import dataclasses
import enum
from collections.abc import Mapping


class Kind(enum.Enum):
    """What a metric does over time."""

    COUNTER = "counter"
    GAUGE = "gauge"


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric made from counters: the sum of its sources, divided."""

    name: str
    text: str
    sources: tuple[str, ...]
    divisor: float = 1

    @property
    def kind(self) -> Kind:
        """The name says it."""
        return Kind.COUNTER if self.name.endswith("_total") else Kind.GAUGE

    def value(self, counts: Mapping[str, int]) -> float:
        """Return the value for these counts."""
        total = sum(counts[name] for name in self.sources)
        return total if self.divisor == 1 else total / self.divisor


def _cache(name: str, text: str, *sources: str, divisor: float = 1) -> Metric:
    return Metric(
        f"cacheapp_cache_{name}", text, sources or (name.removesuffix("_total"),), divisor
    )


CACHE_METRICS = (
    _cache("hits_total", "Keys that a read found."),
    _cache("misses_total", "Keys that a read did not find."),
    _cache("sets_total", "Values stored."),
    _cache("deletes_total", "Keys removed by a caller."),
    _cache("values_rejected_total", "Values removed because this cache did not write them."),
    _cache("errors_raised_total", "Errors of the store that the caller got."),
    _cache("errors_swallowed_total", "Errors of the store that on_error replaced by a result."),
    _cache("breaker_opened_total", "Times that a process stopped calling a server that fails."),
    _cache("breaker_open", "Processes that do not call the server now.", "breaker_open_now"),
    _cache("factory_runs_total", "Computations by get_or_set and @cached."),
    _cache("factory_errors_total", "Computations that raised an exception."),
    _cache("factory_seconds_total", "Time spent computing.", "factory_us", divisor=1e6),
    _cache("lease_waits_total", "Callers that waited for the computation of another one."),
    _cache("stale_hits_total", "Values served knowingly after their deadline."),
    _cache(
        "voided_fills_total", "Computed values not stored, because the key was written meanwhile."
    ),
    _cache("entries", "Entries in the directory of the cache."),
    _cache("used_bytes", "Bytes in use in the directory of the cache.", "bytes_used"),
    _cache("limit_bytes", "Bytes that entries may use.", "bytes_limit"),
    _cache("evictions_total", "Entries removed for space."),
    _cache("expirations_total", "Expired entries removed."),
    _cache("sets_rejected_total", "Values for which there was no space."),
    _cache("reader_slots", "Processes and threads that have the directory open for reading."),
    _cache("copy_hits_total", "Reads served from the copy on this machine."),
    _cache("copy_absent_total", "Reads of keys that the copy did not have."),
    _cache("copy_unproved_total", "Reads that the copy could not serve in time."),
    _cache("copy_excluded_total", "Reads of keys that are kept out of the copy."),
    _cache("copy_fills_total", "Values stored in the copy."),
    _cache("copy_voided_fills_total", "Values not stored in the copy, because they had changed."),
    _cache("copy_invalidations_total", "Keys that the server reported as changed."),
    _cache("copy_entries", "Entries in the copy."),
    _cache("copy_used_bytes", "Bytes in use in the copy.", "copy_bytes_used"),
    _cache(
        "copy_limit_bytes", "Bytes that the copy may use.", "copy_bytes_used", "copy_bytes_free"
    ),
    _cache("copy_evictions_total", "Entries removed from the copy for space."),
)
"""What each cache has, with the labels `alias` and `backend`; a cache without a source lacks the metric."""


def _downloads(name: str, text: str, source: str) -> Metric:
    return Metric(f"cacheapp_downloads_{name}", text, (source,))


DOWNLOAD_METRICS = (
    _downloads("files_succeeded_total", "Files fetched by this machine.", "files_done"),
    _downloads("files_failed_total", "Files given up by this machine.", "files_failed"),
    _downloads("fetched_bytes_total", "Bytes of the files that were fetched.", "bytes_done"),
    _downloads("retries_total", "Attempts after a failed one.", "retries"),
    _downloads("jobs_started_total", "Jobs that a process began to run.", "jobs_started"),
    _downloads("adoptions_total", "Jobs taken over from another process.", "adoptions"),
    _downloads("releases_total", "Jobs given up by a process that ended.", "releases"),
    _downloads("running_jobs", "Jobs that the processes of this machine run.", "jobs_now"),
    _downloads("threads", "Threads that fetch a file.", "threads_now"),
)
"""What downloads have, for this machine."""
