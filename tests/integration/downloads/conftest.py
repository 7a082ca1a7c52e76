"""A PostgreSQL for the tests of what the database keeps of downloads."""

from collections.abc import Iterator

import pytest

from tests.postgres import MISSING, PostgresServer, find_postgres
from tests.required import skip_or_fail


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL; without one, skip loudly on a developer's machine, and fail in CI."""
    if find_postgres() is None:
        skip_or_fail(MISSING)
    with PostgresServer() as server:
        yield server.start()
