"""Clients in processes of their own, which call one function each at the same moment."""

import contextlib
import faulthandler
import functools
import multiprocessing.context
import os
import signal
import sys
import tempfile
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.cache import caches

from cacheapp.processes.waiting import until

Context = multiprocessing.context.ForkServerContext | multiprocessing.context.ForkContext
Work = Callable[..., Any]
CLIENT_MODULES = [
    *(f"cacheapp.backends.{name}.cache" for name in ("disk", "lmdb", "near", "redis")),
    *(
        f"tests.contract.{name}"
        for name in ("clients", "decorated", "flights", "thread_work", "work")
    ),
]
"""What a fork server imports once for all clients. None of it opens a store or starts a thread."""
DEADLINE_S = 120
STACKS_WITHIN_S = 30


def _client(
    pipe: Connection, barrier: Any, setup: dict[str, Any], threads: int, work: Work
) -> None:
    try:
        # For `Running.stacks`; the file stays open until the process ends.
        stacks = _stacks_file(os.getpid()).open("w")
        faulthandler.register(signal.SIGUSR2, file=stacks)
        if not settings.configured:  # one of the fork server has imports only; a forked one, all
            settings.configure()
        for name, value in setup.items():
            setattr(settings, name, value)
        caches["default"]  # the object; its store opens at the first call
        barrier.wait(DEADLINE_S)
        results: list[Any] = [None] * threads

        def call(index: int) -> None:
            try:
                results[index] = ("ok", work(caches["default"]))
            except BaseException:  # noqa: BLE001 (the parent raises what any thread met)
                results[index] = ("failed", traceback.format_exc())

        others = [threading.Thread(target=call, args=(index,)) for index in range(1, threads)]
        for thread in others:
            thread.start()
        call(0)
        for thread in others:
            thread.join()
        pipe.send(results)
    except BaseException:  # noqa: BLE001
        pipe.send([("failed", traceback.format_exc())])


@contextlib.contextmanager
def _no_main_module() -> Iterator[None]:
    """Hide this process's main module, which is pytest: a fork server would import it again."""
    main = sys.modules["__main__"]
    hidden = {name: vars(main).pop(name, None) for name in ("__spec__", "__file__")}
    try:
        vars(main)["__spec__"] = None
        yield
    finally:
        vars(main).update(hidden)


def _stacks_file(pid: int) -> Path:
    return Path(tempfile.gettempdir()) / f"client-{pid}.stacks"


class Clients:
    """Starts processes that use the cache `default`, and brings back what they returned."""

    def __init__(self, context: Context, caches_setting: Any, cacheapp_setting: Any) -> None:
        self._context = context
        self._setup = {
            "CACHES": caches_setting,
            "CACHEAPP": cacheapp_setting,
            "SECRET_KEY": settings.SECRET_KEY,
        }

    def start(self, works: Sequence[Work], threads: int = 1) -> "Running":
        """Start a process for each work; all begin at the same moment."""
        barrier = self._context.Barrier(len(works))
        pipes, processes = [], []
        for work in works:
            ours, theirs = self._context.Pipe(duplex=False)
            process = self._context.Process(
                target=_client, args=(theirs, barrier, self._setup, threads, work), daemon=True
            )
            with _no_main_module():
                process.start()
            theirs.close()
            pipes.append(ours)
            processes.append(process)
        return Running(pipes, processes, barrier)

    def run(self, work: Work, *args: Any, processes: int = 4, threads: int = 1) -> list[Any]:
        """Call `work(cache, *args)` in every thread of every process; return all results."""
        return self.start([functools.partial(_apply, work, args)] * processes, threads).results()


def _apply(work: Work, args: Sequence[Any], cache: Any) -> Any:
    return work(cache, *args)


def calls(work: Work, *args: Any) -> Work:
    """Return `work(cache, *args)` as a function of the cache alone, which can cross processes."""
    return functools.partial(_apply, work, args)


class Running:
    """Client processes under way."""

    def __init__(self, pipes: list[Connection], processes: list[Any], barrier: Any) -> None:
        self._barrier = barrier  # its semaphores go with it, and a slow starter still needs them
        self.pipes = pipes
        self.processes = processes
        self._stopped = False
        _running.add(self)

    def results(self, within_s: float = DEADLINE_S) -> list[Any]:
        """Wait for the processes that were not killed; return what their threads returned."""
        found: list[Any] = []
        try:
            for pipe, process in zip(self.pipes, self.processes, strict=True):
                if not pipe.poll(within_s):
                    raise TimeoutError(f"client {process.pid} did not answer in {within_s} s")
                try:
                    answers = pipe.recv()
                except EOFError:
                    continue  # killed
                for outcome, value in answers:
                    if outcome == "failed":
                        raise AssertionError(f"client {process.pid}:\n{value}")
                    found.append(value)
        finally:
            self.stop()
        return found

    def stop(self) -> None:
        """End every process that is left."""
        if self._stopped:
            return
        self._stopped = True
        for pipe, process in zip(self.pipes, self.processes, strict=True):
            process.kill()
            process.join()
            _stacks_file(process.pid).unlink(missing_ok=True)
            process.close()
            pipe.close()

    def stacks(self) -> Iterator[tuple[str, str]]:
        """Yield a title and the stacks of all threads, for each process that still runs."""
        for process in [] if self._stopped else self.processes:
            file = _stacks_file(process.pid)
            with contextlib.suppress(OSError, TimeoutError):
                if process.is_alive() and file.exists():
                    os.kill(process.pid, signal.SIGUSR2)
                    until(file.read_text, "the stacks", STACKS_WITHIN_S)
                    yield f"client {process.pid} stood here", file.read_text()


_running: weakref.WeakSet[Running] = weakref.WeakSet()


def stacks_of_all() -> list[tuple[str, str]]:
    """Return the stacks of all clients of the test, for a test that has failed."""
    return [found for running in list(_running) for found in running.stacks()]


def stop_all() -> None:
    """End what a test has left behind."""
    for running in list(_running):
        running.stop()
