"""The project's settings, with limits of time that no test comes to the end of."""

from project.settings import *  # noqa: F403
from project.settings import CACHEAPP, DATABASES

DATABASES["default"]["OPTIONS"]["timeout"] = 1000  # seconds that SQLite waits for a lock
# Of origins that are silent until a test has seen what it waits for.
CACHEAPP |= {"DOWNLOAD_READ_S": 1000.0, "DOWNLOAD_STALL_S": 1000.0}
