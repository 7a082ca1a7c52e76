"""Test that LMDBCache needs only its own third-party package."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = """
import json, sys
from django.conf import settings
settings.configure(
    CACHES={"default": {"BACKEND": "cacheapp.backends.LMDBCache", "LOCATION": sys.argv[1]}},
    CACHEAPP={"STATE_DIR": sys.argv[2]},
    SECRET_KEY="x" * 50,
)
from cacheapp.backends import LMDBCache
if sys.argv[3] == "use":
    from django.core.cache import cache
    cache.set("key", "value")
    with cache.lock("name"):
        assert isinstance(cache._connections[cache._alias], LMDBCache), cache
        assert cache.get_or_set("key", str) == "value"
print(json.dumps(sorted(sys.modules)))
"""
_OTHERS = {"diskcache", "redis", "django_redis", "botocore"}
_OTHER_PACKAGES = ("cacheapp.backends.disk", "cacheapp.backends.redis")


@pytest.mark.parametrize("use", ["import", "use"])
def test_no_package_of_another_backend_is_imported(tmp_path: Path, use: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, tmp_path / "cache", tmp_path / "state", use],
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    modules = set(json.loads(done.stdout))
    assert "lmdb" in modules
    assert modules & _OTHERS == set()
    assert [name for name in modules if name.startswith(_OTHER_PACKAGES)] == []
