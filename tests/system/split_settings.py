"""The project, with an alias whose workers do not share although its backend could.

Each process that loads these settings gets a directory of its own. The alias named after the
broken backend is a shared one: names must not matter.
"""

import os

from project.settings import *  # noqa: F403
from project.settings import CACHES, DATA_DIR

CACHES["disk"] = {**CACHES["disk"], "LOCATION": DATA_DIR / f"cache-{os.getpid()}"}
CACHES["locmem"] = CACHES["redis"]
