"""The project with no Redis at the default address."""

from project.settings import *  # noqa: F403
from project.settings import CACHES

CACHES["redis"]["LOCATION"] = "redis://127.0.0.1:1/0"
