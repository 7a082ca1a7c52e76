"""Let a job have a title of its own."""

from typing import ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    """Adds `DownloadJob.title`, with a default for rows of releases that do not know the column."""

    dependencies: ClassVar = [("cacheapp_downloads", "0002_content_types")]

    operations: ClassVar = [
        migrations.AddField(
            model_name="downloadjob",
            name="title",
            field=models.CharField(blank=True, db_default="", default="", max_length=200),
        ),
    ]
