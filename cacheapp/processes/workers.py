"""An HTTP client with open connections to every worker of a server, each to a known worker.

The kernel chooses which worker accepts a new connection. A connection then stays with its worker, so
one request for the `pid` identifies it, and a request can be sent to every worker. Changes are sent
once and never repeated: a lost response leaves the outcome unknown.
"""

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from cacheapp import clock

T = TypeVar("T")

ANSWER_WITHIN_S = 100.0  # four workers may take that long to start on a busy machine
FRESH_S = 1.0  # Gunicorn closes a connection after `keepalive` idle seconds, 5 here
_HTTP_ERRORS = (OSError, http.client.HTTPException)


class NotReached(Exception):
    """No connection, or fewer workers than expected; no request was sent."""


class AnswerLost(Exception):
    """The request was sent, but no response came: a change may have happened, or may still happen."""


class Moved(Exception):
    """Another worker answered than expected: workers were replaced."""


@dataclass(frozen=True)
class Answer:
    """The response of one worker."""

    status: int
    body: dict[str, Any]

    @property
    def pid(self) -> int:
        """The worker that responded."""
        return int(self.body.get("pid", 0))


class Connection:
    """One keep-alive connection; used by one thread at a time. `pid` is the worker at its end.

    Only `abort` may be called by other threads; `_aborted` never becomes false again.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise NotReached(f"{url!r} is not the address of a server; expected http://host:port")
        self._url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()  # no password
        self._base = parts.path.rstrip("/")
        self._http = http.client.HTTPConnection(
            parts.hostname, parts.port or 80, timeout=ANSWER_WITHIN_S
        )
        self._used_s = clock.monotonic_s()
        self._aborted = False
        self.pid = 0

    @property
    def open(self) -> bool:
        """Whether the connection is open, as far as known: the server may have closed it silently."""
        return self._http.sock is not None

    @property
    def fresh(self) -> bool:
        """Whether it was used so recently that the server cannot have closed it as idle."""
        return self.open and clock.monotonic_s() - self._used_s < FRESH_S

    def ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, cookie: str = ""
    ) -> Answer:
        """Send one request, once; raise `NotReached` or `AnswerLost`."""
        data = None if body is None else json.dumps(body).encode()
        headers = {} if data is None else {"Content-Type": "application/json"}
        if cookie:
            headers["Cookie"] = cookie
        if self._aborted:
            raise NotReached("aborted")
        if not self.open:
            try:
                self._http.connect()
            except _HTTP_ERRORS as exc:
                raise NotReached(f"no connection to {self._url}: {exc}") from exc
        try:
            self._http.request(method, self._base + path, body=data, headers=headers)
            with self._http.getresponse() as response:
                if response.length is None and not response.chunked:
                    # http.client takes a connection that ends amid the headers for the end of them.
                    raise http.client.IncompleteRead(b"")
                answer = Answer(response.status, _object(response.read()))
        except _HTTP_ERRORS as exc:
            self.close()
            raise AnswerLost(f"{method} {path}: {type(exc).__name__}: {exc}") from exc
        self._used_s = clock.monotonic_s()
        return answer

    def identify(self) -> int:
        """Request the pid of the worker at the other end and return it; 0 without a response."""
        try:
            answer = self.ask("GET", "/api/worker")
        except AnswerLost:  # closed as idle: only this read was lost
            return 0
        if answer.status != http.HTTPStatus.OK or not answer.pid:
            error = answer.body.get("error", f"HTTP {answer.status}")
            raise NotReached(f"GET /api/worker: the demo does not answer: {error}")
        self.pid = answer.pid
        return answer.pid

    def abort(self) -> None:
        """Abort the request that another thread waits for, and refuse all later ones."""
        self._aborted = True
        sock = self._http.sock
        if sock is not None:
            with contextlib.suppress(OSError):  # closed at this moment
                sock.shutdown(socket.SHUT_RDWR)  # wakes a reader; close() would not

    def close(self) -> None:
        """Close the connection; the next request opens a new one, to any worker."""
        self._http.close()


@contextlib.contextmanager
def _abort_on_error(
    connections: Iterable[Connection], barrier: threading.Barrier | None = None
) -> Iterator[None]:
    """Abort the requests of the pool's threads when this thread is interrupted.

    Leaving the pool waits for its threads; those that have started would wait at the barrier for
    those that have not.
    """
    try:
        yield
    except BaseException:
        if barrier is not None:
            barrier.abort()
        for connection in connections:
            connection.abort()
        raise


class Workers:
    """Connections to all `count` workers of a server, `per_worker` to each.

    Used by one thread; `together` gives each connection to a thread of its own.
    """

    def __init__(
        self, url: str, count: int, per_worker: int = 1, within_s: float = ANSWER_WITHIN_S
    ) -> None:
        self.url = url
        self.count = count
        self.per_worker = per_worker
        self.within_s = within_s
        self._held: dict[int, list[Connection]] = {}

    @property
    def pids(self) -> list[int]:
        """The workers at the other ends."""
        return sorted(self._held)

    def find(self) -> list[int]:
        """Connect to every worker and return the pids; raise `NotReached` if some are missing in time.

        Idle connections are identified again, because they may have been closed or their worker
        replaced, also during a long search: none is idle at its end. Missing workers are found by
        opening many connections at the same time: only a busy worker leaves the next connection to
        others.
        """
        deadline = clock.monotonic_s() + self.within_s
        self._drop_stale()
        while self._missing():
            if clock.monotonic_s() > deadline:
                raise NotReached(
                    f"{len(self._held)} workers answered within {self.within_s:g} s "
                    f"(with {self.per_worker} connections to each), expected {self.count}; "
                    "set --workers to the number of workers"
                )
            batch = [Connection(self.url) for _ in range(4 * self.count * self.per_worker)]
            try:
                with ThreadPoolExecutor(len(batch)) as pool, _abort_on_error(batch):
                    list(pool.map(Connection.identify, batch))
            finally:
                for connection in batch:
                    self._keep_or_close(connection)
            self._drop_stale()  # those of earlier batches
        return self.pids

    def _missing(self) -> bool:
        full = [pid for pid, held in self._held.items() if len(held) == self.per_worker]
        return len(full) < self.count

    def _keep_or_close(self, connection: Connection) -> None:
        held = self._held.get(connection.pid, [])
        room = held or len(self._held) < self.count
        if connection.open and connection.pid and room and len(held) < self.per_worker:
            self._held[connection.pid] = [*held, connection]
        else:
            connection.close()

    def _drop_stale(self) -> None:
        held = self._all()
        self._held = {}
        for connection in held:
            if not connection.fresh:
                connection.identify()
            self._keep_or_close(connection)

    def ask(
        self,
        pid: int,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        cookie: str = "",
    ) -> Answer:
        """Send a request to one worker, once; raise `Moved` if it has ended or another responded."""
        if pid not in self._held or not self._held[pid][0].fresh:
            self.find()
        if pid not in self._held:
            raise Moved(f"worker {pid} has ended; the workers are {self.pids}")
        connection = self._held[pid][0]
        answer = connection.ask(method, path, body, cookie)
        if answer.pid != pid:
            raise Moved(f"worker {answer.pid} answered instead of {pid}")
        return answer

    def each(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[int, Answer]:
        """Send a request to every worker, one after the other; return the responses by pid."""
        return {pid: self.ask(pid, method, path, body) for pid in self.find()}

    def together(self, work: Callable[[int, Connection], T]) -> list[T]:
        """Do `work(number, connection)` on all connections at the same time; return the results."""
        self.find()
        connections = self._all()
        barrier = threading.Barrier(len(connections))

        def run(number: int, connection: Connection) -> T:
            barrier.wait(self.within_s)
            return work(number, connection)

        with ThreadPoolExecutor(len(connections)) as pool, _abort_on_error(connections, barrier):
            return list(pool.map(run, range(len(connections)), connections))

    def _all(self) -> list[Connection]:
        return [connection for group in self._held.values() for connection in group]

    def close(self) -> None:
        """Close all connections."""
        for connection in self._all():
            connection.close()
        self._held = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _object(data: bytes) -> dict[str, Any]:
    """Return the JSON object; an empty one for anything else, such as an HTML error page."""
    with contextlib.suppress(ValueError):
        found = json.loads(data)
        if isinstance(found, dict):
            return found
    return {}
