"""Jobs from a terminal: how they are made and found again, and how files join them as they are listed."""

import dataclasses
import hashlib
import itertools
from collections.abc import Collection, Sequence
from pathlib import Path
from uuid import UUID

from django.db import transaction
from django.db.models import F, Max

from cacheapp.downloads.jobs.models import DownloadFile, DownloadJob
from cacheapp.downloads.jobs.repository import JobOwner, mine
from cacheapp.downloads.jobs.rows import NewFile, grow, insert, now
from cacheapp.downloads.plan import Item
from cacheapp.downloads.sources.base import SourceEntry
from cacheapp.downloads.states import FileState, JobState
from cacheapp.downloads.storage.filenames import (
    REFUSED,
    first_free_name,
    folder_conflicts,
    folders_of,
    name_key,
)

_KEYS = 500
"""Keys in one question to the database."""
_OF_ITEM = ("pk", "position", "url", "name", "expected_sha256", "expected_size", "etag")
"""The fields of an `Item`, in its order, as a file's row has them."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """Some files of a listing."""

    entries: Sequence[SourceEntry]
    after: str
    """The mark up to which the source was read before."""
    mark: str
    """The one up to which it is read with this batch."""


@dataclasses.dataclass(frozen=True)
class AddedFiles:
    """What a batch of a listing has become."""

    items: tuple[Item, ...]
    refused: int


def fingerprint(identity: str, directory: Path) -> str:
    """Return the same text for the same source and destination: by it a command finds its job."""
    return hashlib.sha256(f"{identity}\0{directory}".encode()).hexdigest()


def find_job(mark: str) -> DownloadJob | None:
    """Return the newest job of a command that has not come to its end."""
    jobs = DownloadJob.objects.filter(fingerprint=mark).order_by("-created_at")
    job = jobs.first()
    return None if job is None or job.state == JobState.SUCCEEDED else job


def create_job(
    source: str, mark: str, directory: Path, threads: int, owner: JobOwner
) -> DownloadJob:
    """Write a queued job that has no files yet."""
    moment = now()
    return DownloadJob.objects.create(
        threads=threads,
        source=source,
        fingerprint=mark,
        destination=str(directory),
        listed_all=False,
        owner=owner.token,
        owner_pid=owner.pid,
        heartbeat_at=moment,
        created_at=moment,
        files_total=0,
    )


@transaction.atomic
def add_files(job_id: UUID, owner: JobOwner, token: int, batch: Batch) -> AddedFiles | None:
    """Write rows for some files of a listing, and how far it was read; `None`: the job is lost.

    Names are made unique within the job. An entry that is refused is a failed file, and so is one
    whose name is a folder of another of these entries, or whose folder is a file of the job. (Where
    what needs the folder came in an earlier batch, the disk refuses the second of the two.)

    Compare-and-set on how far it was read before: a batch that is written again, because the database
    went away before it said that it had it, is found as it was written.
    """
    entries = batch.entries
    run = mine(job_id, owner, token)
    before = run.filter(listed_to=batch.after)
    if not before.update(files_total=F("files_total") + len(entries), listed_to=batch.mark):
        is_there = run.filter(listed_to=batch.mark).exists()
        return _last(job_id, len(entries)) if is_there else None
    generation = grow(job_id)
    last = DownloadFile.objects.filter(job=job_id).aggregate(last=Max("position"))["last"]
    first = 0 if last is None else last + 1
    names = _unique(job_id, [entry.name for entry in entries])
    reasons = _blocked(job_id, names)
    files = [
        _file(position, _refused(entry, reason), name, generation)
        for position, (entry, name, reason) in enumerate(
            zip(entries, names, reasons, strict=True), first
        )
    ]
    insert(job_id, files)
    return _last(job_id, len(files))


def _last(job_id: UUID, count: int) -> AddedFiles:
    """Return the files that came last; nobody but the feeder adds any."""
    newest = DownloadFile.objects.filter(job=job_id).order_by("-position")[:count]
    rows = list(newest.values_list("state", *_OF_ITEM))[::-1]
    items = tuple(Item(*facts) for state, *facts in rows if state == FileState.QUEUED)
    return AddedFiles(items, len(rows) - len(items))


def mark_listed_all(job_id: UUID, owner: JobOwner, token: int) -> bool:
    """Write that every file of the source has a row; return whether the job is still ours."""
    ours = mine(job_id, owner, token)
    return bool(ours.update(listed_all=True, generation=F("generation") + 1))


def _file(position: int, entry: SourceEntry, name: str, generation: int) -> NewFile:
    refused = not entry.name
    return NewFile(
        position=position,
        url=entry.url,
        name=f"{REFUSED}{position})" if refused else name,
        name_key=None if refused else name_key(name),
        expected_sha256=entry.sha256,
        expected_size=entry.size,
        etag=entry.etag[:200] if len(entry.etag) <= 200 else "",  # noqa: PLR2004 (the column's)
        state=FileState.FAILED.value if refused else FileState.QUEUED.value,
        error=entry.error,
        generation=generation,
    )


def _refused(entry: SourceEntry, reason: str) -> SourceEntry:
    return dataclasses.replace(entry, name="", error=reason) if reason else entry


def _blocked(job_id: UUID, names: Sequence[str]) -> list[str]:
    """Return for each name why it cannot be given beside those of the job, or empty text."""
    through = [{name_key(folder) for folder in folders_of(name)} for name in names]
    files = _taken(job_id, set[str]().union(*through))
    return [
        "one of its folders is another file of the job" if keys & files else reason
        for keys, reason in zip(through, folder_conflicts(names), strict=True)
    ]


def _taken(job_id: UUID, wanted: Collection[str]) -> set[str | None]:
    """Return which keys files of the job have; a batch of keys at a time, as databases take them."""
    there = DownloadFile.objects.filter(job=job_id)
    keys = iter(wanted)
    taken: set[str | None] = set()
    while batch := list(itertools.islice(keys, _KEYS)):
        taken.update(there.filter(name_key__in=batch).values_list("name_key", flat=True))
    return taken


def _unique(job_id: UUID, names: Sequence[str]) -> list[str]:
    """Return the names, numbered where they clash with each other or with the job's others."""
    wanted = {name_key(name) for name in names if name}
    there = DownloadFile.objects.filter(job=job_id)
    taken = _taken(job_id, wanted)
    next_number: dict[str, int] = {}

    def is_taken(name: str) -> bool:
        key = name_key(name)
        return key in taken or (key not in wanted and there.filter(name_key=key).exists())

    found: list[str] = []
    for name in names:
        if not name:
            found.append(name)
            continue
        first = name_key(name)
        unique, next_number[first] = first_free_name(name, is_taken, next_number.get(first, 2))
        taken.add(name_key(unique))
        found.append(unique)
    return found
