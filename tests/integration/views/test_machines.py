"""The page of two machines: a write on one turns both, and the page shows when."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.cache.backends.locmem import LocMemCache
from django.test import Client
from pytest_django.fixtures import Settings

from cacheapp.demo import machines
from cacheapp.processes.servers import RedisServer
from cacheapp.processes.waiting import until
from tests.integration.views.test_pages import _token

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def visitor(settings: Settings, tmp_path: Path, redis_server: RedisServer) -> Iterator[Client]:
    settings.CACHEAPP = {**settings.CACHEAPP, "DEMO": True}
    settings.SECURE_SSL_REDIRECT = False
    settings.STATIC_ROOT = str(tmp_path)
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    redis = {
        "BACKEND": "cacheapp.backends.RedisCache",
        "LOCATION": redis_server.url,
        "KEY_PREFIX": tmp_path.name,
    }
    settings.CACHES = {"default": settings.CACHES["default"], "redis": redis}
    yield Client(enforce_csrf_checks=True, headers={"Host": "localhost", "Accept": "text/html"})
    for cache in machines.caches_of("redis").values():
        cache._store.close()  # noqa: SLF001


def _get(visitor: Client) -> Any:
    return visitor.get("/machines/", REMOTE_ADDR="127.0.0.1")


def test_a_write_on_one_machine_turns_the_other(visitor: Client) -> None:
    for writer, watcher in (("A", "B"), ("B", "A")):
        form = {"on": writer, "csrfmiddlewaretoken": _token(_get(visitor))}
        assert visitor.post("/machines/", form, REMOTE_ADDR="127.0.0.1").status_code == 302
        found = _get(visitor).context["last"]["watch"]
        turns = {turn.machine: turn for turn in found.turns}
        assert found.writer == writer
        assert turns[writer].old_reads == 0  # it reads its own write
        assert turns[watcher].turned_ms is not None
        seen = until(lambda: _all_from_copies(visitor), "both copies to be served", 30)
        assert {one.value for one in seen.machines} == {found.value, seen.in_redis}
    page = _get(visitor).content.decode()
    assert "Machine A" in page
    assert page.count('<rect class="old"') == 2


def _all_from_copies(visitor: Client) -> Any:
    seen = _get(visitor).context["seen"]
    return seen if all(one.from_copy for one in seen.machines) else None


def test_other_machines_are_refused(visitor: Client) -> None:
    form = {"on": "C", "csrfmiddlewaretoken": _token(_get(visitor))}
    response = visitor.post("/machines/", form, REMOTE_ADDR="127.0.0.1")
    assert response.status_code == 400
    assert "expected one of A, B" in response.content.decode()


def test_without_redis_the_page_says_what_is_missing(visitor: Client, settings: Settings) -> None:
    kind = f"{LocMemCache.__module__}.{LocMemCache.__qualname__}"
    settings.CACHES = {"default": {"BACKEND": kind}}
    assert "No alias of CACHES is a RedisCache" in _get(visitor).content.decode()
    settings.CACHES = {
        "default": {"BACKEND": kind},
        "redis": {"BACKEND": "cacheapp.backends.RedisCache", "LOCATION": "unix:///nowhere/none"},
    }
    assert "does not respond" in _get(visitor).content.decode()
    form = {"on": "A", "csrfmiddlewaretoken": _token(_get(visitor))}
    assert visitor.post("/machines/", form, REMOTE_ADDR="127.0.0.1").status_code == 503
