"""cacheapp as Django knows it."""

from django.apps import AppConfig


class CacheappConfig(AppConfig):
    """Register the system checks when Django is ready."""

    name = "cacheapp"
    verbose_name = "Shared caches"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Import what registers itself."""
        from cacheapp import checks  # noqa: F401, PLC0415 (needs the settings)
