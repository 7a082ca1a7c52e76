"""The download threads of one process, shared by all its jobs.

A thread is started by the caller that adds work (never a view), and ends after some idle time.
Threads are daemons, so that they do not delay the exit of their worker, which releases its jobs.
"""

import contextlib
import dataclasses
import logging
import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from cacheapp import clock
from cacheapp.downloads.engine.scheduler import FileQueue, PauseRequest, RemoteHosts, fairest
from cacheapp.downloads.engine.thread_limit import ThreadLimit
from cacheapp.downloads.engine.transfer_options import Buffer

logger = logging.getLogger(__name__)

_IDLE_S = 5.0
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class AttemptResult:
    """What an attempt reports to the scheduler."""

    host_ok: bool | None = None
    """Whether the host responded well; `None` if the attempt says nothing about the host."""
    host_pause_s: float = 0.0
    """The pause that the host requested in its response for `url`."""
    url: str = ""
    retry_in_s: float | None = None
    """When to try the file again, or `None`."""
    is_needed: Callable[[], bool] = lambda: True
    """Whether to try it again even so; called with the pool's lock."""


class PoolJob(Protocol[T]):
    """What the pool needs of a job. Implemented by `JobRun`."""

    queue: FileQueue[T]

    def work(self, file: T, buffer: Buffer) -> AttemptResult:
        """Try one file, in a thread of the pool."""

    def on_attempt_end(self) -> None:
        """Handle the end of an attempt: its thread is free again; called without any lock."""


