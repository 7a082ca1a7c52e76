"""NearCaches that break their protocol, for the check of the bound: each lacks one step of it."""

from typing import Any

from cacheapp.backends import NearCache
from cacheapp.backends.near import copy as near_copy
from cacheapp.backends.near import records
from cacheapp.backends.near.store import NearStore
from cacheapp.processes.waiting import pause


class SlowCache(NearCache):
    """A correct one in a process that is often late: between what it reads and what it stores."""

    LATE_S = 0.02

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        late_s, fetch_one = self.LATE_S, NearStore.fetch_one

        def fetch_late(self: NearStore, key: str) -> Any:
            found = fetch_one(self, key)
            pause(late_s)
            return found

        if fetch_one.__name__ != "fetch_late":
            NearStore.fetch_one = fetch_late  # type: ignore[method-assign]


class FillsBlindly(SlowCache):
    """It stores what a fill read, whatever has changed since."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        end_fill = records.end_fill

        def end_blindly(env: Any, transaction: Any, rows: Any, fill: Any) -> int:
            if fill is not None:
                changes = {name: env.reference_bits.changes(name) for name in fill.changes}
                fill = fill._replace(changes=changes)
            return end_fill(env, transaction, rows, fill)

        if end_fill.__name__ == "end_fill":
            records.end_fill = end_blindly


class KeepsItsEpoch(NearCache):
    """It goes on with the old epoch on a new connection."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)

        def begin_none(self: Any, owner: bytes) -> None:
            if not self.figures()["copy_epoch"]:
                self._retry.shrink(records.begin_epoch, owner)

        near_copy.LocalCopy.begin_epoch = begin_none  # type: ignore[method-assign]


class IgnoresInvalidations(NearCache):
    """It applies none, and confirms."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        apply = near_copy.LocalCopy.apply

        def apply_none(self: Any, owner: bytes, keys: Any, **options: Any) -> int:
            del keys
            return apply(self, owner, [], **options)

        if apply.__name__ == "apply":
            near_copy.LocalCopy.apply = apply_none  # type: ignore[method-assign]
