"""Explains database errors in messages for people."""

from django.db import DatabaseError, ProgrammingError

_MISSING = ("no such table", "no such column", "doesn't exist")


def migration_hint(exc: DatabaseError) -> str:
    """Return a hint at `migrate` if a table or column is missing; else "": it may be locked or away."""
    is_missing = isinstance(exc, ProgrammingError) or any(text in str(exc) for text in _MISSING)
    return "; was `manage.py migrate` run?" if is_missing else ""
