"""The deployment: settings, URLs, and the program behind `make run`."""

import os

if os.environ.get("DOWNLOAD_RUNNER") == "celery":  # so that Django's processes know the broker
    from project.celery import app as celery_app

    __all__ = ["celery_app"]
