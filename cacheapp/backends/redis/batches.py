"""Calls on more keys than one command takes: batches, and what is known if one of them fails."""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, TypeVar

from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.redis.encoding import encode_payload
from cacheapp.backends.redis.executor import raise_interruption
from cacheapp.errors import OutcomeUnknown, StoreFull, StoreUnavailable

MAX_BATCH_KEYS = 1000  # per command: Redis serves no other client while it runs one
_MAX_BATCH_BYTES = 2**24

SizedT = TypeVar("SizedT", bound=Sized)
T = TypeVar("T")


def in_batches(keys: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield the keys in parts of 1,000."""
    for start in range(0, len(keys), MAX_BATCH_KEYS):
        yield keys[start : start + MAX_BATCH_KEYS]


def batches_of(payloads: Mapping[str, Payload]) -> Iterator[dict[str, Any]]:
    """Yield batches small enough that one command does not block the server for long."""
    part: dict[str, Any] = {}
    size = 0
    for key, payload in payloads.items():
        value = encode_payload(payload)
        if part and (len(part) == MAX_BATCH_KEYS or size + len(value) > _MAX_BATCH_BYTES):
            yield part
            part, size = {}, 0
        part[key] = value
        size += len(value)
    if part:
        yield part


class Progress:
    """How much of a call has been carried out."""

    done = 0


@contextlib.contextmanager
def progress(what: str) -> Iterator[Progress]:
    """Carry out a write in several steps, which count themselves as done.

    If one fails after another was carried out, `OutcomeUnknown` says so, in place of an error that says
    that nothing happened. `what`: what was done, after its number.
    """
    handled_before = sys.exception()
    steps = Progress()
    try:
        yield steps
    except (StoreUnavailable, StoreFull, OutcomeUnknown) as exc:
        raise_interruption(exc, handled_before)
        if not steps.done:
            raise
        raise OutcomeUnknown(f"{steps.done:,} {what}, and then: {exc}") from exc


def run_each(batches: Iterable[SizedT], run: Callable[[SizedT], int], done: str) -> int:
    """Run a write for each batch of keys, as steps of one `progress`; return the sum of the results."""
    total = 0
    with progress(f"keys were {done}") as steps:
        for batch in batches:
            total += run(batch)
            steps.done += len(batch)
    return total
