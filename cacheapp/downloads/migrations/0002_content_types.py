"""Carry the permissions on downloads over from the label `cacheapp`, with the users' and groups' grants."""

from typing import ClassVar

from django.db import migrations

from cacheapp.downloads.migrations._content_types import MoveContentTypes


class Migration(migrations.Migration):
    """Changes the label of the content types."""

    dependencies: ClassVar = [("cacheapp_downloads", "0001_initial")]

    operations: ClassVar = [MoveContentTypes("cacheapp", "cacheapp_downloads")]
