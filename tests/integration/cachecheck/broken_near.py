"""NearCaches that break their protocol, for the check of the bound: each lacks one step of it."""

from collections.abc import Callable
from typing import Any

from cacheapp import clock
from cacheapp.backends import NearCache
from cacheapp.backends.core import helper_thread
from cacheapp.backends.near import records
from cacheapp.backends.near.cluster import TrackedCluster
from cacheapp.backends.near.cluster_store import NearClusterStore
from cacheapp.backends.near.cluster_view import Member
from cacheapp.backends.near.copy import LocalCopy
from cacheapp.backends.near.listener import InvalidationListener
from cacheapp.backends.near.store import NearStore
from cacheapp.backends.redis.store import RedisStore
from cacheapp.cachecheck.workloads.bounded import HOT_SUFFIX
from cacheapp.processes.waiting import pause

_replaced: set[tuple[Any, str]] = set()


def _replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Replace a function by what `make` makes of it, once in each process."""
    if (owner, name) not in _replaced:
        _replaced.add((owner, name))
        setattr(owner, name, make(getattr(owner, name)))


class SlowCache(NearCache):
    """A correct one in a process that is often late: between what it reads and what it stores."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        for store in (NearStore, NearClusterStore):
            _replace(store, "fetch_one", _late)


def _late(fetch_one: Any) -> Any:
    def fetch_late(self: NearStore, key: str) -> Any:
        found = fetch_one(self, key)
        if HOT_SUFFIX in key:
            pause(0.02)
        return found

    return fetch_late


class FillsBlindly(SlowCache):
    """It stores what a fill read, whatever has changed since: there is no lease."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        _replace(records, "_end_fill_of", _blind)


def _blind(end_fill_of: Any) -> Any:
    def end_blindly(env: Any, transaction: Any, row: Any, fill: Any, epoch: int) -> bool:
        if fill is not None:
            changes = {name: env.reference_bits.changes(name) for name in fill.changes}
            fill = fill._replace(changes=changes)
        return bool(end_fill_of(env, transaction, row, fill, epoch))

    return end_blindly


class KeepsItsEpoch(NearCache):
    """It goes on with the old epoch on a new connection."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        _replace(LocalCopy, "begin_epoch", _first_only)


def _first_only(begin_epoch: Any) -> Any:
    def begin_first(self: LocalCopy, *args: bytes) -> None:
        if not self.figures()["copy_epoch"]:
            begin_epoch(self, *args)

    return begin_first


class CountsFromThePong(NearCache):
    """Its bound counts from when the reply to a PING arrived, not from when one was sent."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        _replace(LocalCopy, "apply", _confirming_from_now)


def _confirming_from_now(apply: Any) -> Any:
    def apply_late(self: LocalCopy, owner: bytes, keys: Any, **options: Any) -> int:
        if options.get("confirmed"):
            _until, lag_s = options["confirmed"]
            options["confirmed"] = clock.boot_s() + self.max_staleness, lag_s
        return int(apply(self, owner, keys, **options))

    return apply_late


class InheritsTheListening(NearCache):
    """A process that was forked from the listener takes over from it as if it had never been another.

    So it is with a lock that a forked child inherits, and that its parent's death does not release:
    the child holds it, and finds no reason to begin anew.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        _replace(NearStore, "after_fork_in_child", _inheriting)
        _replace(InvalidationListener, "ensure", _ensuring_as_heir)
        _replace(LocalCopy, "begin_epoch", _unless_inherited)


_inherited: set[bytes] = set()


def _inheriting(after_fork: Any) -> Any:
    def inherit(self: NearStore) -> None:
        if (owner := self.invalidations._owner) is not None:  # noqa: SLF001
            _inherited.add(owner)
        after_fork(self)

    return inherit


def _ensuring_as_heir(ensure: Any) -> Any:
    def ensure_as_heir(self: InvalidationListener, state: records.State, now: float) -> None:
        if now < state.claimed_until or self._thread is not None:
            return
        if state.owner in _inherited:
            self._owner = state.owner
            helper_thread.start("cacheapp-near", self._run, state.owner)
        else:
            ensure(self, state, now)

    return ensure_as_heir


def _unless_inherited(begin_epoch: Any) -> Any:
    def begin(self: LocalCopy, owner: bytes, *args: bytes) -> None:
        if owner not in _inherited:
            begin_epoch(self, owner, *args)

    return begin


class KeepsAfterALostReply(NearCache):
    """It removes nothing from the copy after a write whose reply was lost."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        _replace(NearStore, "set", lambda _method: _forgetting_if_done)


def _forgetting_if_done(self: NearStore, key: str, *args: Any) -> Any:
    RedisStore.set(self, key, *args)
    self.copy.forget([key])


class IgnoresInvalidations(NearCache):
    """It applies none, and confirms."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        _replace(LocalCopy, "apply", _applying_none)


def _applying_none(apply: Any) -> Any:
    def apply_none(self: LocalCopy, owner: bytes, keys: Any, **options: Any) -> int:
        del keys
        return int(apply(self, owner, [], **options))

    return apply_none


class FollowsOneNode(NearCache):
    """Of a cluster, only one node sends it the names of keys that change."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        _replace(TrackedCluster, "_connect_to", _tracking_the_first)


def _tracking_the_first(connect_to: Any) -> Any:
    def connect(
        self: TrackedCluster, member: Member, addresses: Any, connections: Any, messages: Any
    ) -> None:
        member = member._replace(is_primary=not connections)  # of others no keys are tracked
        connect_to(self, member, addresses, connections, messages)

    return connect
