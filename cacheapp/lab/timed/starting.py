"""How long it takes until a new thread, or a new process, executes its first line."""

import multiprocessing
import threading
from multiprocessing.connection import Connection
from typing import Any

from cacheapp import clock


def start_thread() -> float:
    """Return the seconds until a new thread runs."""
    began: list[float] = []
    before_s = clock.monotonic_s()
    thread = threading.Thread(target=lambda: began.append(clock.monotonic_s()))
    thread.start()
    thread.join()
    return began[0] - before_s


def first_line(pipe: "Connection") -> None:
    """Tell when this process began to run: the clock is the same for all processes."""
    pipe.send(clock.monotonic_s())


def start_process(method: str) -> float:
    """Return the seconds until a new process runs (`fork`, `spawn` or `forkserver`)."""
    context: Any = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    before_s = clock.monotonic_s()
    process = context.Process(target=first_line, args=(theirs,))
    process.start()
    began_s = float(ours.recv())
    process.join()
    return began_s - before_s


def create_threads(count: int) -> float:
    """Return the seconds that the article's "Done creating threads" took: all are started."""
    go_on = threading.Event()
    threads = []
    before_s = clock.monotonic_s()
    for _ in range(count):
        thread = threading.Thread(target=go_on.wait)
        thread.start()
        threads.append(thread)
    took_s = clock.monotonic_s() - before_s
    go_on.set()
    for thread in threads:
        thread.join()
    return took_s


def times(what: str, count: int) -> "list[float]":
    """Start one after the other, `count` times, after one that is not counted: it loads modules."""
    once = start_thread if what == "thread" else lambda: start_process(what)
    return [once() for _ in range(count + 1)][1:]


def creations(threads: int, count: int) -> "list[float]":
    """Create so many threads, `count` times."""
    return [create_threads(threads) for _ in range(count)]
