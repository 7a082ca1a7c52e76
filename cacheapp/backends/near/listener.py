"""Apply Redis's invalidations to this machine's copy: one thread of one process per copy.

Redis sends the names of changed keys to a connection that has `CLIENT TRACKING ON BCAST`. The
listener removes them from the copy, and confirms at intervals until when the copy may be served:

- It begins a new epoch after tracking is on, on every connection. So an entry of this epoch was
  fetched while Redis was already sending what changes.
- It sends PING at intervals. Redis sends the invalidations of one turn of its event loop after the
  replies of that turn, possibly, but before those of the next. So when the reply to a PING arrives
  that was sent after the previous reply, everything that changed before the *previous* PING was sent
  has arrived, and been applied. From then on the copy may be served until `max_staleness` seconds
  after that moment. Nothing in this depends on how Redis orders its output within a turn, nor on its
  `io-threads`.
- Each change is made in a transaction that first checks that this listener is still the owner. One
  that was stopped for long, and replaced by another process, changes nothing and ends.

On a cluster there is a connection to each node, and the questions of `TrackedCluster` take the place of
PING: a time is confirmed if the replies of all nodes show that they were the only ones.

The owner is elected by the state in the copy, without a lock: a reader that finds `claimed_until` in
the past may claim it. A kill needs no cleanup, and a stopped process blocks no other.

Invariant: a listener that makes progress keeps its claim. It renews the claim before each step of a connection,
and a claim is longer than the time-outs of a step. Without that, the processes of a machine would take the claim
from each other where many nodes are slow, and none would ever have connected to all of them.
"""

import atexit
import logging
import select
import threading
import time
import weakref
from collections.abc import Callable

import redis
from redis.exceptions import AuthorizationError

from cacheapp import clock
from cacheapp.backends.core import helper_thread
from cacheapp.backends.core.log_throttle import LogThrottle
from cacheapp.backends.near.copy import LocalCopy
from cacheapp.backends.near.records import NotOwner, State
from cacheapp.backends.near.tracking import (
    Messages,
    ServersChanged,
    Tracked,
    TrackingConnection,
    is_refusal,
)
from cacheapp.backends.redis.connection_advice import on_refusal
from cacheapp.errors import CacheappError

logger = logging.getLogger(__name__)
_unsupported = LogThrottle()
_NOT_LOGGED_IN = (redis.AuthenticationError, AuthorizationError)
_PINGS = 5  # in `max_staleness`
_CLAIM_S = 10.0  # at least, and longer than one step of a connection takes
# Time-outs in a step, at most: a server that replies slowly to each command of its handshake.
_STEPS = 4
_RETRY_S = 0.5  # after a connection was lost or refused
_UNSUPPORTED_S = 60.0  # after the server refused to track
_IDLE_S = 60.0  # without a read on this machine: then the connection is not needed
_END_WITHIN_S = 2.0
_GATHER_S = 0.002  # more invalidations in one transaction, and fewer turns of this thread
_BATCH = 10_000  # invalidated keys in one transaction


