"""Carry the permissions on downloads over from the label `cacheapp`, with the users' and groups' grants."""

from typing import Any, ClassVar

from django.db import migrations

from cacheapp.downloads.migrations._content_types import move_content_types


def forwards(_apps: Any, schema_editor: Any) -> None:
    """Adopt the content types of an earlier release."""
    move_content_types(schema_editor.connection.alias, "cacheapp", "cacheapp_downloads")


def backwards(_apps: Any, schema_editor: Any) -> None:
    """Return them to the earlier release."""
    move_content_types(schema_editor.connection.alias, "cacheapp_downloads", "cacheapp")


class Migration(migrations.Migration):
    """Changes the label of the content types."""

    dependencies: ClassVar = [("cacheapp_downloads", "0001_initial")]

    operations: ClassVar = [migrations.RunPython(forwards, backwards)]
