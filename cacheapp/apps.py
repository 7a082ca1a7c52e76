"""cacheapp as Django knows it."""

from django.apps import AppConfig


class CacheappConfig(AppConfig):
    """Register the system checks, and start downloads with the first request."""

    name = "cacheapp"
    verbose_name = "Shared caches"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Import what registers itself."""
        from cacheapp import checks  # noqa: F401, PLC0415 (needs the settings)
        from cacheapp.downloads import start_at_first_request  # noqa: PLC0415 (the same)

        start_at_first_request()
