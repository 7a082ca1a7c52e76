"""Decodes what a store returns, and removes values that this cache did not write.

A payload that cannot be decoded counts as a missing key: it never reaches the caller as an error.
"""

import logging
from collections.abc import Callable
from typing import Any

from cacheapp import clock
from cacheapp.backends.core import lease_format
from cacheapp.backends.core.codec import Codec, OtherOptions, Rejected
from cacheapp.backends.core.counters import VALUES_REJECTED
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.core.log_throttle import LogThrottle
from cacheapp.backends.core.store import Store

logger = logging.getLogger(__name__)


class ValueDecoder:
    """The decoder of one cache object. `cache_type` is the name of its class, for the log."""

    rejections = LogThrottle()
    """Without it, a client that can write to the store could fill the disk with log lines."""

    def __init__(
        self, codec: Codec, store: Store, count: Callable[..., None], cache_type: str
    ) -> None:
        self._codec = codec
        self._store = store
        self._count = count
        self._cache_type = cache_type

    def decode(self, key: str, payload: Payload, default: Any) -> Any:
        """Return the value of a visible payload, else `default`.

        A payload that this cache did not write is removed, unless a cache of other options may
        read it.
        """
        try:
            return self._codec.decode(key, payload)
        except Rejected as exc:
            error = exc
        visible = lease_format.visible(payload, clock.wall_s())
        if visible is None:
            return default
        if visible is not payload:  # it has a soft deadline
            try:
                return self._codec.decode(key, visible)
            except Rejected as exc:
                error = exc
        self._count(VALUES_REJECTED)
        if not isinstance(error, OtherOptions) and not self._store.discard(key, payload):
            return default  # it was replaced in between
        if (withheld := self.rejections.due()) is not None:
            logger.warning(
                "%s: rejected a value that this cache did not write (%s; %d more since the last such "
                "line)",
                self._cache_type,
                error,
                withheld,
                extra={"event": "cache_value_rejected"},
            )
        return default
