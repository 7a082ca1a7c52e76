"""The project's settings, with as many files in a job as the benchmark needs."""

from project.settings import *  # noqa: F403
from project.settings import CACHEAPP

CACHEAPP = {**CACHEAPP, "DOWNLOAD_MAX_FILES": 1_000_000}
