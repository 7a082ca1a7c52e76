"""Clients over HTTP: threads with connections to known workers of a Gunicorn, through the demo.

This judges the cache of the workers: each connection stays with one worker, so a session is one
thread of one worker. Only the operations of the demo's endpoints are available.
"""

import tempfile
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from secrets import token_hex
from typing import Any

from cacheapp import clock
from cacheapp.cachecheck.examine import OVER_HTTP, CheckPlan, Examination, Workload
from cacheapp.cachecheck.journal import Journals
from cacheapp.cachecheck.run import CheckRun
from cacheapp.cachecheck.session import ClientSession
from cacheapp.cachecheck.verdicts import AliasReport, PropertyFinding, PropertyVerdict
from cacheapp.errors import OutcomeUnknown, StoreUnavailable
from cacheapp.processes.workers import Answer, AnswerLost, Connection, Moved, NotReached, Workers

_LEAD_NS = 30_000_000


class HttpCache:
    """The part of Django's cache API that the demo's endpoints support, in one worker."""

    def __init__(self, connection: Connection, alias: str) -> None:
        self._connection = connection
        self._alias = alias
        self._worker = connection.pid

    def _ask(self, method: str, key: str, what: str = "", **body: Any) -> Answer:
        path = f"/api/cache/{self._alias}/{key}{what}"
        try:
            answer = self._connection.ask(method, path, body or None)
        except NotReached as exc:
            raise StoreUnavailable(str(exc)) from exc
        except AnswerLost as exc:
            raise OutcomeUnknown(str(exc)) from exc
        if answer.status == HTTPStatus.NOT_FOUND and answer.body.get("hit") is False:
            raise ValueError(answer.body.get("error"))
        if answer.status != HTTPStatus.OK:
            kind = StoreUnavailable if answer.body.get("outcome") == "fail" else OutcomeUnknown
            raise kind(answer.body.get("error", f"HTTP {answer.status}"))
        return answer

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value, or `default`."""
        body = self._ask("GET", key).body
        return body["value"] if body["hit"] else default

    def set(self, key: str, value: Any, timeout: float) -> None:
        """Store the value."""
        self._ask("PUT", key, value=value, timeout=timeout)

    def add(self, key: str, value: Any, timeout: float) -> bool:
        """Store the value if the key is absent; return whether this call did."""
        return bool(self._ask("POST", key, "/add", value=value, timeout=timeout).body["added"])

    def touch(self, key: str, timeout: float) -> bool:
        """Give the key a timeout; return whether it was there."""
        return bool(self._ask("POST", key, "/touch", timeout=timeout).body["hit"])

    def delete(self, key: str) -> bool:
        """Remove the key; return whether it was there."""
        return bool(self._ask("DELETE", key).body["hit"])

    def incr(self, key: str, delta: int = 1) -> int:
        """Add to a number. `ValueError`: no such key."""
        return int(self._ask("POST", key, "/incr", delta=delta).body["value"])

    def decr(self, key: str, delta: int = 1) -> int:
        """Subtract from a number. `ValueError`: no such key."""
        return self.incr(key, -delta)


class HttpCrew:
    """Sessions in threads of this process, each with a connection to a known worker."""

    def __init__(self, workers: Workers, alias: str, seed: int, directory: Path) -> None:
        self._workers = workers
        self._alias = alias
        self._seed = seed
        self._directory = directory
        self._orders = 0

    def run(self, work: Callable[..., Any], *args: Any, within_s: float, **_how: Any) -> list[Any]:
        """Run `work(session, *args)` in all clients at the same moment; return the results."""
        del within_s  # the connection has a timeout of its own
        count = self._workers.count * self._workers.per_worker
        start_ns = clock.monotonic_ns() + _LEAD_NS
        self._orders += 1

        def one(number: int, connection: Connection) -> Any:
            # Neighbouring numbers belong to one worker: spread them.
            worker, turn = divmod(number, self._workers.per_worker)
            place = (turn * self._workers.count + worker, count, self._orders)
            name = f"w{worker + 1}.{turn + 1}"
            session = ClientSession(
                HttpCache(connection, self._alias), name, place, self._seed, self._directory
            )
            try:
                session.until_ns(start_ns)
                return work(session, *args)
            finally:
                session.close()

        return self._workers.together(one)


class HttpExamination(Examination):
    """An examination of an alias in the workers of a running Gunicorn."""

    def __init__(self, alias: str, backend: str, plan: CheckPlan, url: str) -> None:
        super().__init__(alias, backend, plan)
        self._url = url

    def chosen(self) -> list[tuple[str, Workload, bool]]:
        """Return the workloads in the plan that the demo's endpoints support."""
        return [one for one in super().chosen() if one[0] in OVER_HTTP]

    def run(self, began: Callable[[str], None] = lambda _name: None) -> AliasReport:
        """Run the workloads; `began(name)` is called before each."""
        plan = self.plan
        self._began_s = clock.monotonic_s()
        with (
            tempfile.TemporaryDirectory(prefix="cachecheck-") as name,
            Workers(self._url, plan.processes, plan.threads) as workers,
        ):
            journals = Journals(Path(name))
            crew = HttpCrew(workers, self.alias, plan.seed, journals.directory)
            token = f"cachecheck-{token_hex(6)}"
            run = CheckRun(crew, journals, token, plan.seconds, plan.evicts)
            run.require_store(self.alias)
            for title, workload, _twins in self.chosen():
                began(title)
                try:
                    self.findings += workload(run)
                except (AnswerLost, NotReached, Moved) as exc:
                    self.findings.append(
                        PropertyFinding(title, PropertyVerdict.UNKNOWN, "", str(exc))
                    )
                finally:
                    _remove(workers, self.alias, sorted(run.written))
                    run.written.clear()
        return self.report


def _remove(workers: Workers, alias: str, keys: list[str]) -> None:
    """Remove the keys from every worker, which may have a cache of its own."""
    for key in keys:
        try:
            workers.each("DELETE", f"/api/cache/{alias}/{key}")
        except (AnswerLost, NotReached, Moved):
            return  # their timeout removes them
