"""The models of cacheapp, imported here so that Django finds them."""

from cacheapp.demo.models import Demo
from cacheapp.downloads.jobs.models import DownloadFile, DownloadJob, DownloadNotification

__all__ = ["Demo", "DownloadFile", "DownloadJob", "DownloadNotification"]
