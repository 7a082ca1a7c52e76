"""What a `ShardedDatabase` needs to know of the databases that it opens: shards, or a lock table."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from cacheapp.backends.local.slot_file import Identity
from cacheapp.backends.local.sqlite_connections import Connection


class Database(Protocol):
    """One database file as this process has it open, without its threads' connections."""

    database_identity: Identity


@dataclasses.dataclass(frozen=True)
class DatabaseSpec:
    """How the databases of one directory are opened, checked and maintained."""

    open: Callable[[str, Connection], Any]
    """Creates or upgrades the database in a directory, and returns the `Database`."""

    probes: Sequence[str]
    """Statements that run without an error on a sound database."""

    pragmas: Sequence[str]
    """Statements that configure each connection."""

    after_write: Callable[[Any, Connection], None]
    """Called after each write, for maintenance."""
