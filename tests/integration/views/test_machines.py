"""The page of two machines: a write on one reaches the copy of the other, and the page shows when."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from django.core.cache.backends.locmem import LocMemCache
from django.test import Client
from pytest_django.fixtures import Settings

from cacheapp.backends import NearCache
from cacheapp.backends.local.private_directory import private_directory
from cacheapp.conf import state_dir
from cacheapp.demo import machines
from cacheapp.demo.machines import ObservedWrite
from cacheapp.openapi.document import document
from cacheapp.processes.redis_cluster import PrivateCluster
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


def _write(visitor: Client, writer: str) -> ObservedWrite:
    form = {"on": writer, "csrfmiddlewaretoken": _token(_get(visitor))}
    response = visitor.post("/machines/", form, REMOTE_ADDR="127.0.0.1")
    assert (response.status_code, response["Location"]) == (303, "/machines/")
    found: ObservedWrite = _get(visitor).context["last"]["observed"]
    assert found.writer == writer
    return found


def test_a_write_on_one_machine_invalidates_the_copy_of_the_other(
    visitor: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines, "_SERVED_WITHIN_S", 60.0)
    written = _write(visitor, "A").value
    for writer, watcher in (("B", "A"), ("A", "B")):
        snapshot = until(lambda: _all_from_copies(visitor), "both copies to be served")
        assert {one.value for one in snapshot.machines} == {written, snapshot.in_redis}
        copy = machines.caches_of("redis")[watcher]
        invalidated = copy.stats()["copy_invalidations"]
        found = _write(visitor, writer)
        reached = {one.machine: one for one in found.propagations}
        assert (reached[watcher].before, reached[watcher].from_copy) == (written, True)
        assert reached[writer].old_reads == 0  # it reads its own write
        assert reached[watcher].delay_ms is not None
        _until_more(copy, invalidated)  # and not because the copy was not confirmed any more
        written = found.value
    response = _get(visitor)
    page = response.content.decode()
    assert "Machine A" in page
    assert page.count('<rect class="old"') == 2
    lanes = {lane["of"].machine: lane["old"] for lane in response.context["last"]["lanes"]}
    assert lanes[writer] == 0
    assert "data-exact>" in page  # live.js shows it in the time zone of the reader
    same = response.context["same"]
    assert (same.url, same.curl) == ("/api/machines", "curl http://localhost/api/machines")
    data = visitor.get(same.url, REMOTE_ADDR="127.0.0.1").json()
    described = document()["paths"][same.url]["get"]["responses"]["200"]
    jsonschema_rs.validate(described["content"]["application/json"]["schema"], data)
    assert (data["in_redis"], data["last_write"]["value"]) == (written, written)


def _until_more(copy: NearCache, invalidated: int) -> None:
    until(lambda: copy.stats()["copy_invalidations"] > invalidated, "an invalidation")


def _all_from_copies(visitor: Client) -> Any:
    snapshot = _get(visitor).context["snapshot"]
    return snapshot if all(one.from_copy for one in snapshot.machines) else None


def test_a_damaged_record_of_the_last_write_is_shown_as_such(visitor: Client) -> None:
    path = private_directory(state_dir()) / "machines.json"
    one = '{"machine": "A", "before": null, "from_copy": true, "old_reads": 0, "delay_ms": "soon"}'
    whole = f'{{"at_s": 1.5, "writer": "A", "value": "x", "propagations": [{one}]}}'
    for text in ("", "[]", "5", "\0" * 90, '{"at_s": 5}', whole):
        path.write_text(text)
        response = _get(visitor)
        assert response.status_code == 200, text
        assert "What happened at the last write is unknown" in response.content.decode()
        data = visitor.get("/api/machines", REMOTE_ADDR="127.0.0.1")
        assert (data.status_code, "is damaged" in data.json()["detail"]) == (503, True)
    path.unlink()
    assert visitor.get("/api/machines", REMOTE_ADDR="127.0.0.1").json()["last_write"] is None


def test_a_record_that_another_user_could_write_is_not_read(visitor: Client) -> None:
    directory = private_directory(state_dir())
    directory.chmod(0o777)
    try:
        assert _get(visitor).status_code == 503
    finally:
        directory.chmod(0o700)


def test_the_machines_may_be_on_a_cluster(
    settings: Settings, tmp_path: Path, redis_cluster: PrivateCluster
) -> None:
    kind = "cacheapp.backends.RedisCache"
    cluster = {"BACKEND": kind, "LOCATION": redis_cluster.url, "KEY_PREFIX": tmp_path.name}
    settings.CACHES = {"default": {**cluster, "KEY_PREFIX": "a{b}"}, "other": cluster}
    assert machines.source() == "other"  # the first one has a mistake
    try:
        machines.write("other", "A")
        found = machines.last_write()
        assert found is not None
        assert {one.machine for one in found.propagations} == {"A", "B"}
        assert machines.read("other").in_redis == found.value
    finally:
        for cache in machines.caches_of("other").values():
            cache._store.close()  # noqa: SLF001


def test_other_machines_are_refused(visitor: Client) -> None:
    form = {"on": "C", "csrfmiddlewaretoken": _token(_get(visitor))}
    response = visitor.post("/machines/", form, REMOTE_ADDR="127.0.0.1")
    assert response.status_code == 400
    assert "expected one of A, B" in response.content.decode()


def test_without_redis_the_page_says_what_is_missing(visitor: Client, settings: Settings) -> None:
    kind = f"{LocMemCache.__module__}.{LocMemCache.__qualname__}"
    settings.CACHES = {"default": {"BACKEND": kind}}
    assert "No alias of CACHES is a RedisCache of which" in _get(visitor).content.decode()
    settings.CACHES = {
        "default": {"BACKEND": kind},
        "redis": {"BACKEND": "cacheapp.backends.RedisCache", "LOCATION": "unix:///nowhere/none"},
    }
    assert "does not respond" in _get(visitor).content.decode()
    form = {"on": "A", "csrfmiddlewaretoken": _token(_get(visitor))}
    assert visitor.post("/machines/", form, REMOTE_ADDR="127.0.0.1").status_code == 503
