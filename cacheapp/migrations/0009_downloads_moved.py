"""Take the models of downloads out of this app; their tables and rows stay.

`cacheapp.downloads` adopts the tables in its first migration, if it is installed.
"""

from typing import ClassVar

from django.db import migrations


class Migration(migrations.Migration):
    """Removes the models from the state only."""

    dependencies: ClassVar = [("cacheapp", "0008_parts")]

    operations: ClassVar = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.DeleteModel("DownloadFile"),
                migrations.DeleteModel("DownloadNotification"),
                migrations.DeleteModel("DownloadJob"),
                migrations.DeleteModel("JobCreator"),
                migrations.DeleteModel("AuditEntry"),
            ]
        ),
    ]
