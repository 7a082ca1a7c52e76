"""Judge whether all workers share one cache, from what each of them reads.

The only place that decides it: for `manage.py demo`, the front page and the experiment
`not-shared`. The name and the backend of the alias play no part.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


class SharingVerdict(enum.StrEnum):
    """What the reads of the workers show."""

    SHARED = "SHARED"
    BROKEN = "BROKEN"
    DOWN = "DOWN"
    """The store refused an operation or did not answer."""
    OPEN = "OPEN"
    """Not decided: nothing was written, or not all workers answered."""


@dataclass(frozen=True)
class SharingJudgement:
    """A verdict and the sentences that prove it."""

    verdict: SharingVerdict
    why: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class WriteReads:
    """What each worker (by pid) reads after one of them wrote a value."""

    writer: int
    value: Any
    reads: Mapping[int, Any]

    @property
    def seen_by(self) -> list[int]:
        """The workers that read the value."""
        return [pid for pid, value in self.reads.items() if value == self.value]


@dataclass(frozen=True)
class CounterReads:
    """What each worker (by pid) reads after concurrent increments from 0."""

    acknowledged: int
    unknown: int
    """Increments that may have happened or not."""
    repeated: int
    """Increments that returned the same sum as another one."""
    reads: Mapping[int, Any]


def judge(
    contradictions: Sequence[str],
    *,
    down: Sequence[str] = (),
    incomplete: Sequence[str] = (),
    confirmations: Sequence[str] = (),
) -> SharingJudgement:
    """Return the verdict. The arguments are sentences, in the order in which they decide.

    BROKEN requires only two workers that disagree; SHARED requires the answers of all.
    """
    ladder = (
        (SharingVerdict.BROKEN, contradictions),
        (SharingVerdict.DOWN, down),
        (SharingVerdict.OPEN, incomplete),
        (SharingVerdict.SHARED, confirmations),
    )
    for verdict, sentences in ladder:
        if sentences:
            return SharingJudgement(verdict, list(sentences))
    return SharingJudgement(SharingVerdict.OPEN, ["nothing was written yet"])


def is_shared(seen_by: int, workers: int, values: int = 1) -> bool:
    """Return whether all workers read what one wrote, and all read the same value."""
    return seen_by == workers and values == 1


def write_contradictions(write: WriteReads, *, may_be_gone: bool = False) -> list[str]:
    """Return what contradicts sharing. `may_be_gone`: that no worker reads the value does not."""
    if is_shared(len(write.seen_by), len(write.reads)) or (may_be_gone and not write.seen_by):
        return []
    others = [str(pid) for pid in write.reads if pid not in write.seen_by]
    missed = f"{'worker' if len(others) == 1 else 'workers'} {_list(others)}"
    return [f"worker {write.writer} wrote {write.value!r}; not seen by {missed}"]


def write_confirmations(write: WriteReads) -> list[str]:
    """Return the sentence that all workers read the value, if they do."""
    if not is_shared(len(write.seen_by), len(write.reads)):
        return []
    return [f"all {len(write.reads)} workers read what worker {write.writer} wrote"]


def counter_contradictions(counter: CounterReads, *, may_be_gone: bool = False) -> list[str]:
    """Return what contradicts sharing. `may_be_gone`: that no worker has the counter does not.

    An increment with an unknown outcome excuses a sum that is larger by one, never a smaller one.
    """
    numbers = list(counter.reads.values())
    if may_be_gone and all(number is None for number in numbers):
        return []
    least, most = counter.acknowledged, counter.acknowledged + counter.unknown
    wrong = []
    same = len(set(map(repr, numbers))) == 1
    if not same or not isinstance(numbers[0], int) or not least <= numbers[0] <= most:
        read = _list(["nothing" if number is None else str(number) for number in numbers])
        expected = str(least) if least == most else f"{least} to {most}"
        wrong.append(
            f"after {least} acknowledged increments the workers read {read}; "
            f"expected {expected} from each"
        )
    if counter.repeated:
        wrong.append(f"{counter.repeated} increments returned the same sum as another one")
    return wrong


def counter_confirmations(counter: CounterReads) -> list[str]:
    """Return the sentence that all workers read the sum, if there is one and all have it."""
    numbers = list(counter.reads.values())
    if not counter.acknowledged or any(number is None for number in numbers):
        return []
    return [f"after {counter.acknowledged} concurrent increments all of them read {numbers[0]}"]


def _list(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
