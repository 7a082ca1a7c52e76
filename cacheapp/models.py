"""Django looks for models here; they live with what uses them."""

from cacheapp.downloads.models import DownloadFile, DownloadJob

__all__ = ["DownloadFile", "DownloadJob"]
