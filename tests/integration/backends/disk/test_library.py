"""DiskCache on diskcache and on its maintained fork: one directory, read and written by both."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[4]
PROGRAM = """
import json, sys
if sys.argv[2] == "fork":
    sys.modules["diskcache"] = None
from django.conf import settings
entry = {"BACKEND": "cacheapp.backends.DiskCache", "LOCATION": sys.argv[1], "KEY_PREFIX": "a"}
settings.configure(SECRET_KEY="x" * 50, CACHES={"default": entry})
import django
django.setup()
from django.core.cache import cache
from cacheapp.backends.disk.library import diskcache
read = cache.get_many(["large", "small"])
cache.set_many({"large": sys.argv[2] * 100_000, "small": [sys.argv[2]]}, None)
first = cache.add("winner", sys.argv[2], None)
print(json.dumps({
    "library": diskcache.__name__,
    "read": {name: len(value) for name, value in read.items()},
    "small": read.get("small"),
    "count": cache.incr("count") if not cache.add("count", 1, None) else 1,
    "first": first,
    "winner": cache.get("winner"),
    "keys": sorted(cache.keys("*")),
}))
"""


def _run(place: Path, library: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(place / "cache"), library],
        cwd=ROOT,
        env={**os.environ, "CACHEAPP_TESTS": str(place), "TMPDIR": str(place)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_change_between_diskcache_and_its_fork_keeps_the_entries(tmp_path: Path) -> None:
    pytest.importorskip("diskcache_community")
    keys = ["count", "large", "small", "winner"]
    assert _run(tmp_path, "original") == {
        "library": "diskcache",
        "read": {},
        "small": None,
        "count": 1,
        "first": True,
        "winner": "original",
        "keys": keys,
    }
    assert _run(tmp_path, "fork") == {
        "library": "diskcache_community",
        "read": {"large": 800_000, "small": 1},
        "small": ["original"],
        "count": 2,
        "first": False,
        "winner": "original",
        "keys": keys,
    }
    assert _run(tmp_path, "original") == {
        "library": "diskcache",
        "read": {"large": 400_000, "small": 1},
        "small": ["fork"],
        "count": 3,
        "first": False,
        "winner": "original",
        "keys": keys,
    }
