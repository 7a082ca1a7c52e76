"""What the demo and the lab may be used for, as permissions that Django can give."""

from typing import ClassVar

from django.db import models


class Demo(models.Model):
    """No table: Django ties permissions to models."""

    class Meta:
        """One permission for each thing that costs, tells or changes something else."""

        managed = False
        default_permissions = ()
        permissions: ClassVar = [
            ("use_demo", "Can use the demo: read and change its own keys of every cache"),
            ("view_stats", "Can see what caches and downloads have counted"),
            ("run_lab", "Can run the experiments of the lab"),
            ("run_check", "Can run the consistency check"),
        ]

    def __str__(self) -> str:
        return "the demo"
