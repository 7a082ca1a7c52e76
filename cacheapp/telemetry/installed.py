"""What this project has."""

from django.apps import apps


def has_downloads() -> bool:
    """Return True if this project has downloads."""
    return apps.is_installed("cacheapp.downloads")
