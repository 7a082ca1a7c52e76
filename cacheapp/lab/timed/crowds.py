"""More and more threads, or processes, that all do the same: wait for a server, or compute."""

import http.client
import multiprocessing
import os
import statistics
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cacheapp import clock
from cacheapp.processes.waiting import pause

WITHIN_S = 90.0


def wait_for(url: str) -> "Callable[[], None]":
    """Return what fetches a file on a connection of its own, that stays open."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=WITHIN_S)

    def fetch() -> None:
        connection.request("GET", parts.path)
        connection.getresponse().read()

    fetch()  # connects: not what is measured
    return fetch


def compute(_url: str) -> "Callable[[], None]":
    """Return what keeps a core busy for a few milliseconds."""

    def work() -> None:
        sum(number * number for number in range(50_000))

    return work


Times = list[tuple[float, float]]
WORK = {"waiting": wait_for, "computing": compute}


class Crowd:
    """Members that prepare, begin together, work for `window_s`, and stay until they are counted."""

    def __init__(self, context: Any, members: int, window_s: float) -> None:
        self.window_s = window_s
        self.began_s = multiprocessing.Value("d", 0.0)
        self.begin = context.Barrier(members + 1, action=self._note)
        self.counted = context.Barrier(members + 1)

    def _note(self) -> None:
        """Note the moment at which all may begin, whenever each gets to it."""
        self.began_s.value = clock.monotonic_s()

    def member(self, work: str, url: str, report: "Callable[[Times], None]") -> None:
        """Work again and again; report when each time began and ended. What runs is finished."""
        once = WORK[work](url)
        self.begin.wait(WITHIN_S)
        began_s = self.began_s.value
        times: Times = []
        while not times or began_s < times[0][0] + self.window_s:
            once()
            times.append((began_s, clock.monotonic_s()))
            began_s = times[-1][1]
        self.counted.wait(WITHIN_S)
        report(times)


def measure(kind: str, members: int, work: str, url: str, window_s: float) -> "dict[str, float]":
    """Return units of work per second, the mean and the 99th percentile of one, and memory."""
    times, memory = (_threads if kind == "threads" else _processes)(members, work, url, window_s)
    seconds = max(ended for _, ended in times) - min(began for began, _ in times)
    took = sorted(ended - began for began, ended in times)
    return {
        "per_second": len(took) / seconds,
        "mean_s": statistics.mean(took),
        "p99_s": took[int(len(took) * 0.99)],
        "memory_mib": memory,
    }


def _threads(members: int, work: str, url: str, window_s: float) -> "tuple[Times, float]":
    crowd = Crowd(threading, members, window_s)
    times: Times = []
    crew = [
        threading.Thread(target=crowd.member, args=(work, url, times.extend))
        for _ in range(members)
    ]
    for thread in crew:
        thread.start()
    memory = _watch(crowd, [os.getpid()])
    for thread in crew:
        thread.join()
    return times, memory


def _processes(members: int, work: str, url: str, window_s: float) -> "tuple[Times, float]":
    context = multiprocessing.get_context("fork")
    crowd = Crowd(context, members, window_s)
    queue = context.SimpleQueue()
    crew = [
        context.Process(target=crowd.member, args=(work, url, queue.put)) for _ in range(members)
    ]
    for process in crew:
        process.start()
    memory = _watch(crowd, [os.getpid(), *(process.pid for process in crew if process.pid)])
    times = [time for _ in crew for time in queue.get()]
    for process in crew:
        process.join()
    return times, memory


def _watch(crowd: Crowd, pids: "list[int]") -> float:
    """Let the crowd begin; return how much memory it has when all have finished."""
    crowd.begin.wait(WITHIN_S)
    while crowd.counted.n_waiting < crowd.counted.parties - 1:
        pause(0.05)
    memory = sum(map(memory_mib, pids))
    crowd.counted.wait(WITHIN_S)
    return memory


def memory_mib(pid: int) -> float:
    """Return what a process has in memory, its part of what it shares with others (Linux's PSS)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0
