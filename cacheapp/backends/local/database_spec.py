"""What a `ShardedDatabase` must know of the databases that it opens: shards, or the one of the locks."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from cacheapp.backends.local.slot_file import Identity
from cacheapp.backends.local.sqlite_connections import Connection


class Database(Protocol):
    """What a process knows of one database file, besides its threads' connections."""

    database_identity: Identity


@dataclasses.dataclass(frozen=True)
class DatabaseSpec:
    """What the databases of one directory are."""

    open: Callable[[str, Connection], Any]
    """Brings the database in a directory up to date, and returns the `Database`."""

    probes: Sequence[str]
    """Statements that a sound database answers without an error."""

    pragmas: Sequence[str]
    """Settings of each connection."""

    after_write: Callable[[Any, Connection], None]
    """Called after each write, for upkeep."""
