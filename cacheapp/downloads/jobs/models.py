"""The models of downloads: what every worker can read, and what outlives the owner of a job."""

import datetime as dt
import uuid
from typing import Any, ClassVar

from django.db import models

from cacheapp.downloads.plan import MAX_TITLE_CHARS
from cacheapp.downloads.states import FileState, JobState, NotificationState
from cacheapp.downloads.storage.filenames import MAX_PATH_BYTES


class DownloadJob(models.Model):
    """One order of files, run by the process that owns it.

    The view that accepts the order creates the row. From then on only the owner's coordinator writes
    it, each time by compare-and-set on "unfinished and still mine". Other processes write two things: the
    requests `cancel_requested` and `pause_requested`, and, once the owner's heartbeat is missing, a new
    owner.

    Each write that changes anything visible of the job or its files increments `generation` in the same
    transaction; a heartbeat alone does not.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    state = models.CharField(
        max_length=10, choices=[(s.value, s.value) for s in JobState], default=JobState.QUEUED.value
    )
    title = models.CharField(max_length=MAX_TITLE_CHARS, blank=True, default="", db_default="")
    """For people; empty: made from the source. The default of the database is for rows of releases
    that do not know the column."""
    threads = models.PositiveIntegerField()
    extra_origins = models.JSONField(default=list)
    """Origins that this job may use besides `DOWNLOAD_ORIGINS`: the demo's own."""
    error = models.TextField(blank=True, default="")
    """Why the job as a whole failed or paused; a file's error is in the file's row."""
    cancel_requested = models.BooleanField(default=False)
    pause_requested = models.BooleanField(default=False)

    source = models.TextField(blank=True, default="")
    """The bucket or the terminal's arguments that list the files; empty: ordered one by one."""
    fingerprint = models.CharField(max_length=64, blank=True, default="")
    """Of source and destination, by which the same command finds its job; empty: ordered over HTTP."""
    destination = models.TextField(blank=True, default="")
    """An absolute directory; empty: the job's own one under `DOWNLOAD_ROOT`."""
    portable_names = models.BooleanField(default=False)
    """Whether names of files are changed to be valid on all systems (`filenames.NameRules`)."""
    include = models.JSONField(default=list)
    """Globs of which a file of the source must match one; empty: all match."""
    exclude = models.JSONField(default=list)
    """Globs of which a file of the source must match none."""
    limit_rate = models.PositiveBigIntegerField(null=True)
    """Limit of bytes per second; `None`: only those of the settings apply."""
    parts = models.PositiveIntegerField(null=True)
    """Connections for one large file; `None`: as in the settings."""
    listed_to = models.TextField(blank=True, default="")
    """The last listed key with a row; the next run lists from there."""
    listed_all = models.BooleanField(default=True)
    """Whether every file of the source has a row."""

    webhook = models.TextField(blank=True, default="")
    """The URL that is notified of the job's end; empty: none."""

    token = models.PositiveBigIntegerField(default=0)
    """The fencing token: grows with each start, and is part of the names of partial files."""
    owner = models.UUIDField(null=True)
    """The process that runs the job, by an id that is never used again. `None`: released."""
    owner_pid = models.PositiveIntegerField(null=True)
    heartbeat_at = models.DateTimeField()
    adoptions = models.PositiveIntegerField(default=0)
    """How often another process has adopted the job."""
    generation = models.PositiveBigIntegerField(default=1)

    creator = models.CharField(max_length=255, blank=True, default="")
    """The client to which the job belongs (`actors.Actor.key`), such as `user:7`; empty: managers
    only. Not a foreign key: a project may have no users."""
    created_by = models.CharField(max_length=200, blank=True, default="")
    """The name of that client when it ordered the job."""
    idempotency_key = models.CharField(max_length=64, null=True, blank=True, unique=True)
    """A digest of the client and of the key that it sent with the order: one key makes one job."""
    idempotency_digest = models.CharField(max_length=64, blank=True, default="")
    """Of that order: the same key with another order is an error."""

    files_total = models.PositiveIntegerField()
    files_renamed = models.PositiveIntegerField(default=0)
    """Files that have another name than in the source, because of `portable_names` or of equal names."""
    files_unchanged = models.PositiveIntegerField(default=0)
    """Files of the source that were left out, without rows, because `--sync` found them on disk."""
    files_done = models.PositiveIntegerField(default=0)
    files_failed = models.PositiveIntegerField(default=0)
    bytes_done = models.PositiveBigIntegerField(default=0)
    """Of complete files, and of files in transfer."""
    bytes_total = models.PositiveBigIntegerField(null=True)
    """Of all files; `None` while the size of one is unknown."""

    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        """Indexes for the queries by fingerprint, owner, heartbeat, date and creator."""

        app_label = "cacheapp_downloads"
        indexes: ClassVar = [
            models.Index(fields=["fingerprint"], name="cacheapp_job_fingerprint"),
            models.Index(fields=["owner", "state"], name="cacheapp_job_owner_state"),
            models.Index(fields=["state", "heartbeat_at"], name="cacheapp_job_heartbeat"),
            models.Index(fields=["-created_at"], name="cacheapp_job_created"),
            models.Index(fields=["creator", "state"], name="cacheapp_job_creator"),
        ]
        permissions: ClassVar = [
            ("manage_all_downloads", "Can see and change the download jobs of all users"),
        ]

    def __str__(self) -> str:
        return f"{self.id} {self.state} {self.files_done}/{self.files_total}"


