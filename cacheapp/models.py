"""The models of cacheapp, imported here so that Django finds them."""

from cacheapp.demo.models import Demo
from cacheapp.downloads.jobs.models import (
    AuditEntry,
    DownloadFile,
    DownloadJob,
    DownloadNotification,
    JobCreator,
)

__all__ = [
    "AuditEntry",
    "Demo",
    "DownloadFile",
    "DownloadJob",
    "DownloadNotification",
    "JobCreator",
]
