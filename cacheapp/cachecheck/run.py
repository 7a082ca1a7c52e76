"""What a workload works with: clients, keys of this run alone, and the limits that it must keep."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from cacheapp import clock
from cacheapp.cachecheck.journal import Journals
from cacheapp.cachecheck.verdicts import PropertyFinding, PropertyVerdict
from cacheapp.consistency.history import Operation

MARGIN_S = 60.0
"""How long after its time a client may still be in a call, before it counts as hung."""


class Crew(Protocol):
    """Whoever does the work: processes, or threads that talk to a server's workers."""

    def run(self, work: Callable[..., Any], *args: Any, within_s: float, **how: Any) -> list[Any]:
        """Have `work(session, *args)` done by all at one moment; return what each returned."""


@dataclass
class CheckRun:
    """One alias under examination. Used by one thread.

    `seconds`: how long a workload may take that could go on for ever. `max_bytes`: how much may be
    stored at a time.
    """

    crew: Crew
    journals: Journals
    token: str
    seconds: float = 5.0
    evicts: bool = False
    max_bytes: int = 8 * 1024 * 1024
    private: bool = False
    twins: bool = False
    written: set[str] = field(default_factory=set)
    """Keys that may be left to be removed."""

    def keys(self, name: str, count: int) -> list[str]:
        """Return keys that no other run uses; they are removed afterwards."""
        suffix = "a" if self.twins else ""
        found = [f"{self.token}-{name}{suffix}-{number}" for number in range(count)]
        self.written.update(found)
        return found

    def work(self, work: Callable[..., Any], *args: Any, seconds: float | None = None) -> list[Any]:
        """Have all sessions work at the same time; return what each returned."""
        within_s = (self.seconds if seconds is None else seconds) + MARGIN_S
        return self.crew.run(work, *args, within_s=within_s, twins=self.twins)

    def history(self) -> list[Operation]:
        """Return what was written down since the last time."""
        return self.journals.collect()

    def mishap(self) -> str:
        """Return what calls raised in the history collected last; empty if none did."""
        errors = self.journals.errors
        return f"{len(errors)} calls failed, the first with {errors[0]}" if errors else ""


def remove(session: Any, keys: list[str]) -> str:
    """Remove keys, of the versions that workloads use (one session); return what went wrong."""
    try:
        for key in keys if session.number == 0 else []:
            session.cache.delete(key)
            if "-version" in key:
                session.cache.delete(key, version=2)
    except Exception as exc:  # noqa: BLE001 (a foreign backend may raise anything)
        return f"{type(exc).__name__}: {exc}"
    return ""


def until_s(seconds: float) -> float:
    """Return the moment that many seconds from now, of the clock that never steps."""
    return clock.monotonic_s() + seconds


def not_applicable(*names: str, why: str) -> list[PropertyFinding]:
    """Return the verdict for what a backend does not have."""
    return [PropertyFinding(name, PropertyVerdict.NOT_APPLICABLE, "", why) for name in names]