class InvalidationListener:
    """Becomes the listener of its copy when there is none. `ensure` costs nothing while there is one.

    The claim in the copy elects one thread of one process, so `ensure` needs no lock, and may run in
    a signal handler. `_owner` is the token of the current claim: a thread ends when its own is not
    there any more. `_turn` is held by the thread that works: a late one waits for its predecessor.
    """

    def __init__(
        self,
        build_tracked: Callable[[], Tracked],
        copy: LocalCopy,
        name: str,
        count: Callable[[int], None],
        reads: Callable[[], int],
        timeout_s: float,
    ) -> None:
        self._build_tracked = build_tracked  # anew each time: it knows what it is connected to
        self._copy = copy
        self._name = name
        self._count = count
        self._reads = reads
        self._claim_s = max(_CLAIM_S, _STEPS * timeout_s)
        self._interval_s = copy.max_staleness / _PINGS
        self._turn = threading.Lock()
        self._tracked: Tracked
        self._connections: list[TrackingConnection] = []
        self._messages: Messages = []
        self._owner: bytes | None = None
        self._thread: threading.Thread | None = None
        atexit.register(_stop, weakref.ref(self))

    def ensure(self, state: State, now: float) -> None:
        """Start to listen if no process of this machine does. Readers call it."""
        if now < state.claimed_until or self._thread is not None:
            return
        owner, started = self._copy.claim(self._claim_s), False
        if owner is None:
            return
        try:
            self._owner = owner
            started = helper_thread.start("cacheapp-near", self._run, owner)
        finally:
            if not started:  # if a handler raised while it was, the thread ends at once
                self._owner = None
                self._copy.release(owner, _RETRY_S)

    def stop(self) -> None:
        """End the thread soon. It lets another process become the listener at once.

        The thread itself makes this last change of the copy. A process that is stopped in a write to
        the copy delays it; it does not delay the caller, which may be the end of this process.
        """
        self._owner = None
        for connection in tuple(self._connections):
            connection.wake()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_END_WITHIN_S)

    def refusal(self) -> str:
        """Return why Redis does not track keys for this user; empty if it does, or is down.

        One node of a cluster is enough. `RedisCache` does not notice the password of a replica.
        """
        connections: list[TrackingConnection] = []
        try:
            self._build_tracked().connect(connections, [], lambda: None)
        except (redis.RedisError, OSError, CacheappError, ServersChanged) as exc:
            return str(exc) if is_refusal(exc) or isinstance(exc, _NOT_LOGGED_IN) else ""
        finally:
            for connection in connections:
                connection.close()
        return ""

    def close_in_child(self) -> None:
        """Close what a forked child inherited, without sending anything."""
        self._close_connections()

    # -- the thread ------------------------------------------------------------------------------

    def _run(self, owner: bytes) -> None:
        with self._turn:
            self._thread = threading.current_thread()
            retry_in_s = 0.0
            try:
                if self._owner == owner:
                    retry_in_s = self._listen(owner)
            finally:
                if self._owner == owner:
                    self._owner = None
                self._copy.release(owner, retry_in_s)
                self._thread = None

    def _listen(self, owner: bytes) -> float:
        """Follow the connections until one ends; return after how many seconds others may be made."""
        retry_in_s = 0.0
        try:
            self._messages = []
            self._tracked = self._build_tracked()
            self._tracked.connect(self._connections, self._messages, lambda: self._renew(owner))
            self._follow(owner)
        except NotOwner:
            pass
        except (redis.RedisError, OSError, CacheappError, ServersChanged) as exc:
            retry_in_s = self._note_end(owner, exc)
        except Exception:
            retry_in_s = _RETRY_S
            logger.exception("%s: the listener for invalidations failed", self._name)
        finally:
            self._close_connections()
        return retry_in_s if self._owner == owner else 0.0

    def _renew(self, owner: bytes) -> None:
        """Keep the claim while connecting; raise `NotOwner` if it is lost, or this listener was stopped."""
        if self._owner != owner:
            raise NotOwner
        self._copy.renew(owner, self._claim_s)

    def _note_end(self, owner: bytes, reason: Exception) -> float:
        """Log why the connections ended; return after how many seconds others may be made."""
        if is_refusal(reason):
            if _unsupported.due() is not None:
                logger.warning(
                    "%s does not track keys for this connection (%s%s); every read goes to Redis",
                    self._name,
                    reason,
                    on_refusal(str(reason)),
                    extra={"event": "near_tracking_refused"},
                )
            return _UNSUPPORTED_S
        if self._owner == owner:
            logger.info(
                "%s: the connection for invalidations ended (%s); the copy is not served until "
                "another one is made",
                self._name,
                reason,
                extra={"event": "near_listener_ended"},
            )
        return _RETRY_S

    def _close_connections(self) -> None:
        connections, self._connections = self._connections, []
        for connection in connections:
            connection.close()

    def _follow(self, owner: bytes) -> None:
        """Apply and confirm until a connection ends, another process is the owner, or nothing reads."""
        if self._owner != owner:
            return
        self._copy.begin_epoch(owner, self._tracked.owners())
        previous_sent_s = None
        idle_at_s, reads = clock.boot_s() + _IDLE_S, self._reads()
        while self._owner == owner:
            if clock.boot_s() > idle_at_s:
                before, reads = reads, self._reads()
                if reads == before:
                    return
                idle_at_s = clock.boot_s() + _IDLE_S
            sent_s = self._ping(owner, previous_sent_s)
            if previous_sent_s is not None:
                self._apply_until(owner, sent_s + self._interval_s)
            previous_sent_s = sent_s

    def _ping(self, owner: bytes, previous_sent_s: float | None) -> float:
        """Send PING, and after its reply confirm from the previous one on; return when it was sent."""
        connections, questions = self._connections, self._tracked.questions
        for connection in connections:
            connection.check_socket()
        sent_s = clock.boot_s()
        for connection in connections:
            connection.send(*questions)
        replies = [[each.read_reply() for _ in questions] for each in connections]
        self._tracked.check(replies)
        confirmed = None
        if previous_sent_s is not None:
            until = previous_sent_s + self._copy.max_staleness
            confirmed = until, clock.boot_s() - sent_s
        self._apply(owner, confirmed)
        return sent_s

    def _apply_until(self, owner: bytes, deadline_s: float) -> None:
        """Apply invalidations as they arrive."""
        while (left_s := deadline_s - clock.boot_s()) > 0 and self._owner == owner:
            if not self._readable() and not self._wait(left_s):
                continue
            time.sleep(_GATHER_S)
            while len(self._messages) < _BATCH and (readable := self._readable()):
                for connection in readable:
                    connection.read_messages()
            self._apply(owner, None)

    def _readable(self) -> list[TrackingConnection]:
        for connection in self._connections:
            connection.check_socket()
        return [connection for connection in self._connections if connection.is_readable()]

    def _wait(self, within_s: float) -> bool:
        """Wait until something arrives, without reading it: the descriptor may be of another file then."""
        poll = select.poll()
        for connection in self._connections:
            poll.register(connection.fileno(), select.POLLIN)
        return bool(poll.poll(within_s * 1000))

    def _apply(self, owner: bytes, confirmed: tuple[float, float] | None) -> None:
        messages = self._messages[:]
        del self._messages[: len(messages)]
        keys = [key for message in messages for key in message[1] or ()]
        flushed = any(message[1] is None for message in messages)
        self._count(self._copy.apply(owner, keys, flushed=flushed, confirmed=confirmed))


def _stop(listener: "weakref.ref[InvalidationListener]") -> None:
    """At the end of the process, let another one become the listener at once."""
    if found := listener():
        found.stop()
