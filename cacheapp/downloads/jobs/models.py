"""The durable facts about downloads: what any worker can read, and what outlives the owner."""

import uuid
from typing import ClassVar

from django.db import models

from cacheapp.downloads.states import FileState, JobState
from cacheapp.downloads.storage.filenames import MAX_PATH_BYTES


class DownloadJob(models.Model):
    """One order of files, run by the worker that took it: its owner.

    Who writes what: the view that takes the order creates the row; from then on the owner's
    coordinator writes it (`ledger`), each time with the compare-and-set "still unfinished, still
    mine". Others write two things only: what is asked of the owner (`cancel_requested`,
    `pause_requested`), and, once it gives no sign of life, that the job is theirs.

    Each write that changes what anybody may see of the job or its files raises `generation` in the
    same transaction; a heartbeat alone does not.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    state = models.CharField(
        max_length=10, choices=[(s.value, s.value) for s in JobState], default=JobState.QUEUED.value
    )
    threads = models.PositiveIntegerField()
    extra_origins = models.JSONField(default=list)
    """Origins allowed for this job besides the setting: the demo's own."""
    error = models.TextField(blank=True, default="")
    """Why the job as a whole ended early; what was wrong with a file stands with the file."""
    cancel_requested = models.BooleanField(default=False)
    pause_requested = models.BooleanField(default=False)

    source = models.TextField(blank=True, default="")
    """What was asked for from a terminal, in the words used there."""
    source_options = models.JSONField(blank=True, default=dict)
    """What else it takes to list the source again, by whoever goes on with the job."""
    fingerprint = models.CharField(max_length=64, blank=True, default="")
    """Of source and destination: the same command finds its job again. Empty: ordered over HTTP."""
    destination = models.TextField(blank=True, default="")
    """An absolute directory; empty: the job's own one under `DOWNLOAD_ROOT`."""
    listed_to = models.TextField(blank=True, default="")
    """The last key of a listing whose files have rows; the next run lists on from there."""
    listed_all = models.BooleanField(default=True)
    """Whether every file of the source has a row."""

    token = models.PositiveBigIntegerField(default=0)
    """The fencing token: grows with each start, and stands in the names of partial files."""
    owner = models.UUIDField(null=True)
    """The process that runs the job. Process ids come again; this does not. `None`: released."""
    owner_pid = models.PositiveIntegerField(null=True)
    heartbeat_at = models.DateTimeField()
    adoptions = models.PositiveIntegerField(default=0)
    """How often another process went on with it."""
    generation = models.PositiveBigIntegerField(default=1)

    created_by = models.CharField(max_length=200, blank=True, default="")
    """Who ordered it, in words. No foreign key: cacheapp is for projects without users too."""
    idempotency_key = models.CharField(max_length=64, null=True, blank=True, unique=True)
    """A digest of who ordered and of the key sent with the order: one key makes one job."""
    idempotency_digest = models.CharField(max_length=64, blank=True, default="")
    """Of that order: the same key with another order is a mistake."""

    files_total = models.PositiveIntegerField()
    files_done = models.PositiveIntegerField(default=0)
    files_failed = models.PositiveIntegerField(default=0)
    bytes_done = models.PositiveBigIntegerField(default=0)
    """Bytes of the files that are whole, and of those that are on their way."""
    bytes_total = models.PositiveBigIntegerField(null=True)
    """Bytes of all files together; `None` while the size of one is unknown."""

    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        """How jobs are looked for: by owner, those without a sign of life, the newest first."""

        indexes: ClassVar = [
            models.Index(fields=["fingerprint"], name="cacheapp_job_fingerprint"),
            models.Index(fields=["owner", "state"], name="cacheapp_job_owner_state"),
            models.Index(fields=["state", "heartbeat_at"], name="cacheapp_job_heartbeat"),
            models.Index(fields=["-created_at"], name="cacheapp_job_created"),
        ]

    def __str__(self) -> str:
        return f"{self.id} {self.state} {self.files_done}/{self.files_total}"


class DownloadFile(models.Model):
    """One file of a job."""

    job = models.ForeignKey(DownloadJob, on_delete=models.CASCADE, related_name="files")
    position = models.PositiveIntegerField()
    """Place in the order, from 0; names the partial file."""
    url = models.TextField()
    name = models.CharField(max_length=MAX_PATH_BYTES)
    """The file's final name in the job's directory; `/` separates folders."""
    name_key = models.CharField(max_length=32, null=True)  # noqa: DJ001 (NULL: rows made before it)
    """What names that some file system takes for one have in common (`names.name_key`)."""
    expected_sha256 = models.CharField(max_length=64, blank=True, default="")
    """As given with the order."""
    expected_size = models.PositiveBigIntegerField(null=True)
    etag = models.CharField(max_length=200, blank=True, default="")
    """Both as an object store listed them."""
    sha256 = models.CharField(max_length=64, blank=True, default="")
    """Of the file that is whole, hexadecimal."""
    tries = models.PositiveIntegerField(default=0)
    state = models.CharField(
        max_length=10,
        choices=[(s.value, s.value) for s in FileState],
        default=FileState.QUEUED.value,
    )
    bytes_done = models.PositiveBigIntegerField(default=0)
    error = models.TextField(blank=True, default="")
    generation = models.PositiveBigIntegerField(default=1)
    """The job's generation in which this row has changed last."""

    class Meta:
        """One file per place in the order, and per name."""

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
