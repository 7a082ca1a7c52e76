"""Django looks for models here; they live with what uses them."""

from cacheapp.demo.models import Demo
from cacheapp.downloads.jobs.models import DownloadFile, DownloadJob

__all__ = ["Demo", "DownloadFile", "DownloadJob"]
