"""Asks every worker what it sees of an alias, and judges by that alone, never by the alias's name.

Three questions. After one worker wrote: what does each worker read? After 200 concurrent
increments: what does each read? When all add the same key at once: how many are told that they
did? A cache that is shared gives what was written to all, 200 to all, and 1.
"""

import enum
import secrets
from collections import Counter
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from cacheapp.processes.workers import Answer, AnswerLost, Connection, Moved, NotReached, Workers

INCREMENTS = 200
ADD_ROUNDS = 5
_TIMEOUT_S = 300  # what a demo that was killed leaves behind goes by itself


class SharingVerdict(enum.StrEnum):
    """What the answers show."""

    SHARED = "SHARED"
    BROKEN = "BROKEN"
    DOWN = "DOWN"
    """Something was not answered, so nothing can be said."""


class Unanswered(Exception):
    """A worker could not do what it was asked to; the message is the server's."""


@dataclass(frozen=True)
class Sight:
    """What each worker reads after one of them wrote."""

    writer: int
    written: str
    seen: dict[int, Any]

    @property
    def seen_by(self) -> list[int]:
        """The workers that read what was written."""
        return [pid for pid, value in self.seen.items() if value == self.written]


@dataclass(frozen=True)
class Count:
    """What each worker reads after concurrent increments, and what these were told."""

    asked: int
    sums: list[int]
    """The sum that each acknowledged increment was told."""
    unknown: int
    """Increments whose answer was lost, or whose outcome the store does not know."""
    failed: list[str]
    """Why others did not happen."""
    counted: dict[int, Any]
    by_worker: dict[int, int]
    """How many increments each worker acknowledged."""


@dataclass(frozen=True)
class Race:
    """How many of `contenders` concurrent adds of one key won, in each round."""

    contenders: int
    winners: list[int]
    unanswered: int


@dataclass(frozen=True)
class SharingFinding:
    """What was seen of one alias, the verdict, and the sentences that prove it."""

    alias: str
    backend: str
    verdict: SharingVerdict
    why: list[str]
    sight: Sight | None = None
    count: Count | None = None
    race: Race | None = None


def backends_of(workers: Workers) -> dict[str, str]:
    """Return the aliases of the server and the backend that each names."""
    answer = workers.ask(workers.find()[0], "GET", "/api/")
    if answer.status != HTTPStatus.OK:
        raise NotReached(f"GET /api/: {_said(answer)}")
    found: dict[str, str] = answer.body["aliases"]
    return found


def examine(workers: Workers, alias: str, backend: str) -> SharingFinding:
    """Ask the workers about one alias."""
    run = _ProbeRun(workers, alias)
    try:
        sight, count, race = run.sight(), run.count(), run.race()
    except (Unanswered, AnswerLost, Moved) as exc:
        return SharingFinding(alias, backend, SharingVerdict.DOWN, [str(exc)])
    finally:
        run.remove_keys()
    verdict, why = judge(sight, count, race)
    return SharingFinding(alias, backend, verdict, why, sight, count, race)


