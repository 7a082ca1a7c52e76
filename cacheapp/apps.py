"""cacheapp as Django knows it."""

from django.apps import AppConfig


class CacheappConfig(AppConfig):
    """Register the system checks."""

    name = "cacheapp"
    verbose_name = "Shared caches"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Import what registers itself."""
        from cacheapp import (  # noqa: PLC0415 (needs the settings)
            checks,  # noqa: F401
            telemetry,
        )

        telemetry.start_from_settings()
