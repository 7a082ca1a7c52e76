"""The tests' settings with a database that several processes share: SQLite or PostgreSQL."""

import os

from tests.settings import *  # noqa: F403

if "POSTGRES_SOCKET" in os.environ:
    DATABASES["default"] = {  # noqa: F405
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ["POSTGRES_SOCKET"],
        "USER": "cacheapp",
        "NAME": os.environ.get("POSTGRES_NAME", "postgres"),
    }
