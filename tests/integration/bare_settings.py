"""A minimal project: caches and one database, without users, sessions and admin."""

import os
from pathlib import Path

_PLACE = Path(os.environ["BARE_PLACE"])

SECRET_KEY = "only-for-tests-" + "x" * 50
INSTALLED_APPS = ["cacheapp"]
ROOT_URLCONF = "cacheapp.urls"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": _PLACE / "db.sqlite3"}}
CACHES = {
    "default": {
        "BACKEND": "cacheapp.backends.LMDBCache",
        "LOCATION": _PLACE / "cache",
        "KEY_PREFIX": "bare",
    }
}
CACHEAPP = {"STATE_DIR": _PLACE / "state"}
USE_TZ = True
