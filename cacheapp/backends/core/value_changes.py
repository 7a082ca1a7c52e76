"""Changes a value by compare-and-set, where the store has no operation of its own for it.

Each failure of a compare-and-set means that another write succeeded, so some caller always makes
progress.
"""

from typing import Any

from cacheapp.backends.core import lease_format
from cacheapp.backends.core.codec import Codec
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.core.store import Store
from cacheapp.backends.core.value_decoder import ValueDecoder

_MISSING = object()


class ValueChanges:
    """The changes of values in one store."""

    def __init__(self, store: Store, codec: Codec, decoder: ValueDecoder) -> None:
        self._store = store
        self._codec = codec
        self._decode = decoder.decode

    def add(self, key: Any, final: str, delta: float, found: Payload | None) -> int | None:
        """Add to a float, or an integer that the store cannot count; return the sum.

        `found` is the payload if the store has just read it. `None`: the key is missing. Raises
        `TypeError`, which names `key`, if the value is not a number.
        """
        payload = self._store.get(final) if found is None else found
        while payload is not None:
            value = self._decode(final, payload, _MISSING)
            if value is _MISSING:
                return None
            if not isinstance(value, int | float):
                raise TypeError(
                    f"Key {key!r} holds a {type(value).__name__}; only numbers can be incremented"
                )
            total = value + delta
            if self._store.replace(final, payload, self._encoded(final, total, payload)):
                return total  # type: ignore[return-value]  # Django's stubs know no float counters
            payload = self._store.get(final)
        return None

    def move(self, source: str, target: str) -> bool:
        """Move a value to another key, with its deadline; return False if it is missing."""
        while (payload := self._store.get(source)) is not None:
            value = self._decode(source, payload, _MISSING)
            if value is _MISSING:
                return False
            new = self._encoded(target, value, payload)
            if source == target or self._store.move(source, target, payload, new):
                return True
        return False

    def _encoded(self, key: str, value: Any, like: Payload) -> Payload:
        """Return the payload of a value, with the soft deadline of another one."""
        return lease_format.keep_soft_deadline(self._codec.encode(key, value), like)
