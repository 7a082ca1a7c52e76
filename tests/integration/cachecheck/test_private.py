import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings
from django.utils.module_loading import import_string

from cacheapp.cachecheck.private import private_stores
from cacheapp.processes.servers import ServerFailed

NEAR = {
    "BACKEND": "cacheapp.backends.NearCache",
    "LOCATION": "redis://elsewhere:6379/0",
    "OPTIONS": {"copy": "/var/lib/mysite/near", "max_staleness": 2.0},
}
MEMCACHED = {
    "BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache",
    "LOCATION": ["10.0.0.1:11211", "10.0.0.2:11211"],
}


def entry_of(overrides: Mapping[str, Any], alias: str) -> dict[str, Any]:
    found: dict[str, Any] = overrides["CACHES"][alias]
    return found


def test_the_copy_of_a_near_cache_is_private_too() -> None:
    with override_settings(CACHES={"near": NEAR}), private_stores(["near"]) as stores:
        entry = entry_of(stores.overrides, "near")
        assert entry["LOCATION"] == stores.servers["near"].url
        assert entry["OPTIONS"]["max_staleness"] == 2.0
        assert Path(entry["OPTIONS"]["copy"]).parent.is_dir()
        assert not entry["OPTIONS"]["copy"].startswith("/var/lib")


def test_a_private_redis_is_used_without_the_credentials_of_the_real_one() -> None:
    pool_options = {
        "ssl_ca_certs": "/etc/ssl/redis.pem",
        "password": "s3cr3t",
        "client_name": "web",
    }
    options = {"USERNAME": "app", "PASSWORD": "s3cr3t", "CONNECTION_POOL_KWARGS": pool_options}
    real = {
        "BACKEND": "cacheapp.backends.RedisCache",
        "LOCATION": "rediss://elsewhere:6379/0",
        "OPTIONS": options,
    }
    with override_settings(CACHES={"default": real}), private_stores(["default"]) as stores:
        entry = entry_of(stores.overrides, "default")
        assert entry["OPTIONS"] == {"CONNECTION_POOL_KWARGS": {"client_name": "web"}}
        cache = import_string(entry["BACKEND"])(entry["LOCATION"], {"OPTIONS": entry["OPTIONS"]})
        cache.set("key", "value")
        assert cache.get("key") == "value"


@pytest.mark.skipif(
    not shutil.which("memcached"),
    reason="memcached is not on PATH. On Debian, run as root: apt install memcached",
)
def test_a_private_memcached_is_started_and_stopped() -> None:
    with override_settings(CACHES={"mem": MEMCACHED}), private_stores(["mem"]) as stores:
        entry = entry_of(stores.overrides, "mem")
        socket = Path(entry["LOCATION"].removeprefix("unix:"))
        assert socket.is_socket()
        assert socket.parent.stat().st_mode & 0o077 == 0
        cache = import_string(entry["BACKEND"])(entry["LOCATION"], {})
        cache.set("k", 5)
        assert (cache.get("k"), cache.incr("k")) == (5, 6)
        cache.close()
    assert not socket.exists()


def test_a_missing_memcached_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with (
        override_settings(CACHES={"mem": MEMCACHED}),
        pytest.raises(ServerFailed, match="memcached is not on PATH"),
        private_stores(["mem"]),
    ):
        pass
