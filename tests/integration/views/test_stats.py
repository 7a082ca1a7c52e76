"""`GET /api/stats` if some counters are unavailable: the response has the others."""

from pathlib import Path

import pytest
from django.core.cache import caches
from django.db import OperationalError
from django.db.models import QuerySet
from django.test import Client
from pytest_django.fixtures import Settings

from cacheapp.downloads.runners import metrics

pytestmark = pytest.mark.django_db


@pytest.fixture
def client(settings: Settings, tmp_path: Path) -> Client:
    settings.CACHEAPP = {**settings.CACHEAPP, "DEMO": True}
    settings.SECURE_SSL_REDIRECT = False
    settings.STATIC_ROOT = tmp_path
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    lmdb = {"BACKEND": "cacheapp.backends.LMDBCache", "OPTIONS": {"size_limit": 2**21}}
    settings.CACHES = {
        "default": {**lmdb, "LOCATION": str(tmp_path / "cache")},
        "nowhere": {**lmdb, "LOCATION": "/proc/none"},
    }
    return Client(headers={"host": "localhost"})


def test_an_alias_whose_store_cannot_be_had_hides_no_other(client: Client) -> None:
    caches["default"].set("key", 1)
    answer = client.get("/api/stats")
    found = answer.json()["aliases"]
    assert (answer.status_code, found["default"]["sets"]) == (200, 1)
    assert "/proc/none" in found["nowhere"]["error"]


@pytest.mark.parametrize("path", ["/api/stats", "/downloads/"])
def test_what_the_database_says_is_not_told(
    client: Client, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    def refuse(*_args: object) -> None:
        raise OperationalError('connection to "10.1.2.3" failed for user "shop"')

    monkeypatch.setattr(metrics, "totals", refuse)
    monkeypatch.setattr(QuerySet, "_fetch_all", refuse)
    answer = client.get(path)
    assert answer.status_code == 503
    assert "database is unavailable; try again later" in answer.content.decode()
    assert "10.1.2.3" not in answer.content.decode()
