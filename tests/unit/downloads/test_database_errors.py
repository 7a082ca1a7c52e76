"""A hint at `migrate` is given only where a table or column is missing."""

import pytest
from django.db import DatabaseError, OperationalError, ProgrammingError

from cacheapp.downloads.jobs.database_errors import migration_hint


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (OperationalError("database is locked"), ""),
        (OperationalError("unable to open database file"), ""),
        (OperationalError("connection to server at 127.0.0.1 failed"), ""),
        (
            OperationalError("no such table: cacheapp_downloads_downloadjob"),
            "; was `manage.py migrate` run?",
        ),
        (OperationalError("no such column: parts"), "; was `manage.py migrate` run?"),
        (ProgrammingError('relation "x" does not exist'), "; was `manage.py migrate` run?"),
    ],
    ids=["locked", "no file", "away", "no table", "no column", "no relation"],
)
def test_only_a_missing_table_or_column_suggests_a_migration(
    error: DatabaseError, hint: str
) -> None:
    assert migration_hint(error) == hint
