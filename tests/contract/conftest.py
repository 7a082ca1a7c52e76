"""One cache per backend, and clients of it in other processes."""

import multiprocessing
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import Any, cast

import pytest
from django.core.cache import caches
from pytest_django.fixtures import Settings

from cacheapp import clock
from cacheapp.backends.core.shared import SharedCache
from tests.contract.backends import BACKENDS, Entry
from tests.contract.clients import CLIENT_MODULES, Clients
from tests.contract.rates import Now

Build = Callable[..., SharedCache]

# What NearCache has from RedisCache as it is, and never reads from its copy.
_OF_REDIS = frozenset(["test_locks", "test_single_flight_processes", "test_limit", "test_throttle"])

# What needs only operations on one key at a time, in which a cluster is as one server.
_OF_ONE_KEY = frozenset(
    [
        *("test_async_values", "test_cached", "test_caching_page", "test_drf", "test_limit"),
        *("test_ratelimit", "test_throttle", "test_unreadable_values"),
        "test_no_increment_is_lost_and_no_two_results_are_equal",
        "test_aincr_loses_nothing_and_keeps_the_deadline",
        "test_exactly_one_add_wins",
        "test_values_of_mixed_size_are_never_torn_nor_missing_while_overwritten",
        "test_nothing_is_served_after_its_deadline",
    ]
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave to `make soak` what would run the code of RedisCache or NearCache a second time.

    And clients that are started afresh: the forked ones have everything that those have, and more.
    """
    for item in items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        # Other tests may have a parameter of this name too, which is no name of a backend.
        if params.get("entry") not in ("cluster", "near", "near_cluster"):
            continue
        names = {item.path.stem, getattr(item, "originalname", "")}
        copied = names & (_OF_REDIS if params["entry"] == "near" else _OF_ONE_KEY)
        everywhere = params["entry"] == "near_cluster"
        if copied or everywhere or params.get("clients") == "forkserver":
            item.add_marker(pytest.mark.soak)


@pytest.fixture(params=list(BACKENDS))
def entry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Entry]:
    """The entry of CACHES, under a prefix of its own, with times that no busy machine comes to."""
    name = "redis_cluster" if "cluster" in request.param else "redis_server"
    made = BACKENDS[request.param](tmp_path, request.getfixturevalue(name))
    options = {"lease_time": 100.0, "lease_wait": 200.0, **made.get("OPTIONS", {})}
    yield {**made, "KEY_PREFIX": f"test-{uuid.uuid4().hex[:8]}", "OPTIONS": options}
    if request.param == "lmdb":  # what it reserved would be kept for every test of three runs
        shutil.rmtree(made["LOCATION"], ignore_errors=True)


@pytest.fixture
def build(entry: Entry, settings: Settings) -> Build:
    """Make a further alias that differs from `entry` as the keyword arguments say."""

    def build(alias: str, **changes: Any) -> SharedCache:
        options = {**entry.get("OPTIONS", {}), **changes.pop("OPTIONS", {})}
        made = {**entry, **changes, "OPTIONS": options}
        settings.CACHES = {**settings.CACHES, alias: made}
        return cast("SharedCache", caches[alias])

    return build


@pytest.fixture
def cache(entry: Entry, settings: Settings) -> SharedCache:
    """The cache under test, by the alias `default`."""
    settings.CACHES = {"default": entry}
    return cast("SharedCache", caches["default"])


@pytest.fixture(scope="session")
def _fork_server(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Have one process import what clients use: to spawn each would cost a second of CPU."""
    multiprocessing.set_forkserver_preload(CLIENT_MODULES)
    with pytest.MonkeyPatch.context() as patched:
        # Its socket is kept until this process ends: the run would report it as left behind.
        patched.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("fork")))
        get_temp_dir()


@pytest.fixture(params=["forkserver", "fork"])
def clients(
    request: pytest.FixtureRequest, _fork_server: None, cache: SharedCache, settings: Settings
) -> Clients:
    """Clients in processes of their own: forked from one that has only imported, or from this one."""
    context = multiprocessing.get_context(request.param)
    return Clients(cast("Any", context), settings.CACHES, settings.CACHEAPP)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Now:
    """The wall clock, which the test moves."""
    made = Now()
    monkeypatch.setattr(clock, "wall_s", made)
    return made
