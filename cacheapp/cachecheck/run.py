"""What a workload works with: clients, keys of its own, and limits."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from cacheapp import clock
from cacheapp.cachecheck.adapters.base import OPERATIONS
from cacheapp.cachecheck.journal import Journals
from cacheapp.cachecheck.verdicts import PropertyFinding, PropertyVerdict
from cacheapp.consistency.history import Operation

_KEPT_S = 30  # the key of `try_store`, if it cannot be removed
MARGIN_S = 60.0
"""How long after its time a client may still be in a call before it counts as hung."""


class StoreFailed(Exception):
    """The store of an alias cannot be used: no workload would find anything."""

    def __init__(self, alias: str, why: str) -> None:
        super().__init__(f"alias {alias} was not checked, because its store cannot be used: {why}")


class Crew(Protocol):
    """The clients: processes, or threads with connections to a server's workers."""

    def run(self, work: Callable[..., Any], *args: Any, within_s: float, **how: Any) -> list[Any]:
        """Run `work(session, *args)` in all clients at the same moment; return the results."""


@dataclass
class CheckRun:
    """One alias under examination. Used by one thread.

    `seconds`: the duration of a workload without an end of its own. `max_bytes`: how much may be
    stored at a time.
    """

    crew: Crew
    journals: Journals
    token: str
    seconds: float = 5.0
    evicts: bool = False
    max_bytes: int = 8 * 1024 * 1024
    private: bool = False
    use_async: bool = False
    abilities: frozenset[str] = frozenset(OPERATIONS)
    """What the cache has, by the methods that are used."""
    calls_per_s: dict[bool, float] = field(default_factory=dict)
    """How many calls the clients made, by whether they used the asynchronous methods."""
    written: set[str] = field(default_factory=set)
    """Keys that may have to be removed."""
    copied: Mapping[str, Any] | None = None
    """The entry of `CACHES`, if reads are served from copies with a bound on staleness."""

    def require_store(self, alias: str) -> None:
        """Raise `StoreFailed` unless a key can be stored and removed."""
        found = self.crew.run(try_store, f"{self.token}-first", within_s=MARGIN_S)
        if why := "".join(found):
            raise StoreFailed(alias, why)

    def keys(self, name: str, count: int) -> list[str]:
        """Return keys that no other run uses; they are removed after the workload."""
        suffix = "a" if self.use_async else ""
        found = [f"{self.token}-{name}{suffix}-{number}" for number in range(count)]
        self.written.update(found)
        return found

    def work(self, work: Callable[..., Any], *args: Any, seconds: float | None = None) -> list[Any]:
        """Run `work` in all sessions at the same time; return the results."""
        within_s = (self.seconds if seconds is None else seconds) + MARGIN_S
        return self.crew.run(work, *args, within_s=within_s, use_async=self.use_async)

    def history(self) -> list[Operation]:
        """Return the operations since the last call."""
        return self.journals.collect()

    def first_error(self) -> str:
        """Return the errors of the calls in the last history; empty if there were none."""
        errors = self.journals.errors
        return f"{len(errors)} calls failed, the first with {errors[0]}" if errors else ""


def remove(session: Any, keys: list[str]) -> str:
    """Remove keys in the versions that workloads use, from one session; return the error, if any."""
    try:
        removable = session.number == 0 and "delete" in session.abilities
        for key in keys if removable else []:
            session.cache.delete(key)
            if "-version" in key:
                session.cache.delete(key, version=2)
    except Exception as exc:  # noqa: BLE001 (a foreign backend may raise anything)
        return f"{type(exc).__name__}: {exc}"
    return ""


def try_store(session: Any, key: str) -> str:
    """Store a key and remove it, from one session; return the error, if any."""
    try:
        if session.number == 0:
            (session.cache.add if session.can("add") else session.cache.set)(key, 1, _KEPT_S)
            if session.can("delete"):
                session.cache.delete(key)
    except Exception as exc:  # noqa: BLE001 (a foreign backend may raise anything)
        return f"{type(exc).__name__}: {exc}"
    return ""


def until_s(seconds: float) -> float:
    """Return the moment so many seconds from now, of the monotonic clock."""
    return clock.monotonic_s() + seconds


def not_applicable(*names: str, why: str) -> list[PropertyFinding]:
    """Return the finding for properties that the backend does not have."""
    return [PropertyFinding(name, PropertyVerdict.NOT_APPLICABLE, "", why) for name in names]


def lacks(run: CheckRun, name: str, *needed: str) -> PropertyFinding:
    """Return the finding for a property that needs operations which the cache does not have."""
    missing = [one for one in needed if one not in run.abilities]
    why = (
        f"the cache has no {' and no '.join(missing)}"
        if missing
        else "the cache has no such method"
    )
    return not_applicable(name, why=why)[0]