@dataclass
class _ProbeRun:
    """The questions about one alias, on keys that no other run uses."""

    workers: Workers
    alias: str
    token: str = field(default_factory=lambda: secrets.token_hex(6))

    def _path(self, key: str) -> str:
        return f"/api/cache/{self.alias}/demo-{self.token}-{key}"

    def sight(self) -> Sight:
        """Have one worker write, then all of them read."""
        writer = self.workers.find()[0]
        body = {"value": self.token, "timeout": _TIMEOUT_S}
        _answered(self.workers.ask(writer, "PUT", self._path("value"), body))
        return Sight(writer, self.token, self._read_all("value"))

    def count(self) -> Count:
        """Increment from all workers at once, on every connection one after the other."""
        path = f"{self._path('counter')}/incr"
        body = {"delta": 1, "initial": 0, "timeout": _TIMEOUT_S}
        lines = self.workers.count * self.workers.per_worker

        def add_up(number: int, connection: Connection) -> list[Answer | None]:
            share = len(range(number, INCREMENTS, lines))
            return [_try(connection, path, body) for _ in range(share)]

        answers = [answer for part in self.workers.together(add_up) for answer in part]
        done = [answer for answer in answers if answer and answer.status == HTTPStatus.OK]
        other = [answer for answer in answers if answer and answer.status != HTTPStatus.OK]
        failed = [_said(answer) for answer in other if answer.body.get("outcome") != "info"]
        return Count(
            asked=INCREMENTS,
            sums=sorted(answer.body["value"] for answer in done),
            unknown=INCREMENTS - len(done) - len(failed),
            failed=failed,
            counted=self._read_all("counter"),
            by_worker=dict(Counter(answer.pid for answer in done)),
        )

    def race(self) -> Race:
        """Have all connections add the same key at once, a new one in each round."""
        rounds = [self._add_at_once(f"add{number}") for number in range(ADD_ROUNDS)]
        answers = [answer for part in rounds for answer in part]
        return Race(
            contenders=len(rounds[0]),
            winners=[
                sum(bool(answer and answer.body.get("added")) for answer in part) for part in rounds
            ],
            unanswered=sum(not answer or answer.status != HTTPStatus.OK for answer in answers),
        )

    def _add_at_once(self, key: str) -> list[Answer | None]:
        path = f"{self._path(key)}/add"
        body = {"value": self.token, "timeout": _TIMEOUT_S}
        return self.workers.together(lambda _, connection: _try(connection, path, body))

    def _read_all(self, key: str) -> dict[int, Any]:
        answers = self.workers.each("GET", self._path(key))
        return {pid: _answered(answer).body["value"] for pid, answer in answers.items()}

    def remove_keys(self) -> None:
        """Remove what was written, in every worker's own cache too."""
        for key in ["value", "counter", *(f"add{number}" for number in range(ADD_ROUNDS))]:
            try:
                for answer in self.workers.each("DELETE", self._path(key)).values():
                    _answered(answer)
            except (Unanswered, AnswerLost, Moved, NotReached):
                return  # their timeout removes them; a store that hangs is not asked again


def _try(connection: Connection, path: str, body: dict[str, Any]) -> Answer | None:
    """Send a change once; `None` when its answer was lost."""
    try:
        return connection.ask("POST", path, body)
    except (AnswerLost, NotReached):
        return None


def _answered(answer: Answer) -> Answer:
    if answer.status != HTTPStatus.OK:
        raise Unanswered(_said(answer))
    return answer


def _said(answer: Answer) -> str:
    return str(answer.body.get("error", f"HTTP {answer.status}"))


def judge(sight: Sight, count: Count, race: Race) -> tuple[SharingVerdict, list[str]]:
    """Return the verdict and the sentences that prove it. Pure.

    An increment whose outcome is unknown may have counted or not, so it excuses a sum that is
    larger by one; but with anything unanswered nothing is called shared.
    """
    wrong = [*_wrong_sight(sight), *_wrong_count(count), *_wrong_race(race)]
    if wrong:
        return SharingVerdict.BROKEN, wrong
    unanswered = [
        *([f"{count.unknown} increments have an unknown outcome"] if count.unknown else []),
        *([f"{len(count.failed)} increments failed: {count.failed[0]}"] if count.failed else []),
        *([f"{race.unanswered} adds were not answered"] if race.unanswered else []),
    ]
    if unanswered:
        return SharingVerdict.DOWN, unanswered
    return SharingVerdict.SHARED, [
        f"all {len(sight.seen)} workers read what worker {sight.writer} wrote",
        f"after {count.asked} concurrent increments all of them read {count.asked}",
        f"of {race.contenders} concurrent adds 1 won, in each of {len(race.winners)} rounds",
    ]


def _wrong_sight(sight: Sight) -> list[str]:
    others = [str(pid) for pid in sight.seen if pid not in sight.seen_by]
    if not others:
        return []
    return [f"worker {sight.writer} wrote a value; not seen by worker {', '.join(others)}"]


def _wrong_count(count: Count) -> list[str]:
    wrong = []
    least, most = len(count.sums), len(count.sums) + count.unknown
    values = list(count.counted.values())
    equal = len(set(values)) == 1
    if not equal or not isinstance(values[0], int) or not least <= values[0] <= most:
        read = ", ".join(str(value) for value in values)
        wrong.append(
            f"after {least} acknowledged increments of {count.asked} the workers read {read}; "
            f"expected {least if least == most else f'{least} to {most}'} from each"
        )
    again = len(count.sums) - len(set(count.sums))
    if again:
        wrong.append(f"{again} increments were told a sum that another one was told too")
    return wrong


def _wrong_race(race: Race) -> list[str]:
    # Without all answers the one winner may be among the lost ones; two winners never excuse.
    fewest = 0 if race.unanswered else 1
    if all(fewest <= winners <= 1 for winners in race.winners):
        return []
    told = ", ".join(map(str, race.winners))
    return [f"of {race.contenders} concurrent adds, {told} won; expected 1 in each round"]