class DownloadFile(models.Model):
    """One file of a job."""

    job = models.ForeignKey(DownloadJob, on_delete=models.CASCADE, related_name="files")
    position = models.PositiveIntegerField()
    """Index in the order, from 0; part of the partial file's name."""
    url = models.TextField()
    name = models.CharField(max_length=MAX_PATH_BYTES)
    """The final name in the job's directory; `/` separates folders."""
    name_key = models.CharField(max_length=32, null=True)  # noqa: DJ001 (NULL: unique does not apply)
    """Equal for names that must not both exist (`filenames.NameRules.key`); `None`: refused."""
    original_name = models.TextField(blank=True, default="")
    """The name in the source, if `name` differs from it; otherwise empty."""
    expected_checksum = models.CharField(max_length=140, blank=True, default="")
    """From the order, as `sha256:<hex>`, or of another algorithm."""
    expected_size = models.PositiveBigIntegerField(null=True)
    etag = models.CharField(max_length=200, blank=True, default="")
    """From the listing of an object store, as `expected_size` may be."""
    sha256 = models.CharField(max_length=64, blank=True, default="")
    """Of the complete file, hexadecimal."""
    tries = models.PositiveIntegerField(default=0)
    state = models.CharField(
        max_length=10,
        choices=[(s.value, s.value) for s in FileState],
        default=FileState.QUEUED.value,
    )
    bytes_done = models.PositiveBigIntegerField(default=0)
    error = models.TextField(blank=True, default="")
    generation = models.PositiveBigIntegerField(default=1)
    """The job's generation in which this row last changed."""

    class Meta:
        """One file per position, and per name."""

        app_label = "cacheapp_downloads"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["job", "position"], name="cacheapp_file_position"),
            models.UniqueConstraint(fields=["job", "name"], name="cacheapp_file_name"),
            models.UniqueConstraint(fields=["job", "name_key"], name="cacheapp_file_name_key"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["job", "state", "position"], name="cacheapp_file_state"),
            models.Index(fields=["job", "generation"], name="cacheapp_file_generation"),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.state}"


class JobCreator(models.Model):
    """A creator's row: orders lock it, so that no two pass the quota together (`jobs.quota`)."""

    key = models.CharField(max_length=255, primary_key=True)
    """As `DownloadJob.creator`."""
    orders = models.PositiveBigIntegerField(default=1)
    """How often the row was locked."""

    class Meta:
        """No permissions, as no view names it."""

        app_label = "cacheapp_downloads"
        default_permissions = ()

    def __str__(self) -> str:
        return self.key


