"""The project's settings, with a wait for locks of the database that no test comes to the end of."""

from project.settings import *  # noqa: F403
from project.settings import DATABASES

DATABASES["default"]["OPTIONS"]["timeout"] = 1000  # SQLite's own, in seconds
