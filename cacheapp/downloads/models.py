"""The models of the app, imported here so that Django finds them."""

from cacheapp.downloads.jobs.models import (
    AuditEntry,
    DownloadFile,
    DownloadJob,
    DownloadNotification,
    JobCreator,
)

__all__ = ["AuditEntry", "DownloadFile", "DownloadJob", "DownloadNotification", "JobCreator"]
