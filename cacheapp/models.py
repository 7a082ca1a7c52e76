"""Django looks for models here; they live with what uses them."""

from cacheapp.downloads.models import DownloadFile, DownloadJob
from cacheapp.lab.models import Demo

__all__ = ["Demo", "DownloadFile", "DownloadJob"]
