"""Add the number of connections for one large file of a job."""

from typing import ClassVar

from django.db import migrations, models

from cacheapp.migrations._moved import Moved


class Migration(migrations.Migration):
    """Adds `DownloadJob.parts`."""

    dependencies: ClassVar = [("cacheapp", "0007_audit_and_quota")]

    operations: ClassVar = [
        Moved(
            migrations.AddField(
                model_name="downloadjob",
                name="parts",
                field=models.PositiveIntegerField(null=True),
            ),
        ),
    ]
