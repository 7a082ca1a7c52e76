"""The caches that people use, one alias each, for `manage.py cachecheck --private`.

    DJANGO_SETTINGS_MODULE=benchmarks.backends.stock_settings python manage.py cachecheck --private

Every entry is as its own documentation shows it: nothing is tuned. With `--private` their
locations are replaced by directories, a database and a Redis that the check makes and removes.
"""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("SECRET_KEY", "only-for-checks-" + "x" * 50)
os.environ.setdefault("DATA_DIR", str(Path(tempfile.gettempdir()) / "cachecheck-data"))

from project.settings import *  # noqa: F403

_REDIS_URL = "redis://127.0.0.1:6379/0"

CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
    "locmem": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    "file": {
        "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
        "LOCATION": "/var/tmp/django_cache",  # noqa: S108 (as documented; replaced)
    },
    "database": {
        "BACKEND": "django.core.cache.backends.db.DatabaseCache",
        "LOCATION": "my_cache_table",
    },
    "core-redis": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": _REDIS_URL,
    },
    "django-redis": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": _REDIS_URL,
        "OPTIONS": {"CLIENT_CLASS": "django_redis.client.DefaultClient"},
    },
    "django-valkey": {
        "BACKEND": "django_valkey.cache.ValkeyCache",
        "LOCATION": "valkey://127.0.0.1:6379",
    },
    "memcached": {
        "BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache",
        "LOCATION": "127.0.0.1:11211",
    },
    "community": {
        "BACKEND": "diskcache_community.DjangoCache",
        "LOCATION": "/var/tmp/diskcache-community",  # noqa: S108 (as documented; replaced)
    },
    "diskcache": {
        "BACKEND": "diskcache.DjangoCache",
        "LOCATION": "/var/tmp/diskcache",  # noqa: S108 (as documented; replaced)
    },
    "lmdb": {
        "BACKEND": "cacheapp.backends.LMDBCache",
        "LOCATION": "/var/tmp/cacheapp-lmdb",  # noqa: S108 (replaced)
        "KEY_PREFIX": "cachecheck",
    },
    "disk": {
        "BACKEND": "cacheapp.backends.DiskCache",
        "LOCATION": "/var/tmp/cacheapp",  # noqa: S108 (replaced)
        "KEY_PREFIX": "cachecheck",
    },
    "redis": {
        "BACKEND": "cacheapp.backends.RedisCache",
        "LOCATION": _REDIS_URL,
        "KEY_PREFIX": "cachecheck",
    },
    "near": {
        "BACKEND": "cacheapp.backends.NearCache",
        "LOCATION": _REDIS_URL,
        "KEY_PREFIX": "cachecheck",
        "OPTIONS": {"copy": "/var/tmp/cacheapp-near"},  # noqa: S108 (replaced)
    },
}
