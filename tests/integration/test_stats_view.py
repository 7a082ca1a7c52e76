"""`GET /api/stats` where something cannot be had: the rest is told all the same."""

from pathlib import Path

import pytest
from django.core.cache import caches
from django.db import OperationalError
from django.test import Client
from pytest_django.fixtures import Settings

from cacheapp.downloads import numbers

pytestmark = pytest.mark.django_db


@pytest.fixture
def client(settings: Settings, tmp_path: Path) -> Client:
    settings.CACHEAPP = {**settings.CACHEAPP, "DEMO": True}
    settings.SECURE_SSL_REDIRECT = False
    settings.STATIC_ROOT = tmp_path
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


def test_what_the_database_says_is_not_told(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OperationalError('connection to "10.1.2.3" failed for user "shop"')

    monkeypatch.setattr(numbers, "totals", refuse)
    answer = client.get("/api/stats")
    assert answer.status_code == 503
    assert answer.json()["error"] == "the database does not answer; try again later"
