"""Client processes: spawned, or forked from one that has used the cache, as Gunicorn does with preload.

Each receives orders through a pipe and executes them in its threads. A client ends when its pipe closes,
so none outlives the check for longer than one order takes. Clients ignore Ctrl-C.
"""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Self

from cacheapp import clock
from cacheapp.cachecheck.client_process import Order, Setup, Work, parent_of_forks, spawned

START_WITHIN_S = 120.0
_LEAD_NS = 30_000_000  # all clients receive their orders before the first begins
_SPAWN = multiprocessing.get_context("spawn")


class ClientFailed(Exception):
    """A client raised an unexpected error, ended, or did not respond in time."""


class Client:
    """One client process, from the side of the check."""

    def __init__(self, number: int, pipe: Connection) -> None:
        self.number = number
        self.pipe = pipe
        self.pid = 0
        self.busy = False
        self.alive = True

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def has_responded(self) -> bool:
        """Return True if it has done what was ordered, or has ended."""
        return self.pipe.poll()

    def kill(self) -> None:
        """Kill the process."""
        if self.alive and self.pid:
            self.signal(signal.SIGKILL)
        self.alive = False
        self.pipe.close()


class Clients:
    """Several processes that use one alias. Used by one thread; a context manager."""

    def __init__(self, setup: Setup, processes: int, *, fork: bool = False) -> None:
        self.setup = setup
        self.alias = setup.alias
        self.processes = processes
        self.fork = fork
        self.members: list[Client] = []
        self._children: list[BaseProcess] = []
        self._numbered = 0
        self._orders = 0

    def __enter__(self) -> Self:
        try:
            self.start(self.processes)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, count: int) -> list[Client]:
        """Start more processes; return them when they are ready for orders."""
        pairs = [_SPAWN.Pipe() for _ in range(count)]
        numbers = range(self._numbered + 1, self._numbered + count + 1)
        self._numbered += count
        fresh = [Client(number, ours) for number, (ours, _) in zip(numbers, pairs, strict=True)]
        self.members += fresh
        theirs = [pipe for _, pipe in pairs]
        jobs: list[tuple[Work, tuple[Any, ...]]] = [
            (spawned, (pipe, self.setup, number))
            for pipe, number in zip(theirs, numbers, strict=True)
        ]
        if self.fork:
            jobs = [(parent_of_forks, (theirs, self.setup, list(numbers)))]
        for target, args in jobs:
            child = _SPAWN.Process(target=target, args=args)
            child.start()
            self._children.append(child)
        for pipe in theirs:
            pipe.close()
        for client in fresh:
            client.pid = self._receive(client, clock.monotonic_s() + START_WITHIN_S)
        return fresh

    @property
    def living(self) -> list[Client]:
        """The clients that can receive orders."""
        return [client for client in self.members if client.alive]

    def order(
        self,
        work: Work,
        *args: Any,
        to: Sequence[Client] | None = None,
        use_async: bool = False,
        threads: int | None = None,
    ) -> list[Client]:
        """Order `work(session, *args)` from every thread of the clients, all at the same moment."""
        chosen = list(self.living if to is None else to)
        threads = threads or self.setup.threads
        count = len(chosen) * threads
        start_ns = clock.monotonic_ns() + _LEAD_NS
        self._orders += 1
        for index, client in enumerate(chosen):
            # Threads of one process are far apart, so that neighbours are of different processes.
            places = tuple(
                (thread * len(chosen) + index, count, self._orders) for thread in range(threads)
            )
            try:
                client.pipe.send(Order(work, args, places, start_ns, self.alias, use_async))
            except OSError:  # it has just died: its result will be missing
                continue
            client.busy = True
        return chosen

    def results(self, chosen: Sequence[Client], within_s: float) -> list[Any]:
        """Wait for the results of the clients; killed ones have none.

        Raise `ClientFailed` only after all have responded: an unread response would be taken for
        that to the next order.
        """
        deadline = clock.monotonic_s() + within_s
        found: list[Any] = []
        failed: list[str] = []
        for client in chosen:
            if client.alive:
                try:
                    answers = self._receive(client, deadline)
                except EOFError:
                    failed.append(f"client p{client.number} ended in the middle of its work")
                    client.kill()
                    continue
                except ClientFailed as exc:
                    failed.append(str(exc))
                    client.kill()
                    continue
                client.busy = False
                found += [value for done, value in answers if done]
                failed += [
                    f"client p{client.number}:\n{text}" for done, text in answers if not done
                ]
        if failed:
            raise ClientFailed(failed[0])
        return found

    def run(self, work: Work, *args: Any, within_s: float = 60.0, **how: Any) -> list[Any]:
        """Give an order and wait for its results."""
        return self.results(self.order(work, *args, **how), within_s)

    def _receive(self, client: Client, deadline: float) -> Any:
        left = max(0.0, deadline - clock.monotonic_s())
        if not wait([client.pipe], left):
            raise ClientFailed(f"client p{client.number} did not answer in time")
        try:
            return client.pipe.recv()
        except ConnectionResetError:
            raise EOFError from None

    def dismiss(self, client: Client) -> None:
        """Close the pipe of an idle client, which then ends."""
        client.alive = False
        client.pipe.close()

    def kill_parents(self) -> None:
        """Kill the processes from which the clients were forked; the clients go on."""
        for parent in self._children if self.fork else ():
            parent.kill()
            parent.join()

    def stop(self) -> None:
        """End all processes: close the pipes of idle ones, kill busy ones."""
        for client in self.living:
            if client.busy or not client.pid:
                client.kill()
            else:
                client.pipe.close()
        for child in self._children:
            child.join(5)
            if child.is_alive():
                child.kill()
                child.join()
            child.close()
        self._children = []
        self.members = []