class AuditEntries(models.QuerySet["AuditEntry"]):
    """Audit entries, which are added and, when they are old enough, pruned."""

    def update(self, **_changes: Any) -> int:
        """Raise `TypeError`."""
        raise TypeError("audit entries never change")

    def delete(self) -> tuple[int, dict[str, int]]:
        """Raise `TypeError`."""
        raise TypeError("audit entries are removed by `prune` only")

    def prune(self, before: dt.datetime) -> int:
        """Remove the entries that are older, and return how many there were."""
        return models.QuerySet.delete(self.filter(at__lt=before))[0]


class AuditEntry(models.Model):
    """One action on a job, and its actor. It never changes, and outlives the job."""

    job = models.UUIDField()
    """Not a foreign key, because the job may be removed."""
    job_creator = models.CharField(max_length=255, blank=True, default="")
    """The creator of the job, which may see the entry too."""
    at = models.DateTimeField()
    action = models.CharField(max_length=20)
    """`create`, `pause`, `resume`, `cancel`, `retry`, `rename` or `delete`; of a worker: `begin` or `adopt`."""
    actor = models.CharField(max_length=255, blank=True, default="")
    """The key of the client (`actors.Actor.key`)."""
    actor_name = models.CharField(max_length=200)
    """Its name then."""
    via = models.CharField(max_length=10)
    """`api`, `page`, `admin`, `command` or `code`; `worker` for the process that runs the job."""
    detail = models.CharField(max_length=200, blank=True, default="")

    objects = AuditEntries.as_manager()

    class Meta:
        """Indexes for pruning and a job's or creator's entries; only viewing has a permission."""

        app_label = "cacheapp_downloads"
        default_permissions = ("view",)
        verbose_name_plural = "audit entries"
        indexes: ClassVar = [
            models.Index(fields=["job", "at"], name="cacheapp_audit_job"),
            models.Index(fields=["job_creator", "at"], name="cacheapp_audit_creator"),
            models.Index(fields=["at"], name="cacheapp_audit_at"),
        ]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M:%S} {self.action} by {self.actor_name}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Insert the entry; raise `TypeError` if it exists."""
        if not self._state.adding:
            raise TypeError("audit entries never change")
        super().save(*args, **kwargs)

    def delete(self, *_args: Any, **_kwargs: Any) -> tuple[int, dict[str, int]]:
        """Raise `TypeError`."""
        raise TypeError("audit entries are removed by `prune` only")


class DownloadNotification(models.Model):
    """One notification of a job's end: an outbox, which any process empties.

    The row is created in the transaction that ends the job. A process claims it by raising `tries`
    and moving `due_at` behind the longest duration of an attempt (`jobs.notifications`).
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    """The event's id, by which a receiver recognises one that it has already received."""
    job = models.ForeignKey(
        DownloadJob, null=True, on_delete=models.SET_NULL, related_name="notifications"
    )
    """`None`: the job was removed since."""
    url = models.TextField(blank=True, default="")
    """The receiver; empty: the receivers of the signal `download_ended`."""
    body = models.TextField()
    """JSON, as it is sent."""
    state = models.CharField(
        max_length=10,
        choices=[(s.value, s.value) for s in NotificationState],
        default=NotificationState.PENDING.value,
    )
    tries = models.PositiveIntegerField(default=0)
    due_at = models.DateTimeField()
    """When the next attempt may begin; while one is in progress, when it counts as lost."""
    error = models.TextField(blank=True, default="")
    """Why the last attempt failed."""
    created_at = models.DateTimeField()
    delivered_at = models.DateTimeField(null=True)

    class Meta:
        """One index for the query for what is due; no permissions, as no view names it."""

        app_label = "cacheapp_downloads"
        default_permissions = ()
        indexes: ClassVar = [
            models.Index(fields=["state", "due_at"], name="cacheapp_notification_due"),
        ]

    def __str__(self) -> str:
        return f"{self.id} {self.state}"
