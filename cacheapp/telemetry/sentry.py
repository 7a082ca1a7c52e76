"""A Sentry integration: one span for each cache operation.

Sentry's Django integration wraps only `get`, `get_many`, `set` and `set_many`; leave its `cache_spans` off.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping

import sentry_sdk
from sentry_sdk.integrations import Integration
from sentry_sdk.tracing import Span

from cacheapp import clock
from cacheapp.backends.core.operation import Operation
from cacheapp.backends.core.operations import subscribe

_PUT, _REMOVE = "cache.put", "cache.remove"
_OPS: Mapping[str, str] = {
    **dict.fromkeys(("set", "set_many", "add", "incr", "decr", "touch"), _PUT),
    **dict.fromkeys(("delete", "delete_many", "delete_pattern", "evict"), _REMOVE),
    "clear": "cache.flush",
    **dict.fromkeys(("lock_acquire", "lock_release", "lock_extend"), "cache.lock"),
}
_ORIGIN = "auto.cache.cacheapp"


class CacheappIntegration(Integration):
    """Records each operation of a cacheapp backend as a span of the current transaction.

    Pass an object to `sentry_sdk.init(integrations=[…])`. The spans have the keys only with `keys`, or
    with Sentry's `send_default_pii`: the keys of sessions are credentials.
    """

    identifier = "cacheapp"

    def __init__(self, *, keys: bool = False) -> None:
        self.keys = keys

    @staticmethod
    def setup_once() -> None:
        """Subscribe; Sentry calls this once per process."""
        _subscribe()


@functools.cache
def _subscribe() -> Callable[[], None]:
    return subscribe(record, around)


def _begin(operation: Operation, now_s: float) -> Span | None:
    """Return a span that began with the operation, if this client wants one and it is sampled."""
    parent = sentry_sdk.get_current_span()
    if parent is None or not parent.sampled:
        return None
    client = sentry_sdk.get_client()
    integration = client.get_integration(CacheappIntegration)
    if integration is None:
        return None
    shows_keys = integration.keys or client.should_send_default_pii()
    keys = [str(key) for key in operation.keys] if shows_keys else []
    span = parent.start_child(
        op=_OPS.get(operation.operation, "cache.get"),
        name=", ".join(keys) or operation.operation,
        origin=_ORIGIN,
        start_timestamp=now_s - operation.seconds,
    )
    if keys:
        span.set_data("cache.key", keys)
    return span


@contextlib.contextmanager
def around(operation: Operation) -> Iterator[None]:
    """Make the span of a `get_or_set` the parent of what its function does."""
    span = operation.notes.get(_ORIGIN) or _begin(operation, clock.wall_s())
    operation.notes[_ORIGIN] = span
    if span is None:
        yield
        return
    scope = sentry_sdk.get_current_scope()
    outer, scope.span = scope.span, span
    try:
        yield
    finally:
        scope.span = outer


def record(operation: Operation) -> None:
    """Add a finished span, if this client uses the integration and a transaction is sampled."""
    ended_s = clock.wall_s()
    begun = operation.notes.pop(_ORIGIN, None) if operation.operation == "get_or_set" else None
    span = begun or _begin(operation, ended_s)
    if span is None:
        return
    span.set_data("cache.operation", operation.operation)
    span.set_data("cache.alias", operation.alias)
    if operation.hits is not None:
        span.set_data("cache.hit", operation.hits > 0)
    if operation.values:
        span.set_data("cache.item_size", operation.bytes)
    if operation.error is not None:
        span.set_status("internal_error")
    span.finish(end_timestamp=ended_s)
