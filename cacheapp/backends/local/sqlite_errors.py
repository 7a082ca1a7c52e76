"""Classify errors of SQLite and of the filesystem, and translate them to the cache's own."""

import errno
import sqlite3
from pathlib import Path

from cacheapp.backends.local.private_directory import denial
from cacheapp.errors import CacheappError, StoreFull, StoreUnavailable, ValueRefused

_NO_ROOM = frozenset([errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])

# Errors of SQLite while another process removes the directory, file after file.
_RELOCATED = frozenset(
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
        sqlite3.SQLITE_PROTOCOL,  # raised after ten seconds in which the WAL index made no sense
    ]
)


class DatabaseDamaged(Exception):
    """The content of the database makes no sense; `ShardedDatabase` then inspects the file."""


def _code(error: Exception) -> int:
    return getattr(error, "sqlite_errorcode", None) or 0


def _primary(error: Exception) -> int:
    return _code(error) & 0xFF


def suspects_damage(error: Exception) -> bool:
    """Return True if the error may come from a damaged database file."""
    if isinstance(error, DatabaseDamaged) or _code(error) == sqlite3.SQLITE_IOERR_SHORT_READ:
        return True
    if _primary(error) in _DAMAGE:
        return True
    # A database without our tables, or with text that is not UTF-8 (an error of Python's module).
    return isinstance(error, sqlite3.OperationalError) and str(error).startswith(
        ("no such table", "no such column", "Could not decode")
    )


def is_closed(error: Exception) -> bool:
    """Return True if the connection was closed before the statement ran."""
    return isinstance(error, sqlite3.ProgrammingError) and "closed" in str(error)


def is_full(error: Exception) -> bool:
    """Return True if the filesystem of the database is full."""
    return _primary(error) == sqlite3.SQLITE_FULL


def is_relocated(error: Exception) -> bool:
    """Return True if a file or directory was missing, or replaced, when it was used."""
    return isinstance(error, FileNotFoundError) or _code(error) in _RELOCATED


def is_unopenable(error: Exception) -> bool:
    """Return True if SQLite could not open a file, for any reason."""
    return _primary(error) == sqlite3.SQLITE_CANTOPEN


def is_busy(error: Exception) -> bool:
    """Return True if another connection held a lock for the whole database timeout."""
    return _primary(error) in {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
    }


def translate_error(
    error: Exception, *, writing: bool, path: str, timeout_s: float
) -> CacheappError:
    """Return the cache's exception for `error`. In each case the operation had no effect."""
    if is_busy(error):
        return StoreUnavailable(
            f"{path}: another process or thread held the lock for the whole database_timeout of "
            f"{timeout_s:g} s; nothing was done"
        )
    if isinstance(error, OSError):
        if writing and error.errno in _NO_ROOM:
            return StoreFull(f"{path}: {error.strerror}; nothing was stored")
        return StoreUnavailable(f"{path}: {error}{denial(error, Path(path))}; nothing was done")
    if writing and _primary(error) in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}:
        return StoreFull(f"{path}: {error}; nothing was changed")
    if _primary(error) == sqlite3.SQLITE_TOOBIG or isinstance(error, sqlite3.DataError):
        return ValueRefused(f"{path}: {error}; nothing was stored")
    return StoreUnavailable(f"{path}: {error}; nothing was done")
