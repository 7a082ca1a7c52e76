"""The project with more and longer event streams than a test needs.

A page that was closed keeps its own for 10 s, and a browser reports one that ends.
"""

from project.settings import *  # noqa: F403
from project.settings import CACHEAPP

CACHEAPP |= {"DOWNLOAD_STREAMS": 20, "DOWNLOAD_STREAM_S": 1000.0}
