"""The project with short event streams, as set by the environment."""

import os

from project.settings import *  # noqa: F403
from project.settings import CACHEAPP

if "STREAM_S" in os.environ:
    CACHEAPP["DOWNLOAD_STREAM_S"] = float(os.environ["STREAM_S"])
