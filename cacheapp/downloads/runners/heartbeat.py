"""Sends the heartbeats of one process's jobs from a thread of its own.

So no work of the coordinator delays them, such as the start of a job of many files. They end with the
process, at `stop`, and while the coordinator has not completed a round for `_STUCK` times
`DOWNLOAD_HEARTBEAT_S`: then its jobs would make no progress, and other processes adopt them.
"""

import logging
import threading

from django.db import DatabaseError, connection

from cacheapp import clock
from cacheapp.conf import conf
from cacheapp.downloads.jobs import ownership
from cacheapp.downloads.jobs.ownership import JobOwner

logger = logging.getLogger(__name__)

_PER_PERIOD = 6
"""Heartbeats in `DOWNLOAD_HEARTBEAT_S`."""
_STUCK = 24


class Heartbeat:
    """The heartbeats of one owner, for one coordinator.

    `_round_s` is one float, written by the coordinator and read by the thread, so it needs no lock.
    """

    def __init__(self, owner: JobOwner) -> None:
        self._owner = owner
        self._stopped = threading.Event()
        self._round_s = clock.monotonic_s()
        self._thread: threading.Thread | None = None

    def note_round(self) -> None:
        """Record that the coordinator is working; start the thread if there is none."""
        self._round_s = clock.monotonic_s()
        if self._stopped.is_set() or (self._thread is not None and self._thread.is_alive()):
            return
        thread = threading.Thread(target=self._run, name="downloads-heartbeat", daemon=True)
        try:
            thread.start()
        except RuntimeError as exc:  # the system allows no thread now: the next round tries again
            logger.warning("downloads: no thread for heartbeats yet: %s", exc)
        else:
            self._thread = thread

    def stop(self, within_s: float) -> None:
        """Send no more heartbeats; wait at most `within_s` for the one being sent."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(within_s)

    def _run(self) -> None:
        try:
            self._send_until_stopped()
        finally:
            connection.close()

    def _send_until_stopped(self) -> None:
        while not self._stopped.wait(conf().download_heartbeat_s / _PER_PERIOD):
            if clock.monotonic_s() - self._round_s < _STUCK * conf().download_heartbeat_s:
                self._send()

    def _send(self) -> None:
        try:
            if not ownership.send_heartbeat(self._owner):
                connection.close()  # an idle process keeps no connection
        except DatabaseError as exc:  # locked or gone: the next one is sent on a new connection
            connection.close()
            logger.warning(
                "downloads: heartbeat not recorded: %s", exc, extra={"event": "flush_failed"}
            )
