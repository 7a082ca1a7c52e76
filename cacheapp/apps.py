"""cacheapp as Django knows it."""

import sys

from django.apps import AppConfig


class CacheappConfig(AppConfig):
    """Register the system checks."""

    name = "cacheapp"
    verbose_name = "Shared caches"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Import what registers itself."""
        from cacheapp import (  # noqa: PLC0415 (needs the settings)
            backends,
            checks,  # noqa: F401
            telemetry,
        )

        if "gunicorn" in sys.modules:
            # With preload, once for all workers, and before they change the user.
            for name in backends.__all__:
                getattr(backends, name)
        telemetry.start_from_settings()
