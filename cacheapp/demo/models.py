"""The permissions to use the demo and the lab."""

from typing import ClassVar

from django.db import models


class Demo(models.Model):
    """A model without a table, because Django binds permissions to models."""

    class Meta:
        """One permission for each use with a cost or an effect of its own."""

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
