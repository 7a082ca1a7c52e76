"""The deployment as an app, so that Django loads its system checks."""

from django.apps import AppConfig


class ProjectConfig(AppConfig):
    """Registers the checks."""

    name = "project"

    def ready(self) -> None:
        """Import the checks, which registers them."""
        from project import checks  # noqa: F401, PLC0415 (not before the settings)
