"""The patient settings with short event streams, as set by the environment."""

import os

from tests.system.downloads.patient_settings import *  # noqa: F403
from tests.system.downloads.patient_settings import CACHEAPP

if "STREAM_S" in os.environ:
    CACHEAPP["DOWNLOAD_STREAM_S"] = float(os.environ["STREAM_S"])