class ThreadPool(Generic[T]):
    """`_lock` guards all mutable fields, the queues of the jobs and the hosts.

    It is never held during I/O or while a job's own lock is acquired. `_changed` wakes threads for
    work, `_over` wakes callers of `wait_until`.

    Invariant: whatever makes work available (a file, an earlier retry, a higher limit) wakes a
    waiting thread, and no thread waits beyond the moment at which time alone makes work available.
    Invariant: `_alive` counts the threads that run or are being started, however they end; no
    exception of a job ends a thread (`_attempt`).
    """

    def __init__(
        self, threads: int, per_host: int | None = None, thread_limit: ThreadLimit | None = None
    ) -> None:
        """`thread_limit`: if given, each thread holds one of its slots."""
        self.threads = threads
        self._thread_limit = thread_limit
        self.on_thread_free: Callable[[], None] = lambda: None
        """Called when a thread is free that `reserve` had to wait for."""
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._over = threading.Condition(self._lock)
        self._hosts = RemoteHosts(per_host or threads)
        self._jobs: list[PoolJob[T]] = []
        self._alive = 0
        self._idle = 0
        self._reserved = False
        self._job_was_refused = False
        self._number = 0
        self._turn = 0

    def __repr__(self) -> str:
        with self._changed:
            active_threads = self._alive - self._idle
            return f"<ThreadPool threads={self._alive}/{self.threads} active={active_threads}>"

    def add(self, job: PoolJob[T]) -> None:
        """Serve a job from now on."""
        with self._changed:
            self._jobs.append(job)
            self._reserved = False

    def remove(self, job: PoolJob[T]) -> None:
        """Stop serving a job: it has ended."""
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)
            self._hosts.forget_idle(clock.monotonic_s())

    def feed(self, job: PoolJob[T], files: list[tuple[str, T]]) -> None:
        """Queue files, each with its host, and start the threads they need.

        Raise `RuntimeError` if the system cannot start any thread.
        """
        with self._changed:
            for host, file in files:
                job.queue.add(host, file)
            self._changed.notify(len(files))
        self.refill()

    def drop(self, job: PoolJob[T], matches: Callable[[T], bool]) -> None:
        """Drop waiting files of a job, in one of its attempts."""
        with self._changed:
            job.queue.drop(matches)

    def refill(self) -> None:
        """Start the missing threads, as far as the limit allows."""
        with self._changed:
            work = sum(
                min(found.queue.threads, len(found.queue) + found.queue.active)
                for found in self._jobs
            )
            missing = min(self.threads, work) - self._alive
            self._alive += max(0, missing)
        left = missing
        while left > 0 and self._start(left):
            left -= 1
        if self._thread_limit is not None:
            with self._changed:
                # A refused job counts too; otherwise a process that holds all slots would keep
                # them.
                starving = (work > 0 or self._job_was_refused) and not self._alive
                self._job_was_refused = False
            self._thread_limit.set_starving(starving=starving)

    def close(self, job: PoolJob[T]) -> None:
        """Begin no more files of a job."""
        with self._changed:
            job.queue.close()
            self._over.notify_all()

    def waiting(self, job: PoolJob[T]) -> tuple[int, int]:
        """Return the numbers of the job's queued files and active threads."""
        with self._changed:
            return len(job.queue), job.queue.active

    def wait_until(self, condition: Callable[[], bool], deadline_s: float) -> bool:
        """Return whether a condition on the queues became true in time.

        It is evaluated under the lock.
        """
        with self._over:
            return self._over.wait_for(condition, deadline_s - clock.monotonic_s())

    def notify_waiters(self) -> None:
        """Wake the callers of `wait_until`, to evaluate their conditions again."""
        with self._over:
            self._over.notify_all()

    def reserve(self, *, wanted: bool = True) -> bool:
        """Return whether a new job would get a thread at once.

        If not, the next free thread stays idle until a job is added, and `on_thread_free` is
        called. Otherwise jobs that have all threads would keep them for ever. `wanted=False`
        cancels the reservation.
        """
        with self._changed:
            free = self._active() < self.threads
            held, self._reserved = self._reserved, wanted and not free
            if held and not self._reserved:
                self._changed.notify_all()
            return free

    def has_capacity(self) -> bool:
        """Return whether a job would get a thread: one is idle or may be started.

        If this process has no thread, a slot must be free. A suspended process keeps its slots, so
        the job might wait here while a process with threads could run it.
        """
        with self._changed:
            free = self._active() < self.threads
            alive = self._alive
        if not free or alive or self._thread_limit is None:
            return free
        found = self._thread_limit.acquire()
        if found:
            self._thread_limit.release()
        with self._changed:
            self._job_was_refused = not found
        return found

    def active_threads(self) -> int:
        """Return how many threads are working on a file."""
        with self._changed:
            return self._active()

    def _active(self) -> int:
        return sum(job.queue.active for job in self._jobs)

    def _start(self, left: int) -> bool:
        """Start one of `left` threads that are already counted; on failure, uncount them all."""
        with self._changed:
            self._number += 1
            name = f"download-{self._number}"
        if not self._acquire_thread():
            with self._changed:
                self._alive -= left
            return False
        try:
            threading.Thread(target=self._serve, name=name, daemon=True).start()
        except RuntimeError:  # the system allows no more threads: continue with fewer, if any
            self._release_thread()
            with self._changed:
                self._alive -= left
                alive = self._alive
            if not alive:
                raise
            logger.warning(
                "downloads continue with %d threads: the system cannot start more", alive
            )
            return False
        return True

    def _acquire_thread(self) -> bool:
        try:
            return self._thread_limit is None or self._thread_limit.acquire()
        except OSError as exc:
            logger.warning("could not acquire a slot for a download thread: %s", exc)
            return False

    def _release_thread(self) -> None:
        if self._thread_limit is not None:
            self._thread_limit.release()

    def _serve(self) -> None:
        try:
            self._work()
        except BaseException:  # for example, the slot file failed: `refill` starts another thread
            with self._changed:
                self._alive -= 1
            logger.exception("a download thread ended unexpectedly")
        finally:
            self._release_thread()

    def _work(self) -> None:
        buffer = Buffer()
        while (taken := self._take()) is not None:
            job, host, file, grow = taken
            if grow:
                with contextlib.suppress(RuntimeError):
                    self._start(1)
            self._attempt(job, host, file, buffer)
            del taken, job, file

    def _attempt(self, job: PoolJob[T], host: str, file: T, buffer: Buffer) -> None:
        """Have a job try a file. Exceptions are logged here, as no caller handles them."""
        began_s = clock.monotonic_s()
        outcome: AttemptResult | None = None
        try:
            try:
                outcome = job.work(file, buffer)
            finally:
                self._finish_attempt(job, host, file, began_s, outcome)
                job.on_attempt_end()
        except BaseException:
            logger.exception("an attempt of %r failed unexpectedly; its thread continues", job)

    def _take(self) -> tuple[PoolJob[T], str, T, bool] | None:
        """Return the next file, and whether to start another thread; `None` ends this thread."""
        needed = self._thread_limit is not None and self._thread_limit.should_yield()
        with self._changed:
            if needed and self._alive > 1:
                self._alive -= 1
                return None
            idle_until_s = clock.monotonic_s() + _IDLE_S
            while True:
                now_s = clock.monotonic_s()
                found = None if self._reserved else self._pick(now_s)
                if found is not None:
                    return *found, self._needs_another_thread()
                if now_s >= idle_until_s and (self._idle or not self._has_queued_files()):
                    self._alive -= 1
                    return None
                idle_until_s = max(
                    idle_until_s, now_s + 0.1
                )  # the last thread stays while files wait
                self._idle += 1
                self._changed.wait(self._wait_s(now_s, idle_until_s))
                self._idle -= 1

    def _has_queued_files(self) -> bool:
        return any(len(job.queue) for job in self._jobs)

    def _needs_another_thread(self) -> bool:
        """Wake a thread if there may be more work; return whether to start one instead."""
        if not any(job.queue.could_use_a_thread for job in self._jobs):
            return False
        if self._idle:
            self._changed.notify()
            return False
        if self._alive >= self.threads:
            return False
        self._alive += 1
        return True

    def _finish_attempt(
        self, job: PoolJob[T], name: str, file: T, began_s: float, outcome: AttemptResult | None
    ) -> None:
        with self._changed:
            now_s = clock.monotonic_s()
            host = self._hosts[name]
            if outcome is not None and outcome.host_ok is not None:
                pause_s = outcome.host_pause_s
                pause = PauseRequest(outcome.url, now_s + pause_s) if pause_s else None
                host.record_response(began_s, now_s, ok=outcome.host_ok, pause=pause)
            host.active -= 1
            job.queue.active -= 1
            if outcome is not None and outcome.retry_in_s is not None and outcome.is_needed():
                job.queue.add_later(now_s + outcome.retry_in_s, name, file)
            if not job.queue.active and not len(job.queue):
                self._over.notify_all()
            wanted = self._reserved
        if wanted:
            self.on_thread_free()

    def _pick(self, now_s: float) -> tuple[PoolJob[T], str, T] | None:
        by_queue = {id(job.queue): job for job in self._jobs}
        for queue in fairest(job.queue for job in self._jobs):
            taken = queue.pop(self._hosts, now_s)
            if taken is not None:
                queue.active += 1
                self._turn += 1
                queue.turn = self._turn
                self._hosts[taken[0]].active += 1
                return by_queue[id(queue)], *taken
        return None

    def _wait_s(self, now_s: float, idle_until_s: float) -> float:
        dues = (job.queue.due_s(self._hosts, now_s) for job in self._jobs)
        soonest_s = min((due_s for due_s in dues if due_s is not None), default=idle_until_s)
        return max(0.001, min(soonest_s, idle_until_s) - now_s)
