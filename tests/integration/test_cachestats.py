"""`manage.py cachestats`."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from django.core.management import CommandError, call_command
from pytest_django.fixtures import Settings


@pytest.fixture(autouse=True)
def _caches(settings: Settings, tmp_path: Path) -> None:
    settings.CACHES = {
        "default": {
            "BACKEND": "cacheapp.backends.LMDBCache",
            "LOCATION": str(tmp_path / "cache"),
            "OPTIONS": {"size_limit": 2**21},
        },
        "disk": {"BACKEND": "cacheapp.backends.DiskCache", "LOCATION": str(tmp_path / "disk")},
        "local": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    }
    caches["default"].set_many({"a": 1, "b": "x" * 1000})
    caches["default"].get("a")


def said(*args: str) -> str:
    """Return what the command prints."""
    out = io.StringIO()
    call_command("cachestats", *args, stdout=out)
    return out.getvalue()


def test_it_prints_every_alias_that_counts() -> None:
    lines = [line.split() for line in said().splitlines()]
    assert [line[0] for line in lines if len(line) == 1] == ["default", "disk"]
    assert ["entries", "2"] in lines
    assert ["hits", "1"] in lines


def test_one_alias_as_json() -> None:
    found: dict[str, Any] = json.loads(said("default", "--json"))
    stats = found["default"]
    assert (stats["sets"], stats["hits"], stats["entries"], stats["evictions"]) == (2, 1, 2, 0)
    assert 0 < stats["bytes_used"] < stats["bytes_free"] < stats["bytes_reserved"] < 2**21


def test_the_hit_rate_comes_first() -> None:
    caches["default"].get_many(["not", "nor"])
    assert said("default").splitlines()[1].split() == ["hit_rate", "33.3", "%"]
    found = json.loads(said("--json"))
    assert next(iter(found["default"].items())) == ("hit_rate", 0.3333)
    assert next(iter(found["disk"].items())) == ("hit_rate", None)


class Interrupted(io.StringIO):
    """Uses the cache when the first line is flushed, and presses Ctrl-C at the third."""

    lines = 0

    def flush(self) -> None:
        self.lines += 1
        caches["default"].get_many(["a", "not"])
        if self.lines == 3:
            raise KeyboardInterrupt


def test_it_watches_until_it_is_interrupted() -> None:
    out = Interrupted()
    call_command("cachestats", "default", "--watch", "0.01", "--json", stdout=out)
    first, second, third = (json.loads(line)["default"] for line in out.getvalue().splitlines())
    assert first["hit_rate"] is None
    assert second["hit_rate"] == third["hit_rate"] == 0.5
    assert second["hits"] == second["misses"] > 0


def test_an_alias_that_counts_nothing_is_refused() -> None:
    with pytest.raises(CommandError, match="local is a LocMemCache, which has no counters"):
        said("local")
    with pytest.raises(CommandError, match="other: CACHES has default, disk, local"):
        said("other")
