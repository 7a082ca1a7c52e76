"""Probe over HTTP whether all workers share an alias; its name and backend play no part.

Three tests: one worker writes, and each worker reads; all workers make 200 concurrent increments,
and each worker reads the sum; all connections add the same key at once. In a shared cache each
worker reads the value, each reads 200, and one add wins.
"""

import secrets
from collections import Counter
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from cacheapp.consistency.sharing import (
    CounterReads,
    SharingJudgement,
    SharingVerdict,
    WriteReads,
    counter_confirmations,
    counter_contradictions,
    write_confirmations,
    write_contradictions,
)
from cacheapp.consistency.sharing import judge as judge_sharing
from cacheapp.processes.workers import Answer, AnswerLost, Connection, Moved, NotReached, Workers

INCREMENTS = 200
ADD_ROUNDS = 5
_TIMEOUT_S = 300  # removes the keys of a killed demo


class Unanswered(Exception):
    """A worker answered with an error; the message is the server's."""


@dataclass(frozen=True)
class Sight:
    """What each worker reads after one of them wrote."""

    writer: int
    written: str
    seen: dict[int, Any]

    @property
    def reads(self) -> WriteReads:
        """The observation as the judgement takes it."""
        return WriteReads(self.writer, self.written, self.seen)

    @property
    def seen_by(self) -> list[int]:
        """The workers that read the value."""
        return self.reads.seen_by


@dataclass(frozen=True)
class Count:
    """What each worker reads after concurrent increments, and what these returned."""

    asked: int
    sums: list[int]
    """The sum that each acknowledged increment returned."""
    unknown: int
    """Increments without an answer, or with an outcome that the store does not know."""
    failed: list[str]
    """The errors of increments that did not happen."""
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
    """The verdict on one alias, the sentences that prove it, and the observations."""

    alias: str
    backend: str
    verdict: SharingVerdict
    why: list[str]
    sight: Sight | None = None
    count: Count | None = None
    race: Race | None = None


def backends_of(workers: Workers) -> dict[str, str]:
    """Return the aliases of the server, each with its backend."""
    answer = workers.ask(workers.find()[0], "GET", "/api/")
    if answer.status != HTTPStatus.OK:
        raise NotReached(f"GET /api/: {_error(answer)}")
    found: dict[str, str] = answer.body["aliases"]
    return found


def examine(workers: Workers, alias: str, backend: str) -> SharingFinding:
    """Probe one alias."""
    run = _ProbeRun(workers, alias)
    try:
        sight, count, race = run.sight(), run.count(), run.race()
    except (Unanswered, AnswerLost, Moved) as exc:
        return SharingFinding(alias, backend, SharingVerdict.DOWN, [str(exc)])
    finally:
        run.remove_keys()
    found = judge(sight, count, race)
    return SharingFinding(alias, backend, found.verdict, found.why, sight, count, race)


@dataclass
class _ProbeRun:
    """One probe of one alias, on keys that no other run uses."""

    workers: Workers
    alias: str
    token: str = field(default_factory=lambda: secrets.token_hex(6))

    def _path(self, key: str) -> str:
        return f"/api/cache/{self.alias}/demo-{self.token}-{key}"

    def sight(self) -> Sight:
        """Write from one worker, then read from all."""
        writer = self.workers.find()[0]
        body = {"value": self.token, "timeout": _TIMEOUT_S}
        _answered(self.workers.ask(writer, "PUT", self._path("value"), body))
        return Sight(writer, self.token, self._read_all("value"))

    def count(self) -> Count:
        """Increment from all connections at once; each sends its share one after the other."""
        path = f"{self._path('counter')}/incr"
        body = {"delta": 1, "initial": 0, "timeout": _TIMEOUT_S}
        lines = self.workers.count * self.workers.per_worker

        def add_up(number: int, connection: Connection) -> list[Answer | None]:
            share = len(range(number, INCREMENTS, lines))
            return [_try(connection, path, body) for _ in range(share)]

        answers = [answer for part in self.workers.together(add_up) for answer in part]
        done = [answer for answer in answers if answer and answer.status == HTTPStatus.OK]
        other = [answer for answer in answers if answer and answer.status != HTTPStatus.OK]
        failed = [_error(answer) for answer in other if answer.body.get("outcome") != "info"]
        return Count(
            asked=INCREMENTS,
            sums=sorted(answer.body["value"] for answer in done),
            unknown=INCREMENTS - len(done) - len(failed),
            failed=failed,
            counted=self._read_all("counter"),
            by_worker=dict(Counter(answer.pid for answer in done)),
        )

    def race(self) -> Race:
        """Add the same key from all connections at once, a new key in each round."""
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
        """Remove the keys from every worker, which may have a cache of its own."""
        for key in ["value", "counter", *(f"add{number}" for number in range(ADD_ROUNDS))]:
            try:
                for answer in self.workers.each("DELETE", self._path(key)).values():
                    _answered(answer)
            except (Unanswered, AnswerLost, Moved, NotReached):
                return  # a store that hangs is not called again; the timeout removes the keys


def _try(connection: Connection, path: str, body: dict[str, Any]) -> Answer | None:
    """Send a change once; return `None` if its answer was lost."""
    try:
        return connection.ask("POST", path, body)
    except (AnswerLost, NotReached):
        return None


def _answered(answer: Answer) -> Answer:
    if answer.status != HTTPStatus.OK:
        raise Unanswered(_error(answer))
    return answer


def _error(answer: Answer) -> str:
    return str(answer.body.get("error", f"HTTP {answer.status}"))


def judge(sight: Sight, count: Count, race: Race) -> SharingJudgement:
    """Return the verdict and the sentences that prove it. Pure.

    Nothing is called shared while the outcome of a request is unknown.
    """
    write = sight.reads
    repeated = len(count.sums) - len(set(count.sums))
    counter = CounterReads(len(count.sums), count.unknown, repeated, count.counted)
    return judge_sharing(
        [
            *write_contradictions(write),
            *counter_contradictions(counter),
            *_race_contradictions(race),
        ],
        down=_unanswered(count, race),
        confirmations=[
            *write_confirmations(write),
            *counter_confirmations(counter),
            f"of {race.contenders} concurrent adds 1 won, in each of {len(race.winners)} rounds",
        ],
    )


def _unanswered(count: Count, race: Race) -> list[str]:
    found = []
    if count.unknown:
        found.append(f"{count.unknown} increments have an unknown outcome")
    if count.failed:
        found.append(f"{len(count.failed)} increments failed: {count.failed[0]}")
    if race.unanswered:
        found.append(f"{race.unanswered} adds were not answered")
    return found


def _race_contradictions(race: Race) -> list[str]:
    # The winner may be among the lost answers; two winners are wrong in any case.
    fewest = 0 if race.unanswered else 1
    if all(fewest <= winners <= 1 for winners in race.winners):
        return []
    winners = ", ".join(map(str, race.winners))
    return [f"of {race.contenders} concurrent adds, {winners} won; expected 1 in each round"]
