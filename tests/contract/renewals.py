"""What a cache renews in the background: its leases, and its locks without a timeout."""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

from cacheapp.backends.core.shared import SharedCache


@contextlib.contextmanager
def renewals(cache: SharedCache) -> Iterator[list[Any]]:
    """Collect the leases and the names of locks that this process renews during the block."""
    store = cache._store  # noqa: SLF001 (renewals have no API)
    fill, renew_lock = store.fill, store.renew_lock
    found: list[Any] = []

    def noting_fill(key: str, expected: Any, payload: Any, ttl: float | None) -> bool:
        done = fill(key, expected, payload, ttl)
        if done and expected == payload:
            found.append(payload)
        return done

    def noting_renewal(name: str, token: int, ttl: float | None) -> bool:
        done = renew_lock(name, token, ttl)
        if done:
            found.append(name)
        return done

    with (
        mock.patch.object(store, "fill", noting_fill),
        mock.patch.object(store, "renew_lock", noting_renewal),
    ):
        yield found
