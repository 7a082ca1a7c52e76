"""The Django settings of every process that takes part; what differs comes from the environment.

`BENCHMARK_SETUP` is JSON made by `peers`: the caches, the database, the directory for state.
"""

import json
import os
from pathlib import Path
from typing import Any

_setup = json.loads(os.environ["BENCHMARK_SETUP"])

SECRET_KEY = "only-for-benchmarks-" + "x" * 50
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["cacheapp"]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]  # says how long an answer is
ROOT_URLCONF = "benchmarks.backends.shared_cache.site"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
CACHES: dict[str, dict[str, Any]] = _setup["caches"]
CACHEAPP = {"STATE_DIR": Path(_setup["state"])}
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": _setup["database"],
        # As good as SQLite gets: the journal readers do not wait for, locks taken where a
        # transaction can still wait for them.
        "OPTIONS": {
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            "transaction_mode": "IMMEDIATE",
            "timeout": 60,
        },
    }
}
