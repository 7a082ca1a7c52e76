"""Which file is fetched next, for whom, and from which host. No threads, no clock, no I/O.

Fair among jobs: a free thread goes to the job that has the fewest at work, and among equals by turns. Fair among hosts: the
hosts of a job take turns. A file that waits for its next try, and a host that wants to be left
alone, hold no thread.

A host's limit follows what it says (as TCP does): halved when it answers that it is asked too
often, or not at all; one more for as many successes as the limit is. Requests that were on their
way when the limit fell say nothing new, and are not counted against the host again.
"""

import dataclasses
import heapq
import itertools
from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclasses.dataclass
class RemoteHost:
    """What is known of one host."""

    limit: float
    ceiling: int
    active: int = 0
    paused_until_s: float = 0.0
    reduced_at_s: float = -1.0

    def has_capacity(self, now_s: float) -> bool:
        """Return whether another request may go to it."""
        return self.active < int(self.limit) and now_s >= self.paused_until_s

    def record_response(
        self, began_s: float, now_s: float, *, host_ok: bool, host_pause_s: float = 0.0
    ) -> None:
        """Take note of how a request that began then has ended."""
        self.paused_until_s = max(
            self.paused_until_s, now_s + host_pause_s if host_pause_s else 0.0
        )
        if host_ok:
            self.limit = min(self.ceiling, self.limit + 1 / self.limit)
        elif began_s > self.reduced_at_s:
            self.limit = max(1.0, min(self.limit, self.active + 1) / 2)
            self.reduced_at_s = now_s


class RemoteHosts:
    """All hosts that this process asks, for all jobs together."""

    def __init__(self, per_host: int) -> None:
        self._per_host = per_host
        self._hosts: dict[str, RemoteHost] = {}

    def __getitem__(self, name: str) -> RemoteHost:
        host = self._hosts.get(name)
        if host is None:
            host = self._hosts[name] = RemoteHost(float(self._per_host), self._per_host)
        return host

    def forget_idle(self, now_s: float) -> None:
        """Drop hosts of which nothing is remembered: there may be as many as there are URLs."""
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
        """When it was served last, as a number that grows; of two with as many, the older goes."""
        self.closed = False
        """Whether it takes no more files: its job was stopped."""
        self._waiting = 0
        self._ready: OrderedDict[str, deque[T]] = OrderedDict()  # by host, next in turn first
        self._later: list[tuple[float, int, str, T]] = []
        self._count = itertools.count()

    def __len__(self) -> int:
        return self._waiting

    @property
    def could_use_a_thread(self) -> bool:
        """Return whether another thread may find something to do; a host may be in the way."""
        return self._waiting > 0 and self.active < self.threads

    def add(self, host: str, file: T) -> None:
        """Queue a file."""
        if self.closed:
            return
        self._waiting += 1
        self._ready.setdefault(host, deque()).append(file)

    def add_later(self, when_s: float, host: str, file: T) -> None:
        """Queue a file that is not to be begun before `when_s`."""
        if self.closed:
            return
        self._waiting += 1
        heapq.heappush(self._later, (when_s, next(self._count), host, file))

    def close(self) -> None:
        """Drop all that waits, and whatever is still to come."""
        self.closed = True
        self._waiting = 0
        self._ready.clear()
        self._later.clear()

    def take(self, hosts: RemoteHosts, now_s: float) -> tuple[str, T] | None:
        """Return the next file that may be begun, with its host."""
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
        """Return when there may be more to do without anything else happening."""
        moments = [self._later[0][0]] if self._later else []
        rests = (hosts[name].paused_until_s for name in self._ready)
        moments += [host_pause_s for host_pause_s in rests if host_pause_s > now_s]
        return min(moments, default=None)


def fairest(queues: Iterable[FileQueue[T]]) -> list[FileQueue[T]]:
    """Return the queues that may have another thread, those with the fewest at work first.

    Of those with as many, the one that has waited longest: or one thread would serve one job alone.
    """
    free = (queue for queue in queues if queue.active < queue.threads)
    return sorted(free, key=lambda queue: (queue.active, queue.turn))
