"""A program that takes a database of the release before the app of downloads to this one, and back.

It prints what it found after each step, as JSON.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import django

django.setup()

# ruff: noqa: E402 (Django first)

from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.core.management.sql import emit_post_migrate_signal
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from cacheapp.downloads.jobs.models import (
    AuditEntry,
    DownloadFile,
    DownloadJob,
    DownloadNotification,
    JobCreator,
)
from cacheapp.migrations._moved import Moved

JOB = UUID("11111111-2222-3333-4444-555555555555")
MODELS = ("auditentry", "downloadfile", "downloadjob", "downloadnotification", "jobcreator")


def create_earlier_release() -> None:
    """Create the tables and rows that the earlier release had created."""
    executor = MigrationExecutor(connection)
    for (label, _name), migration in executor.loader.graph.nodes.items():
        if label == "cacheapp":  # as they were: they changed the database in any case
            migration.operations = [
                it.operation if isinstance(it, Moved) else it for it in migration.operations
            ]
    others = [it for it in executor.loader.graph.leaf_nodes() if not it[0].startswith("cacheapp")]
    state = executor.migrate([*others, ("cacheapp", "0008_parts")])
    emit_post_migrate_signal(0, interactive=False, db="default", apps=state.apps)
    now = timezone.now()
    models: dict[str, Any] = {name: state.apps.get_model("cacheapp", name) for name in MODELS}
    fields = {"heartbeat_at": now, "created_at": now, "files_total": 2, "threads": 3, "parts": 4}
    job = models["downloadjob"].objects.create(id=JOB, creator="user:1", **fields)
    for position in range(2):
        models["downloadfile"].objects.create(job=job, position=position, name=f"file {position}")
    models["downloadnotification"].objects.create(job=job, body="{}", due_at=now, created_at=now)
    models["jobcreator"].objects.create(key="user:1", orders=5)
    models["auditentry"].objects.create(job=JOB, at=now, action="create", via="api")
    grant("cacheapp")
    kind = ContentType.objects.get(app_label="cacheapp", model="downloadjob")
    LogEntry.objects.create(
        user=User.objects.get(username="ann"), content_type=kind, action_flag=CHANGE
    )


def grant(label: str) -> None:
    """Grant permissions to a user, and to a group that has another user."""
    permissions = Permission.objects.filter(content_type__app_label=label)
    ann, ben = (User.objects.create_user(name) for name in ("ann", "ben"))
    ann.user_permissions.add(permissions.get(codename="add_downloadjob"))
    operators = Group.objects.create(name="operators")
    operators.permissions.add(permissions.get(codename="manage_all_downloads"))
    ben.groups.add(operators)


def create_later_content_type() -> None:
    """Create a content type of the new label that has a user of its own, as `flush` can."""
    kind = ContentType.objects.create(app_label="cacheapp_downloads", model="downloadjob")
    names = ("add_downloadjob", "fly_downloadjob")
    added = [Permission.objects.create(content_type=kind, codename=name) for name in names]
    cem = User.objects.create_user("cem")
    cem.user_permissions.add(*added)
    LogEntry.objects.create(user=cem, content_type=kind, action_flag=CHANGE)


def rows() -> dict[str, Any]:
    """Return what the models of this release find."""
    job = DownloadJob.objects.get()
    return {
        "job": [str(job.id), job.threads, job.parts, job.creator],
        "files": [it.name for it in job.files.order_by("position")],
        "notifications": DownloadNotification.objects.filter(job=job).count(),
        "creators": list(JobCreator.objects.values_list("key", "orders")),
        "audit": [str(it.job) for it in AuditEntry.objects.all()],
    }


def insert_and_remove() -> bool:
    """Return whether rows can be added below the job, with new keys."""
    job = DownloadJob.objects.get()
    file = DownloadFile.objects.create(job=job, position=2, name="file 2")
    return bool(file.pk) and file.delete() == (1, {"cacheapp_downloads.DownloadFile": 1})


def facts() -> dict[str, Any]:
    """Return tables, permissions and content types, in any release."""
    with connection.cursor() as cursor:
        tables = connection.introspection.table_names(cursor)
    kinds = ContentType.objects.filter(model__in=MODELS).values_list("app_label", flat=True)
    return {
        "tables": sorted(it for it in tables if it.startswith("cacheapp")),
        "permissions": {
            user.username: sorted(user.get_all_permissions()) for user in User.objects.all()
        },
        "labels": sorted(kinds),
        "log": [
            str(it.content_type and it.content_type.app_label) for it in LogEntry.objects.all()
        ],
    }


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    """Go from step to step, and return what there is after each."""
    create_earlier_release()
    yield "earlier", facts()
    call_command("migrate", "cacheapp", verbosity=0)
    yield "without downloads", facts()
    create_later_content_type()
    call_command("migrate", verbosity=0)
    yield "upgraded", {**facts(), "rows": rows(), "inserted": insert_and_remove()}
    call_command("migrate", "cacheapp_downloads", "zero", verbosity=0)
    call_command("migrate", "cacheapp", "0008", verbosity=0)
    yield "back", facts()
    call_command("migrate", verbosity=0)
    yield "upgraded again", {**facts(), "rows": rows()}
    call_command("migrate", "cacheapp", "zero", verbosity=0)
    yield "removed", facts()
    call_command("migrate", verbosity=0)
    yield "new", {**facts(), "jobs": DownloadJob.objects.count()}


if __name__ == "__main__":
    json.dump(dict(steps()), sys.stdout)
