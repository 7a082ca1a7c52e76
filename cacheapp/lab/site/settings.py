"""Settings of the lab's site: the cache under examination comes from the environment."""

import os
from pathlib import Path

_directory = Path(os.environ["LAB_DIRECTORY"])

SECRET_KEY = os.environ["LAB_SECRET"]
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "cacheapp.lab.site.urls"
MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware"]
SESSION_ENGINE = "django.contrib.sessions.backends.cache"
CACHES = {
    "default": {
        "BACKEND": os.environ["LAB_BACKEND"],
        "LOCATION": os.environ["LAB_LOCATION"],
        "KEY_PREFIX": "lab",
    }
}
CACHEAPP = {"STATE_DIR": _directory / "state"}
PASSWORD_HASHERS = ["cacheapp.lab.site.shop.QuickHasher"]
LOGGING_CONFIG = None
