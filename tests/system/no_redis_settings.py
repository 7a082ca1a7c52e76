"""The project where nobody listens at the address of the Redis that is looked for by default."""

from project.settings import *  # noqa: F403
from project.settings import CACHES

CACHES["redis"]["LOCATION"] = "redis://127.0.0.1:1/0"
