"""The project's site with caches so small that they evict, and a page that uses each of them."""

from project.settings import *  # noqa: F403
from project.settings import CACHES, DATA_DIR

ROOT_URLCONF = "tests.dashboard.site_urls"
CACHES["default"]["OPTIONS"] = {"size_limit": 3 * 2**20}
CACHES["disk"]["OPTIONS"] = {"size_limit": 4 * 2**20, "shards": 4}
CACHES["near"] = {**CACHES["redis"], "BACKEND": "cacheapp.backends.NearCache", "KEY_PREFIX": "near"}
CACHES["near"]["OPTIONS"] = {"copy": str(DATA_DIR / "copy"), "size_limit": 4 * 2**20}
CACHES["redis"]["OPTIONS"] = {"on_error": {"read": "miss", "set": "ignore"}, "SOCKET_TIMEOUT": 0.5}
