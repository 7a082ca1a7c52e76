"""The Celery application, for `DOWNLOAD_RUNNER=celery`: `celery --app project.celery worker`."""

import os
from typing import Any

from celery import Celery
from celery.signals import setup_logging

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

app = Celery("project", set_as_current=True)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["cacheapp.downloads"])


@setup_logging.connect  # type: ignore[untyped-decorator]
def _logs_as_django_does(**_: Any) -> None:
    """Do nothing: because this receiver exists, Celery keeps the logging of the settings."""
