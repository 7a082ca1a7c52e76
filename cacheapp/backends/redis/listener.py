"""Hears what is published about keys: one connection and one thread for all that a process waits for.

It is an accelerator and promises nothing: a message may be lost with the connection, so who listens
also looks, now and then. The connection is not one of the pool's: who waits takes none from those
who work.
"""

import contextlib
import logging
import os
import select
import threading
from collections.abc import Iterator
from concurrent.futures import Future, InvalidStateError
from typing import Any

import redis

from cacheapp import clock
from cacheapp.backends.redis.circuit_breaker import CircuitBreaker

logger = logging.getLogger(__name__)

_IDLE_S = 5.0  # then the connection is closed: one that nobody uses may die unnoticed
_PAUSE_S = 1.0  # after a failure nobody connects for so long: who waits looks meanwhile


class Ear:
    """One wait for one channel; `standing` is whether messages will come, `heard` that one did."""

    def __init__(self) -> None:
        self.standing: Future[bool] = Future()
        self.heard: Future[None] = Future()

    def stands(self, *, well: bool) -> None:
        """Say whether messages will come; the first word counts."""
        with contextlib.suppress(InvalidStateError):
            self.standing.set_result(well)

    def hears(self) -> None:
        """Wake who waits, if nobody has."""
        with contextlib.suppress(InvalidStateError):
            self.heard.set_result(None)

    def gone(self) -> None:
        """Say that no message will come any more."""
        self.stands(well=False)
        self.hears()


class _ListenerConnection:
    """What one thread listens on: a connection, once it has one, and a pipe that wakes the thread."""

    def __init__(self) -> None:
        self.connection: Any = None
        self.reading, self.writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.over = False

    def nudge(self) -> None:
        """Let the thread look at what is wanted."""
        with contextlib.suppress(BlockingIOError):  # full: it has enough to wake up for
            os.write(self.writing, b"x")

    def close(self) -> None:
        """Close all of it."""
        if self.connection is not None:
            self.connection.disconnect()
        os.close(self.reading)
        os.close(self.writing)


class Listener:
    """Subscribes to the channels that somebody listens to.

    `_lock` guards `_ears`, `_session` and `_not_before_s`. A session belongs to its thread alone,
    which takes it out of `_session` before it closes it; others only nudge it, under the lock.
    """

    def __init__(self, pool: Any, breaker: CircuitBreaker) -> None:
        self._pool = pool
        self._breaker = breaker
        self._lock = threading.Lock()
        self._ears: dict[bytes, list[Ear]] = {}
        self._session: _ListenerConnection | None = None
        self._not_before_s = 0.0

    @contextlib.contextmanager
    def listening(self, channel: bytes) -> Iterator[Ear]:
        """Listen to the channel until the block ends."""
        ear = Ear()
        with self._lock:
            session = self._session or self._begun()
            if session is not None:
                self._ears.setdefault(channel, []).append(ear)
                session.nudge()
        if session is None:
            ear.stands(well=False)
        try:
            yield ear
        finally:
            with self._lock:
                self._forget(channel, ear)
            ear.gone()  # nobody shall wait for it any more

    def _forget(self, channel: bytes, ear: Ear) -> None:
        ears = self._ears.get(channel, [])
        if ear in ears:
            ears.remove(ear)
            if not ears:
                del self._ears[channel]
                if self._session is not None:
                    self._session.nudge()

    def _begun(self) -> _ListenerConnection | None:
        """Start a thread that listens, unless it would be in vain."""
        if not self._breaker.closed or clock.monotonic_s() < self._not_before_s:
            return None
        session = _ListenerConnection()
        name = "cacheapp-listener"
        try:
            threading.Thread(target=self._run, args=(session,), name=name, daemon=True).start()
        except RuntimeError:  # the interpreter is about to end
            session.close()
            return None
        self._session = session
        return session

    # -- the thread --------------------------------------------------------------------------

    def _run(self, session: _ListenerConnection) -> None:
        failed = True
        try:
            kwargs = {**self._pool.connection_kwargs, "protocol": 2}  # messages are plain answers
            session.connection = self._pool.connection_class(**kwargs)
            session.connection.connect()
            self._listen(session)
            failed = False
        except (redis.RedisError, OSError) as exc:
            logger.debug("listening ended, who waits looks instead: %s", exc)
        except Exception:
            logger.exception("listening failed, who waits looks instead")
        finally:
            if failed:
                self._end(failed=True)
            session.close()

    def _end(self, *, failed: bool) -> None:
        with self._lock:
            ears, self._ears = self._ears, {}
            self._session = None
            if failed:
                self._not_before_s = clock.monotonic_s() + _PAUSE_S
        for each in ears.values():
            for ear in each:
                ear.gone()

    def _listen(self, session: _ListenerConnection) -> None:
        """Subscribe as asked and pass messages on, until nobody has listened for a while."""
        asked: set[bytes] = set()
        standing: set[bytes] = set()
        poll = select.poll()
        poll.register(session.reading, select.POLLIN)
        poll.register(session.connection._get_socket(), select.POLLIN)  # noqa: SLF001
        while True:
            asked = self._subscribe(session.connection, asked, standing)
            standing &= asked
            ready = [descriptor for descriptor, _ in poll.poll(_IDLE_S * 1000)]
            if session.reading in ready:
                os.read(session.reading, 4096)
                ready.remove(session.reading)
            elif not ready and self._is_idle():
                return
            if session.over:
                return
            if ready:
                self._receive(session.connection, asked, standing)

    def _is_idle(self) -> bool:
        """Return whether nobody listens; whoever comes after that starts a session of his own."""
        with self._lock:
            if not self._ears:
                self._session = None
            return not self._ears

    def _subscribe(self, connection: Any, asked: set[bytes], standing: set[bytes]) -> set[bytes]:
        """Ask for the channels that are wanted now; return them."""
        with self._lock:
            wanted = set(self._ears)
            for channel in wanted & standing:
                for ear in self._ears[channel]:
                    ear.stands(well=True)
        if new := wanted - asked:
            connection.send_command(b"SUBSCRIBE", *new, check_health=False)
        if old := asked - wanted:
            connection.send_command(b"UNSUBSCRIBE", *old, check_health=False)
        return wanted

    def _receive(self, connection: Any, asked: set[bytes], standing: set[bytes]) -> None:
        """Read all messages that have arrived."""
        while True:
            kind, channel, _ = connection.read_response(disable_decoding=True)
            with self._lock:
                ears = tuple(self._ears.get(channel, ()))
            if kind == b"message":
                for ear in ears:
                    ear.hears()
            elif kind == b"subscribe" and channel in asked:
                standing.add(channel)
                for ear in ears:
                    ear.stands(well=True)
            if not connection.can_read():
                return

    # -- life --------------------------------------------------------------------------------

    def close(self) -> None:
        """Let the thread end, and wake who waits."""
        with self._lock:
            session = self._session
            if session is not None:
                session.over = True
                session.nudge()
        self._end(failed=False)

    def abandon(self) -> None:
        """In a forked child, which has no such thread: close what was inherited, and say nothing.

        redis-py shuts down no connection of another process.
        """
        if self._session is not None:
            self._session.close()
