"""The project's settings for the tests and the type checker, independent of the environment."""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ["DEBUG"] = "0"
os.environ["SECRET_KEY"] = "only-for-tests-" + "x" * 50
for name in (
    "REDIS_URL",
    "ALLOWED_HOSTS",
    "DEMO",
    "DOWNLOAD_ORIGINS",
    "DOWNLOAD_BUCKETS",
    "DOWNLOAD_RUNNER",
    "API_TOKENS",
    "LOG_LEVEL",
):
    os.environ.pop(name, None)
# Images of containers often set it: each of hundreds of processes would compile the project anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
if (
    "CACHEAPP_TESTS" not in os.environ
):  # child processes use their parent's directory and do not remove it
    os.environ["CACHEAPP_TESTS"] = os.environ["DATA_DIR"] = tempfile.mkdtemp(
        prefix="cacheapp-tests-"
    )
    atexit.register(shutil.rmtree, os.environ["DATA_DIR"], ignore_errors=True)
own, lane = Path(os.environ["CACHEAPP_TESTS"]), os.environ.get("PYTEST_XDIST_WORKER")
if lane is not None and own.name != lane:  # each of the parallel runs has its own directory
    os.environ["CACHEAPP_TESTS"] = os.environ["DATA_DIR"] = str(own / lane)

from project.settings import *  # noqa: E402, F403

# A file, as in production: in memory, SQLite's threads fail on a lock instead of waiting.
DATABASES["default"]["TEST"] = {"NAME": DATA_DIR / "tests.sqlite3"}  # noqa: F405
# Off, as by default: the tests of the caches run the methods that no subscriber has replaced.
CACHEAPP["METRICS"] = False  # noqa: F405
# Django's own takes a third of a second of CPU for each attempt to sign in.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
