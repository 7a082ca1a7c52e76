"""A plugin for pytest: `--cachecheck`, the mark `cachecheck` and the fixture `cachecheck`.

pytest loads this module in every project where cacheapp is installed, so it imports nothing else until
a check runs.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from cacheapp.cachecheck.pytest_checks import Check

_MARK = (
    "cachecheck(alias='default', *, subject='', seconds=2, private=True, processes=4, threads=2, "
    "only=(), known=()): run the test once for each property of a cache; the fixture cachecheck has "
    "the finding"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    group = parser.getgroup("cachecheck", "consistency of caches (cacheapp)")
    group.addoption(
        "--cachecheck",
        action="append",
        nargs="?",
        const="",
        default=[],
        metavar="ALIAS",
        help="also check an alias of CACHES, or MODULE:NAME: a test for each property; without a "
        "value, the alias default. May be repeated",
    )
    group.addoption(
        "--cachecheck-seconds",
        type=float,
        default=2.0,
        metavar="S",
        help="duration of each workload of --cachecheck (default 2)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the mark."""
    config.addinivalue_line("markers", _MARK)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with the fixture once for each property."""
    if "cachecheck" in metafunc.fixturenames:
        from cacheapp.cachecheck.pytest_checks import marked  # noqa: PLC0415 (only when used)

        checks = marked(metafunc.definition.get_closest_marker("cachecheck"))
        metafunc.parametrize("cachecheck", checks, ids=[one.id for one in checks], indirect=True)


@pytest.fixture
def cachecheck(request: pytest.FixtureRequest) -> "Check":
    """Return the finding on one property of a cache; skip if the cache has no such operation."""
    found: Check = request.param
    found.require(request.config)
    return found


def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Add a test for each property of what `--cachecheck` names."""
    if config.getoption("cachecheck"):
        items += _added(session, config)


def _added(session: pytest.Session, config: pytest.Config) -> Iterator[pytest.Item]:
    from cacheapp.cachecheck.pytest_checks import (  # noqa: PLC0415 (only when used)
        CheckCollector,
        CheckItem,
        checks_of,
    )

    seconds: Any = config.getoption("cachecheck_seconds")
    parent = CheckCollector.from_parent(session, name="cachecheck", nodeid="cachecheck")
    for name in dict.fromkeys(config.getoption("cachecheck")):
        where = {"subject": name} if ":" in name else {"alias": name or "default"}
        for check in checks_of(seconds=seconds, **where):
            yield CheckItem.from_parent(parent, name=check.id, check=check)
