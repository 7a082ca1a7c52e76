"""Tells at which keys nothing can have changed: SQLite knows whether a database was written to."""

from collections.abc import Callable, Mapping
from typing import Any

from cacheapp import clock
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.local.database_spec import Database
from cacheapp.backends.local.sharded_database import ShardedDatabase
from cacheapp.backends.local.sqlite_connections import Connection

_LOOK_EVERY_S = 0.25  # an entry whose time ends is not written to


class ChangeDetector:
    """What one thread, the poller's, last saw of keys that it looks at again and again.

    `PRAGMA data_version` changes when another connection has committed. It is read before the keys
    are: so a write in between is seen by the next look, and none is missed.
    """

    def __init__(self, sessions: ShardedDatabase, number: Callable[[str], int]) -> None:
        self._run = sessions.run
        self._shard_number = number
        self._last: dict[str, tuple[Any, ...]] = {}

    def unchanged(self, seen: Mapping[str, Payload]) -> dict[str, Payload]:
        """Return those keys, with what was seen there, whose shard was not written to since.

        The others are looked at by the caller now.
        """
        turn = clock.monotonic_s() // _LOOK_EVERY_S
        versions: dict[int, Any] = {}
        now: dict[str, tuple[Any, ...]] = {}
        for key, payload in seen.items():
            number = self._shard_number(key)
            if number not in versions:
                versions[number] = self._run(number, _version, writing=False)
            now[key] = (versions[number], turn, payload)
        last = self._last
        same = {key: seen[key] for key, look in now.items() if last.get(key) == look}
        # Some keys are looked at more often than others: only those of the past are forgotten.
        self._last = {key: look for key, look in last.items() if look[1] == turn} | now
        return same


def _version(_database: Database, con: Connection) -> tuple[Connection, int]:
    (version,) = con.execute("PRAGMA data_version").fetchone()
    return con, version  # another connection counts otherwise
