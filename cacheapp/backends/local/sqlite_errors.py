"""What SQLite's and the filesystem's errors mean to a caller of the cache."""

import errno
import sqlite3

from cacheapp.errors import CacheappError, StoreFull, StoreUnavailable, ValueRefused

_NO_ROOM = frozenset([errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])


# What SQLite says while somebody removes the directory, file after file.
_UPROOTED = frozenset(
    [
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_IOERR_FSTAT,
        sqlite3.SQLITE_IOERR_DELETE_NOENT,
        sqlite3.SQLITE_READONLY_DBMOVED,
    ]
)
_DAMAGE = frozenset(
    [
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_FORMAT,
        sqlite3.SQLITE_PROTOCOL,  # after ten seconds without making sense of the WAL's index
    ]
)


class DatabaseDamaged(Exception):
    """The database cannot be made sense of; whoever gets this inspects it."""


def _code(error: Exception) -> int:
    return getattr(error, "sqlite_errorcode", None) or 0


def _primary(error: Exception) -> int:
    return _code(error) & 0xFF


def suspects_damage(error: Exception) -> bool:
    """Return whether the error may come from a damaged database file."""
    if isinstance(error, DatabaseDamaged) or _code(error) == sqlite3.SQLITE_IOERR_SHORT_READ:
        return True
    if _primary(error) in _DAMAGE:
        return True
    # A database without our tables, and text that is no UTF-8 (which the module finds itself).
    return isinstance(error, sqlite3.OperationalError) and str(error).startswith(
        ("no such table", "no such column", "Could not decode")
    )


def is_closed(error: Exception) -> bool:
    """Return whether the connection was closed before the statement ran."""
    return isinstance(error, sqlite3.ProgrammingError) and "closed" in str(error)


def is_full(error: Exception) -> bool:
    """Return whether the database found no room on its filesystem."""
    return _primary(error) == sqlite3.SQLITE_FULL


def is_relocated(error: Exception) -> bool:
    """Return whether a file or directory was gone, or another one, when it was reached for."""
    return isinstance(error, FileNotFoundError) or _code(error) in _UPROOTED


def is_unopenable(error: Exception) -> bool:
    """Return whether SQLite could not open a file, for whatever reason."""
    return _primary(error) == sqlite3.SQLITE_CANTOPEN


def is_busy(error: Exception) -> bool:
    """Return whether another connection held a lock for the whole of the database timeout."""
    return _primary(error) in {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
    }


def translate_error(
    error: Exception, *, writing: bool, path: str, timeout_s: float
) -> CacheappError:
    """Return what the cache raises for `error`; each says that the operation did not happen."""
    if is_busy(error):
        return StoreUnavailable(
            f"{path}: another process or thread held the lock for the whole database_timeout of "
            f"{timeout_s:g} s; nothing was done"
        )
    if isinstance(error, OSError):
        if writing and error.errno in _NO_ROOM:
            return StoreFull(f"{path}: {error.strerror}; nothing was stored")
        return StoreUnavailable(f"{path}: {error}; nothing was done")
    if writing and _primary(error) in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}:
        return StoreFull(f"{path}: {error}; nothing was changed")
    if _primary(error) == sqlite3.SQLITE_TOOBIG or isinstance(error, sqlite3.DataError):
        return ValueRefused(f"{path}: {error}; nothing was stored")
    return StoreUnavailable(f"{path}: {error}; nothing was done")
