"""How many compute a cold key, how soon the others have it, and what waiting costs.

`python -m benchmarks.backends.single_flight --alias disk` (or `redis`). Each round, all threads of all
processes ask for the same cold key at the same moment, with a factory that sleeps; a round's delay
is the time from the factory's end to the return of the last caller: the store's write, the wake-up
of every process and the reads. Then 100 threads of one process wait, for one key and for one key
each, while another process computes: what counts is the CPU time of the process that waits.
Not measured: a network between, factories that use the CPU.
"""

import contextlib
import multiprocessing.synchronize
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.cache import caches

from benchmarks.measuring import command_line, set_up_django, write_report
from benchmarks.measuring.processes import context
from cacheapp.processes.servers import RedisServer
from cacheapp.processes.waiting import pause, until

_SETTLED_S = 120.0
Setup = dict[str, Any]


@contextlib.contextmanager
def _entry(alias: str, under: Path | None) -> Iterator[Setup]:
    """Yield what the settings of every process must say."""
    with tempfile.TemporaryDirectory(dir=under) as directory, contextlib.ExitStack() as stack:
        entry: dict[str, Any] = {"OPTIONS": {"lease_wait": 600.0}}
        if alias == "disk":
            entry |= {"BACKEND": "cacheapp.backends.DiskCache", "LOCATION": f"{directory}/cache"}
        else:
            server = stack.enter_context(RedisServer()).start()
            entry |= {"BACKEND": "cacheapp.backends.RedisCache", "LOCATION": server.url}
        yield {
            "CACHES": {"default": entry},
            "CACHEAPP": {"STATE_DIR": Path(directory) / "state"},
        }


def _set_up(setup: Setup) -> Any:
    set_up_django()
    for name, value in setup.items():
        setattr(settings, name, value)
    return caches["default"]


def _in_threads(count: int, call: Callable[[int], None]) -> list[threading.Thread]:
    threads = [threading.Thread(target=call, args=(n,), daemon=True) for n in range(count)]
    for thread in threads:
        thread.start()
    return threads


# -- a cold key ------------------------------------------------------------------------------


def _client(
    pipe: Connection, barrier: Any, setup: Setup, threads: int, rounds: int, factory_s: float
) -> None:
    """Send the times at which factories ended and calls returned, for each round."""
    cache = _set_up(setup)
    cache.get("connected")
    for number in range(rounds):
        ended: list[int] = []
        returned: list[int] = []

        def factory(ended: list[int] = ended) -> str:
            pause(factory_s)
            ended.append(time.monotonic_ns())
            return "value"

        def call(_index: int, key: str = f"cold-{number}", returned: list[int] = returned) -> None:
            cache.get_or_set(key, factory, 100)
            returned.append(time.monotonic_ns())

        barrier.wait(_SETTLED_S)
        for thread in _in_threads(threads, call):
            thread.join()
        pipe.send((ended, returned))


def _cold(
    setup: Setup, processes: int, threads: int, rounds: int, factory_s: float
) -> tuple[list[int], list[float]]:
    """Return the factory's calls and the last caller's delay in ms, by round."""
    barrier = context.Barrier(processes)
    pipes, running = [], []
    for _ in range(processes):
        ours, theirs = context.Pipe(duplex=False)
        args = (theirs, barrier, setup, threads, rounds, factory_s)
        process = context.Process(target=_client, args=args, daemon=True)
        process.start()
        pipes.append(ours)
        running.append(process)
    calls, delays = [], []
    for _ in range(rounds):
        answers = [pipe.recv() for pipe in pipes]
        ended = [moment for ends, _ in answers for moment in ends]
        returned = [moment for _, returns in answers for moment in returns]
        assert len(returned) == processes * threads  # noqa: S101 (else a call has failed)
        calls.append(len(ended))
        delays.append((max(returned) - min(ended)) / 1e6)
    for process in running:
        process.join()
    return calls, delays


# -- what waiting costs ----------------------------------------------------------------------


def _hold(setup: Setup, keys: list[str], over: multiprocessing.synchronize.Event) -> None:
    cache = _set_up(setup)
    threads = _in_threads(
        len(keys), lambda n: cache.get_or_set(keys[n], lambda: over.wait(_SETTLED_S), 100)
    )
    for thread in threads:
        thread.join()


def _wait(pipe: Connection, setup: Setup, keys: list[str], window_s: float) -> None:
    """Send the part of one core that the waiting threads of this process used."""
    cache = _set_up(setup)
    before = cache.stats()["lease_waits"]

    def wait(index: int) -> None:
        cache.get_or_set(keys[index], lambda: None, 100)

    threads = _in_threads(len(keys), wait)
    until(lambda: cache.stats()["lease_waits"] - before == len(keys), "all to wait", _SETTLED_S)
    used_s, began_s = time.process_time(), time.monotonic()
    pause(window_s)
    share = (time.process_time() - used_s) / (time.monotonic() - began_s)
    pipe.send(share)
    for thread in threads:
        thread.join()


def _waiting(setup: Setup, name: str, keys: int, waiters: int, window_s: float) -> float:
    held = [f"{name}-{n}" for n in range(keys)]
    over = context.Event()
    holder = context.Process(target=_hold, args=(setup, held, over), daemon=True)
    cache: Any = caches["default"]
    before = cache.stats()["factory_runs"]
    holder.start()
    until(
        lambda: cache.stats()["factory_runs"] - before == keys,
        "all factories to run",
        _SETTLED_S,
    )
    ours, theirs = context.Pipe(duplex=False)
    asked = [held[n % keys] for n in range(waiters)]
    process = context.Process(target=_wait, args=(theirs, setup, asked, window_s), daemon=True)
    process.start()
    share: float = ours.recv()
    over.set()
    process.join()
    holder.join()
    return share


def main() -> int:
    """Measure, print, and return 0 unless a key was computed more than once."""
    parser = command_line(__doc__)
    parser.add_argument("--alias", choices=["disk", "redis"], default="disk")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--threads", type=int, default=8, help="of each process")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--factory-ms", type=float, default=200)
    parser.add_argument("--waiters", type=int, default=100)
    parser.add_argument("--window", type=float, default=5, help="seconds in which CPU is measured")
    parser.add_argument("--under", type=Path, help="directory whose filesystem is measured")
    asked = parser.parse_args()
    with _entry(asked.alias, asked.under) as setup:
        _set_up(setup)
        calls, delays = _cold(
            setup, asked.processes, asked.threads, asked.rounds, asked.factory_ms / 1000
        )
        one = _waiting(setup, "one", 1, asked.waiters, asked.window)
        each = _waiting(setup, "each", asked.waiters, asked.waiters, asked.window)
    print(
        f"{asked.alias}: {asked.processes} processes x {asked.threads} threads on a cold key, "
        f"factory of {asked.factory_ms:g} ms, {asked.rounds} rounds\n"
        f"  factory calls per round: {min(calls)} to {max(calls)} (goal 1)\n"
        f"  last caller has it after: median {statistics.median(delays):.1f} ms, "
        f"max {max(delays):.1f} ms (goal 50)\n"
        f"{asked.waiters} waiters in one process, part of one core (goal 5 %):\n"
        f"  for one key {one:.2%}, for one key each {each:.2%}"
    )
    figures = {
        "calls": calls,
        "delays_ms": delays,
        "waiting_share": {"one key": one, "one key each": each},
    }
    packages = ["Django", "diskcache", "django-redis", "redis"]
    write_report(asked.json, "backends.single_flight", packages, figures)
    return 0 if set(calls) == {1} else 1


if __name__ == "__main__":
    sys.exit(main())
