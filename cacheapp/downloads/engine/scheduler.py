"""Decides which file is fetched next, for which job and from which host. No threads, clock or I/O.

Fair among jobs: a free thread serves the job with the fewest active threads; equals take turns.
Fair among hosts: the hosts of a job take turns. A file that waits for its next attempt occupies no
thread, nor does a host that requested a pause.

The limit of a host adapts to its responses, as in TCP: it is halved on an overload response or a
timeout, and grows by one after as many successes as the limit. Requests that were already in flight
when the limit fell do not lower it again.

A host is paused only if responses for two URLs requested that: a single object may be unavailable
while the rest of the host responds.
"""

import dataclasses
import heapq
import itertools
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class PauseRequest:
    """A `Retry-After` in the response for a URL."""

    url: str
    until_s: float


@dataclasses.dataclass
class RemoteHost:
    """The load limit of one remote server."""

    limit: float
    ceiling: int
    active: int = 0
    paused_until_s: float = 0.0
    reduced_at_s: float = -1.0
    pause_request: PauseRequest | None = None
    """A pause that the response for one URL requested; no other URL has confirmed it."""

    def has_capacity(self, now_s: float) -> bool:
        """Return whether another request may be sent."""
        return self.active < int(self.limit) and now_s >= self.paused_until_s

    def record_response(
        self, began_s: float, now_s: float, *, ok: bool, pause: PauseRequest | None = None
    ) -> None:
        """Update the limit with the result of a request sent at `began_s`."""
        if pause is not None:
            self._record_pause(pause, now_s)
        if ok:
            self.pause_request = None
            self.limit = min(self.ceiling, self.limit + 1 / self.limit)
        elif began_s > self.reduced_at_s:
            self.limit = max(1.0, min(self.limit, self.active + 1) / 2)
            self.reduced_at_s = now_s

    def _record_pause(self, pause: PauseRequest, now_s: float) -> None:
        """Pause the host if another URL's pause has not ended; until the earlier end of the two."""
        earlier = self.pause_request
        if earlier is None or earlier.url == pause.url or earlier.until_s <= now_s:
            self.pause_request = pause
        else:
            self.paused_until_s = max(self.paused_until_s, min(earlier.until_s, pause.until_s))
            self.pause_request = max(earlier, pause, key=lambda found: found.until_s)


class RemoteHosts:
    """All hosts that this process fetches from, across all jobs."""

    def __init__(self, per_host: int) -> None:
        self._per_host = per_host
        self._hosts: dict[str, RemoteHost] = {}

    def __getitem__(self, name: str) -> RemoteHost:
        host = self._hosts.get(name)
        if host is None:
            host = self._hosts[name] = RemoteHost(float(self._per_host), self._per_host)
        return host

    def forget_idle(self, now_s: float) -> None:
        """Drop hosts in their default state: there may be as many as there are URLs."""
        self._hosts = {
            name: host
            for name, host in self._hosts.items()
            if host.active or int(host.limit) < host.ceiling or host.paused_until_s > now_s
        }


class FileQueue(Generic[T]):
    """The files of one job that are still to be fetched."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.active = 0
        self.turn = -1
        """Number of its last turn; among equals the queue with the lowest is served first."""
        self.closed = False
        """Whether it accepts no more files: its job was stopped."""
        self._waiting = 0
        self._ready: OrderedDict[str, deque[T]] = OrderedDict()  # by host, next in turn first
        self._later: list[tuple[float, int, str, T]] = []
        self._count = itertools.count()

    def __len__(self) -> int:
        return self._waiting

    @property
    def could_use_a_thread(self) -> bool:
        """Whether another thread might find a file; its host may still be at the limit."""
        return self._waiting > 0 and self.active < self.threads

    def add(self, host: str, file: T) -> None:
        """Queue a file."""
        if self.closed:
            return
        self._waiting += 1
        self._ready.setdefault(host, deque()).append(file)

    def add_later(self, when_s: float, host: str, file: T) -> None:
        """Queue a file that must not begin before `when_s`."""
        if self.closed:
            return
        self._waiting += 1
        heapq.heappush(self._later, (when_s, next(self._count), host, file))

    def drop(self, matches: Callable[[T], bool]) -> None:
        """Drop the waiting files that match."""
        for host, files in list(self._ready.items()):
            left = deque(file for file in files if not matches(file))
            self._waiting -= len(files) - len(left)
            self._ready[host] = left
            if not left:
                del self._ready[host]
        later = [entry for entry in self._later if not matches(entry[3])]
        self._waiting -= len(self._later) - len(later)
        heapq.heapify(later)
        self._later = later

    def close(self) -> None:
        """Drop all files, including those added later."""
        self.closed = True
        self._waiting = 0
        self._ready.clear()
        self._later.clear()

    def pop(self, hosts: RemoteHosts, now_s: float) -> tuple[str, T] | None:
        """Return the next file that may begin, with its host, or `None`."""
        while self._later and self._later[0][0] <= now_s:
            _, _, name, file = heapq.heappop(self._later)
            self._ready.setdefault(name, deque()).appendleft(file)
        for name, files in self._ready.items():
            if hosts[name].has_capacity(now_s):
                file = files.popleft()
                self._waiting -= 1
                if files:
                    self._ready.move_to_end(name)
                else:
                    del self._ready[name]
                return name, file
        return None

    def due_s(self, hosts: RemoteHosts, now_s: float) -> float | None:
        """Return when time alone makes another file available, or `None`."""
        moments = [self._later[0][0]] if self._later else []
        rests = (hosts[name].paused_until_s for name in self._ready)
        moments += [pause_s for pause_s in rests if pause_s > now_s]
        return min(moments, default=None)


def fairest(queues: Iterable[FileQueue[T]]) -> list[FileQueue[T]]:
    """Return the queues below their thread count, those with the fewest active threads first.

    Among equals, the one that has waited longest comes first; otherwise a single thread would serve
    one job only.
    """
    free = (queue for queue in queues if queue.active < queue.threads)
    return sorted(free, key=lambda queue: (queue.active, queue.turn))
