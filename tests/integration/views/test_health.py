"""`/livez` and `/readyz`: what they look at, and that they reveal nothing."""

import shutil
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError
from django.db.backends.utils import CursorWrapper
from django.test import Client
from pytest_django.fixtures import Settings

from cacheapp import clock, health

pytestmark = pytest.mark.django_db
NOW = [0.0]


@pytest.fixture(autouse=True)
def site(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    settings.STATIC_ROOT = tmp_path
    settings.SECURE_SSL_REDIRECT = True  # probes are not redirected
    lmdb = {"BACKEND": "cacheapp.backends.LMDBCache", "OPTIONS": {"size_limit": 2**21}}
    settings.CACHES = {
        "default": {**lmdb, "LOCATION": str(tmp_path / "cache")},
        "nowhere": {**lmdb, "LOCATION": "/proc/none"},
        "hiding": {
            "BACKEND": "cacheapp.backends.RedisCache",
            "LOCATION": "redis://:secret@127.0.0.1:1/0",
            "OPTIONS": {"on_error": "miss"},
        },
        "local": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    }
    settings.CACHEAPP = {
        "STATE_DIR": tmp_path / "state",
        "DOWNLOAD_ROOT": tmp_path / "new" / "downloads",
        "READY_ALIASES": ["default", "local"],
    }
    NOW[0] = clock.monotonic_s()
    monkeypatch.setattr(clock, "monotonic_s", lambda: NOW[0])
    health._readiness._reset()  # noqa: SLF001 (what other tests found)
    yield settings
    health._readiness._reset()  # noqa: SLF001


def _get(path: str) -> Any:
    return Client(headers={"host": "localhost"}).get(path)


def _parts() -> dict[str, str]:
    answer = _get("/readyz")
    found: dict[str, str] = answer.json()["parts"]
    assert answer.json()["ready"] is (answer.status_code == 200)
    assert answer.status_code == (200 if set(found.values()) == {"ok"} else 503)
    assert "secret" not in answer.content.decode()
    assert "/proc" not in answer.content.decode()
    return found


def test_a_process_whose_parts_work_is_ready() -> None:
    assert _parts() == dict.fromkeys(
        ["database", "cache default", "cache local", "download root", "disk space"], "ok"
    )
    assert _get("/livez").json() == {"live": True}


def test_a_cache_that_cannot_be_read_is_named_even_if_it_hides_its_errors(site: Settings) -> None:
    site.CACHEAPP = {**site.CACHEAPP, "READY_ALIASES": ["default", "nowhere", "hiding"]}
    found = _parts()
    assert found["cache default"] == "ok"
    assert found["cache nowhere"] == found["cache hiding"] == "cannot be read"
    assert _get("/livez").status_code == 200


def test_a_database_that_does_not_respond_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> None:
        raise OperationalError('connection to "10.1.2.3" failed for user "secret"')

    monkeypatch.setattr(CursorWrapper, "execute", refuse)
    assert _parts()["database"] == "does not respond"


def test_a_root_that_cannot_be_written_or_is_full_is_named(
    site: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usage = namedtuple("usage", "free")  # noqa: PYI024 (as shutil's)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(5))
    assert _parts()["disk space"] == "5 bytes free; downloads have stopped"
    (tmp_path / "file").touch()
    site.CACHEAPP = {**site.CACHEAPP, "DOWNLOAD_ROOT": tmp_path / "file"}
    NOW[0] += 1.1
    found = _parts()
    assert found["download root"] == "cannot be written"
    assert "disk space" not in found


def test_any_number_of_probes_costs_one_check_a_second(
    site: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks: list[dict[str, str]] = []
    real = health.check_all

    def check_all() -> dict[str, str]:
        checks.append(real())
        return checks[-1]

    monkeypatch.setattr(health, "check_all", check_all)
    for _ in range(5):
        assert _get("/readyz").status_code == 200
    assert len(checks) == 1
    NOW[0] += 1.1
    assert _get("/readyz").status_code == 200
    assert len(checks) == 2


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_other_methods_are_refused(path: str) -> None:
    assert Client(headers={"host": "localhost"}).post(path).status_code == 405
