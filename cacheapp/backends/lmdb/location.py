"""What all aliases of one LOCATION share in this process: the environment, locks and holders.

Locks have a database of their own (SQLite, as for `DiskCache`), because their tokens must never
decrease: they survive `clear`, eviction and a restart of the machine, and the environment does not.
"""

from pathlib import Path

from cacheapp.backends.core.store import registry
from cacheapp.backends.lmdb.directory import NAME
from cacheapp.backends.lmdb.environment import Environment
from cacheapp.backends.lmdb.limits import SizeLimits
from cacheapp.backends.local.database_directory import LockTableDirectory
from cacheapp.backends.local.lock_table import LockStore
from cacheapp.backends.local.process_identity import HolderRegistry
from cacheapp.errors import OptionsRefused

_TIMEOUT_S = 5.0  # for the directory's lock, and for the database of locks


class Location:
    """The shared parts of one LOCATION. The registry announces forks to it."""

    def __init__(self, path: Path, limits: SizeLimits) -> None:
        self.environment = Environment(path, limits, _TIMEOUT_S)
        directory = LockTableDirectory(path, NAME, 1, _TIMEOUT_S)
        self.holders = HolderRegistry(directory.path / "holders", directory.prepare)
        self.locks = LockStore(path, NAME, _TIMEOUT_S, self.holders)

    def end_request(self) -> None:
        """Check the files before their next use."""
        self.environment.end_request()
        self.locks.database.end_request()

    def close(self) -> None:
        """Close all files."""
        self.environment.close()
        self.locks.database.close()

    def reset_watches(self) -> None:
        """Do nothing: only stores have watches."""

    def before_fork(self) -> None:
        """Wait for operations in flight, and close all files."""
        try:
            self.environment.before_fork()
        finally:  # Python forks even if a signal handler raised an exception
            self.locks.database.registry.before_fork()

    def after_fork_in_parent(self) -> None:
        """Let threads open the files again."""
        self.locks.database.registry.after_fork_in_parent()
        self.environment.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        """Forget the parent's threads, and let this one open the files."""
        self.locks.database.after_fork_in_child()
        self.environment.after_fork_in_child()


def shared_location(path: Path, limits: SizeLimits) -> Location:
    """Return this process's `Location`; raise `OptionsRefused` if it has other limits."""
    found = registry.get_or_create(("lmdb", path), lambda: Location(path, limits))
    if found.environment.limits != limits:
        raise OptionsRefused(
            f"{path}: one directory has one size_limit and one MAX_ENTRIES; found "
            f"{found.environment.limits} in use, and {limits} for this cache; nothing was done"
        )
    return found
