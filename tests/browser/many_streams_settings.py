"""The project with more event streams than the tests leave open: a page that was closed keeps its own for 10 s."""

from project.settings import *  # noqa: F403
from project.settings import CACHEAPP

CACHEAPP["DOWNLOAD_STREAMS"] = 20
