"""What all aliases of one LOCATION share in this process: the environment, the locks, the holders.

Locks are in a database of their own (SQLite's, as for `DiskCache`), because their tokens must never
go back: they outlive `clear`, eviction and the machine's restart, which the environment does not.
"""

from pathlib import Path

from cacheapp.backends.core.store import registry
from cacheapp.backends.lmdb.directory import NAME
from cacheapp.backends.lmdb.environment import Environment
from cacheapp.backends.lmdb.limits import SizeLimits
from cacheapp.backends.local.directory import LockTableDirectory
from cacheapp.backends.local.lock_table import LockStore
from cacheapp.backends.local.process_identity import HolderRegistry
from cacheapp.errors import OptionsRefused

_TIMEOUT_S = 5.0  # for the directory's lock, and for the database of locks


class Location:
    """One for each LOCATION; the registry tells it when the process forks."""

    def __init__(self, location: Path, limits: SizeLimits) -> None:
        self.environment = Environment(location, limits, _TIMEOUT_S)
        directory = LockTableDirectory(location, NAME, 1, _TIMEOUT_S)
        self.holders = HolderRegistry(directory.path / "holders", directory.prepare)
        self.locks = LockStore(location, NAME, _TIMEOUT_S, self.holders)

    def end_request(self) -> None:
        """Look at the files before they are used again."""
        self.environment.end_request()
        self.locks.sessions.end_request()

    def close(self) -> None:
        """Close all files."""
        self.environment.close()
        self.locks.sessions.close()

    def forget_watches(self) -> None:
        """Do nothing: stores wait, not this."""

    def before_fork(self) -> None:
        """Wait for operations in flight, and close everything."""
        try:
            self.environment.before_fork()
        finally:  # Python forks whatever a signal handler raised meanwhile
            self.locks.sessions.registry.before_fork()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self.locks.sessions.registry.after_fork_in_parent()
        self.environment.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        """Forget the parent's threads, then go on."""
        self.locks.sessions.after_fork_in_child()
        self.environment.after_fork_in_child()


def shared_location(location: Path, limits: SizeLimits) -> Location:
    """Return this process's one; raise `OptionsRefused` if it was asked for with other limits."""
    found = registry.shared(("lmdb", location), lambda: Location(location, limits))
    if found.environment.limits != limits:
        raise OptionsRefused(
            f"{location}: one directory has one size_limit and one MAX_ENTRIES; found "
            f"{found.environment.limits} in use and {limits} asked for"
        )
    return found
