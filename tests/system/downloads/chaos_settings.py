"""The project's settings, with a limit of silence that a test with stalled links can wait for."""

from project.settings import *  # noqa: F403
from project.settings import CACHEAPP

CACHEAPP = {**CACHEAPP, "DOWNLOAD_READ_S": 4.0}
