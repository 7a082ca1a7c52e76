"""One call of a cache as its subscribers see it, and which one is in progress in this thread or task."""

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any

from cacheapp.backends.local.interruptions import is_interruption

UNNAMED = "unnamed"
"""The alias of a cache that was built by hand."""


class Operation:
    """One finished call of a cache or of one of its locks. Subscribers do not change it.

    It has slots and no constructor: those would take as long as the rest of measuring a `get`.
    """

    __slots__ = (
        *("cache", "default", "error", "factory_seconds", "hits", "is_running", "keys"),
        *("notes", "operation", "spent_ns", "values", "waited_seconds"),
    )

    cache: Any
    """The cache, or the lock."""
    operation: str
    """The name of the method; that of the sync one for an async method."""
    keys: tuple[Any, ...]
    """The keys as the caller gave them; the name of a lock."""
    hits: int | None
    """How many keys a read found; `None` if the operation is not a read."""
    spent_ns: int
    """Its whole duration in nanoseconds."""
    error: BaseException | None
    """What the call raised, or the error of the store that `OPTIONS["on_error"]` replaced by a result."""
    factory_seconds: float
    """The time that `get_or_set` spent in the function of its caller."""
    waited_seconds: float
    """The time that it waited for the value of another caller, or for a lock."""
    values: Iterable[Any]
    """The values that were read or written; not to be changed. Empty when the subscribers have run."""
    default: Any
    """What the caller gets for a missing key; of a `get` only."""
    is_running: bool
    """False when its subscribers have been called: a task that it started inherits it."""
    notes: dict[Any, Any]
    """What an `around` leaves for its subscriber; of a `get_or_set` only."""

    @property
    def alias(self) -> str:
        """The name in `CACHES`."""
        return str(self.cache.alias or UNNAMED)

    @property
    def seconds(self) -> float:
        """Its whole duration. Includes `factory_seconds` and `waited_seconds`."""
        return self.spent_ns / 1e9

    @property
    def backend(self) -> str:
        """The name of the class of the cache."""
        return str(self.cache.backend_name)

    @property
    def bytes(self) -> int:
        """The size of the values as the cache stores them. Reading this serializes them once more."""
        try:
            return int(self.cache.stored_bytes(self.values)) if self.values else 0
        except Exception as exc:
            if is_interruption(exc):
                raise
            return 0  # a value that cannot be serialized was not stored either

    def __repr__(self) -> str:
        return f"<{self.alias}.{self.operation} {self.seconds * 1e6:.1f} us>"


def new_operation(cache: Any, name: str) -> Operation:
    """Return an operation that begins."""
    operation = Operation()
    operation.cache = cache
    operation.operation = name
    operation.keys = operation.values = ()
    operation.hits = operation.error = None
    operation.factory_seconds = operation.waited_seconds = 0.0
    operation.spent_ns = 0
    operation.is_running = True
    return operation


Method = Callable[..., Any]

_current: ContextVar[Operation | None] = ContextVar("cacheapp_operation", default=None)
get_current = _current.get
set_current = _current.set


def is_inside() -> bool:
    """Return True if an operation is in progress in this thread or task."""
    return (operation := get_current()) is not None and operation.is_running


def note_error(error: BaseException) -> None:
    """Note an error that the caller does not see."""
    if (operation := get_current()) is not None:
        operation.error = error


def note_miss() -> None:
    """Note that the value was not stored: it is computed, here or by another caller."""
    if (operation := get_current()) is not None:
        operation.hits = 0


def note_wait(seconds: float) -> None:
    """Note that the operation waited."""
    if (operation := get_current()) is not None:
        operation.waited_seconds += seconds
