"""The project with streams of events that end soon, where the environment says so."""

import os

from project.settings import *  # noqa: F403
from project.settings import CACHEAPP

if "STREAM_S" in os.environ:
    CACHEAPP["DOWNLOAD_STREAM_S"] = float(os.environ["STREAM_S"])
