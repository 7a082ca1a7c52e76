"""Operations on a cache, as recorded by their callers: intervals, arguments, results, outcomes."""

import dataclasses
import enum
import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any


class Absence(enum.Enum):
    """The result of `get` and `incr` without an entry."""

    ABSENT = "absent"

    def __repr__(self) -> str:
        return "absent"


ABSENT = Absence.ABSENT


class OperationKind(enum.StrEnum):
    """A method of Django's cache API on one key."""

    GET = "get"
    SET = "set"
    ADD = "add"
    DELETE = "delete"
    TOUCH = "touch"
    HAS_KEY = "has_key"
    INCR = "incr"
    DECR = "decr"


class Outcome(enum.StrEnum):
    """What the caller may conclude about an operation."""

    OK = "ok"
    """It happened, between call and return."""
    FAIL = "fail"
    """It did not happen, and never will."""
    INFO = "info"
    """Unknown: it may have happened, or may yet, or never."""


_WRITES = frozenset(
    {
        OperationKind.SET,
        OperationKind.ADD,
        OperationKind.DELETE,
        OperationKind.INCR,
        OperationKind.DECR,
    }
)


@dataclass(frozen=True, slots=True)
class Operation:
    """One call on one key by one process.

    `process`: a client that makes one call at a time, for example a thread. `call_ns` and `return_ns`
    are of one monotonic clock; `return_ns` is `None` for a call that did not return.
    `argument`: the value of `set` and `add`, the delta of `incr` and `decr`. `result`: of `get` the
    value or `ABSENT`; of `incr` and `decr` the sum or `ABSENT` (the key was missing); of the others a
    bool, of `delete` also `None` if it did not say; of `set` nothing. With the outcome info, it is the
    result if the call took effect, or `None`.
    """

    process: str
    kind: OperationKind
    key: str
    call_ns: int
    return_ns: int | None
    argument: Hashable = None
    result: Hashable = None
    outcome: Outcome = Outcome.OK

    def __post_init__(self) -> None:
        if self.return_ns is None:
            if self.outcome is Outcome.OK:
                raise ValueError(f"{self}: ok, but it has no return")
        elif self.return_ns < self.call_ns:
            raise ValueError(f"{self}: it returned before it was called")

    @property
    def end(self) -> float:
        """The latest moment at which it took effect; infinity if the outcome is unknown."""
        if self.return_ns is None or self.outcome is Outcome.INFO:
            return math.inf
        return self.return_ns

    @property
    def may_write(self) -> bool:
        """Whether it may have changed the entry, according to its result."""
        if self.kind not in _WRITES:
            return False
        if self.outcome is Outcome.INFO:
            return True
        return self.result is not False and self.result is not ABSENT

    def precedes(self, other: "Operation") -> bool:
        """Return whether it ended before the other began. Intervals that touch are concurrent."""
        return self.end < other.call_ns

    @property
    def label(self) -> str:
        """The call and its result, as text."""
        call = self.kind.value if self.argument is None else f"{self.kind} {self.argument}"
        if self.outcome is not Outcome.OK:
            return f"{call} ?"
        if self.kind is OperationKind.SET:
            return call
        if self.kind in {OperationKind.INCR, OperationKind.DECR, OperationKind.GET}:
            return f"{call} -> {'miss' if self.result is ABSENT else self.result}"
        if self.result is None:
            return call
        return f"{call} -> {'yes' if self.result else 'no'}"

    def as_json(self) -> dict[str, Any]:
        """Return an object for JSON; a miss is the text `"absent"`."""
        fields = dataclasses.asdict(self)
        return {**fields, "result": "absent" if self.result is ABSENT else self.result}


def by_key(operations: Iterable[Operation]) -> Mapping[str, list[Operation]]:
    """Return each key's operations, ordered by call, without those that cannot matter.

    A failed operation did not happen; an unanswered one that changes nothing has no effect.
    """
    found: dict[str, list[Operation]] = {}
    for operation in operations:
        kept = found.setdefault(operation.key, [])
        if operation.outcome is Outcome.OK or (
            operation.outcome is Outcome.INFO and operation.may_write
        ):
            kept.append(operation)
    for kept in found.values():
        kept.sort(key=lambda operation: operation.call_ns)
    return found
