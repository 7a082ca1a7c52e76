"""Add the limit of bytes per second of a job."""

from typing import ClassVar

from django.db import migrations, models

from cacheapp.migrations._moved import Moved


class Migration(migrations.Migration):
    """Adds `DownloadJob.limit_rate`."""

    dependencies: ClassVar = [("cacheapp", "0005_files_unchanged")]

    operations: ClassVar = [
        Moved(
            migrations.AddField(
                model_name="downloadjob",
                name="limit_rate",
                field=models.PositiveBigIntegerField(null=True),
            ),
        ),
    ]
