"""Downloads as Django knows them: an app of its own, beside `cacheapp`."""

from django.apps import AppConfig


class DownloadsConfig(AppConfig):
    """Register the system checks, and start downloads with the first request."""

    name = "cacheapp.downloads"
    label = "cacheapp_downloads"
    verbose_name = "Downloads"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Import what registers itself."""
        from cacheapp.downloads import (  # noqa: PLC0415 (needs the settings)
            checks,  # noqa: F401
            start_at_first_request,
        )

        start_at_first_request()
