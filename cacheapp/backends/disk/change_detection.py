"""Skip keys whose shard has not been written to, according to SQLite's `PRAGMA data_version`."""

from collections.abc import Callable, Mapping
from typing import Any

from cacheapp import clock
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.local.database_spec import Database
from cacheapp.backends.local.sharded_database import ShardedDatabase
from cacheapp.backends.local.sqlite_connections import Connection

_READ_EVERY_S = 0.25  # at least, because an entry that expires causes no write


class ChangeDetector:
    """Remembers the state of the shards when the poller's thread last read each key.

    `PRAGMA data_version` changes when another connection has committed. It is read before the keys
    are, so the next call detects a write in between.
    """

    def __init__(self, database: ShardedDatabase, shard_of: Callable[[str], int]) -> None:
        self._run = database.run
        self._shard_of = shard_of
        self._last: dict[str, tuple[Any, ...]] = {}

    def unchanged(self, seen: Mapping[str, Payload]) -> dict[str, Payload]:
        """Return the part of `seen` in shards that have not been written to since the last call.

        The caller reads the other keys now.
        """
        turn = clock.monotonic_s() // _READ_EVERY_S
        versions: dict[int, Any] = {}
        current: dict[str, tuple[Any, ...]] = {}
        for key, payload in seen.items():
            number = self._shard_of(key)
            if number not in versions:
                versions[number] = self._run(number, _version, writing=False)
            current[key] = (versions[number], turn, payload)
        last = self._last
        unchanged = {key: seen[key] for key, state in current.items() if last.get(key) == state}
        # Some keys are polled more often than others: forget only those of earlier turns.
        self._last = {key: state for key, state in last.items() if state[1] == turn} | current
        return unchanged


def _version(_database: Database, con: Connection) -> tuple[Connection, int]:
    (version,) = con.execute("PRAGMA data_version").fetchone()
    return con, version  # versions of two connections are not comparable
