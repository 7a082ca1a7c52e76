"""Creates the jobs of terminals, and adds files to a job while its source is listed."""

import dataclasses
import hashlib
import itertools
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F, Max

from cacheapp.downloads.jobs import audit
from cacheapp.downloads.jobs.actors import MAX_NAME, terminal_actor
from cacheapp.downloads.jobs.models import DownloadFile, DownloadJob
from cacheapp.downloads.jobs.ownership import JobOwner, owned_by
from cacheapp.downloads.jobs.repository import NewFile, insert_files
from cacheapp.downloads.jobs.rows import bump_generation, now
from cacheapp.downloads.plan import Item
from cacheapp.downloads.sources.base import SourceEntry
from cacheapp.downloads.states import FileState, JobState
from cacheapp.downloads.storage.filenames import REFUSED, NameRules, folders_of

_KEYS = 500
"""Names in one query."""
_OF_ITEM = ("pk", "position", "url", "name", "expected_checksum", "expected_size", "etag")
"""The columns of a file's row that make an `Item`, in its order."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """Some files of a listing."""

    entries: Sequence[SourceEntry]
    after: str
    """The position in the source before this batch."""
    mark: str
    """The position after it."""
    unchanged: int = 0
    """Files between the two that are not fetched because they are on disk already."""


@dataclasses.dataclass(frozen=True)
class AddedFiles:
    """The result of adding a batch."""

    items: tuple[Item, ...]
    refused: int


def fingerprint(identity: str, directory: Path, *, portable_names: bool = False) -> str:
    """Return a digest by which a command finds its job again: of source, destination and names."""
    names = "\0portable names" if portable_names else ""
    return hashlib.sha256(f"{identity}\0{directory}{names}".encode()).hexdigest()


def find_job(digest: str) -> DownloadJob | None:
    """Return the newest job of a command, unless that one succeeded."""
    jobs = DownloadJob.objects.filter(fingerprint=digest).order_by("-created_at")
    job = jobs.first()
    return None if job is None or job.state == JobState.SUCCEEDED else job


@transaction.atomic
def create_job(
    source: str,
    digest: str,
    directory: Path,
    threads: int,
    owner: JobOwner,
    **facts: Any,
) -> DownloadJob:
    """Create a queued job of this terminal without files; `facts`: further columns of the job."""
    moment = now()
    by = terminal_actor()
    job = DownloadJob.objects.create(
        threads=threads,
        source=source,
        fingerprint=digest,
        destination=str(directory),
        listed_all=False,
        owner=owner.token,
        owner_pid=owner.pid,
        heartbeat_at=moment,
        created_at=moment,
        files_total=0,
        created_by=by.name[:MAX_NAME],
        **facts,
    )
    audit.record(job.id, audit.CREATE, by)
    return job


@transaction.atomic
def add_files(job_id: UUID, owner: JobOwner, token: int, batch: Batch) -> AddedFiles | None:
    """Insert the rows of a batch, and its position in the listing; `None` if the job is lost.

    Names are made unique within the job. A refused entry becomes a failed file. So does an entry whose
    name is a folder of another entry of the batch, or whose folder is a file of the job. (If the file that
    needs the folder came in an earlier batch, the file system refuses the second of the two.)

    Compare-and-set on the previous position: a batch that is written again, because the connection broke
    before the database confirmed it, is found as it was written.
    """
    entries = batch.entries
    run = owned_by(job_id, owner, token)
    before = run.filter(listed_to=batch.after)
    if not before.update(
        files_total=F("files_total") + len(entries),
        files_unchanged=F("files_unchanged") + batch.unchanged,
        listed_to=batch.mark,
    ):
        is_there = run.filter(listed_to=batch.mark).exists()
        return _last(job_id, len(entries)) if is_there else None
    rules = NameRules(portable=run.values_list("portable_names", flat=True).get())
    last = DownloadFile.objects.filter(job=job_id).aggregate(last=Max("position"))["last"]
    first = 0 if last is None else last + 1
    names = _unique(job_id, [entry.name for entry in entries], rules)
    reasons = _blocked(job_id, names, rules)
    changed = [
        entry.original or ("" if name == entry.name else entry.name)
        for entry, name in zip(entries, names, strict=True)
    ]
    generation = bump_generation(job_id, files_renamed=F("files_renamed") + sum(map(bool, changed)))
    files = [
        _file(
            position,
            dataclasses.replace(_refused(entry, reason), original=original),
            (name, rules.key(name)),
            generation,
        )
        for position, (entry, name, reason, original) in enumerate(
            zip(entries, names, reasons, changed, strict=True), first
        )
    ]
    insert_files(job_id, files)
    return _last(job_id, len(files))


def _last(job_id: UUID, count: int) -> AddedFiles:
    """Return the last `count` files; only the feeder adds files."""
    newest = DownloadFile.objects.filter(job=job_id).order_by("-position")[:count]
    rows = list(newest.values_list("state", *_OF_ITEM))[::-1]
    items = tuple(Item(*facts) for state, *facts in rows if state == FileState.QUEUED)
    return AddedFiles(items, len(rows) - len(items))


def mark_listed_all(job_id: UUID, owner: JobOwner, token: int) -> bool:
    """Write that every file of the source has a row; return False if the job is lost."""
    ours = owned_by(job_id, owner, token)
    return bool(ours.update(listed_all=True, generation=F("generation") + 1))


def _file(position: int, entry: SourceEntry, name: tuple[str, str], generation: int) -> NewFile:
    """Return the columns of a file; `name` with its key."""
    refused = not entry.name
    return NewFile(
        position=position,
        url=entry.url,
        name=f"{REFUSED}{position})" if refused else name[0],
        name_key=None if refused else name[1],
        original_name=entry.original,
        expected_checksum=entry.checksum,
        expected_size=entry.size,
        etag=entry.etag[:200] if len(entry.etag) <= 200 else "",  # noqa: PLR2004 (the column's)
        state=FileState.FAILED.value if refused else FileState.QUEUED.value,
        error=entry.error,
        generation=generation,
    )


def _refused(entry: SourceEntry, reason: str) -> SourceEntry:
    return dataclasses.replace(entry, name="", error=reason) if reason else entry


def _blocked(job_id: UUID, names: Sequence[str], rules: NameRules) -> list[str]:
    """Return for each name why it conflicts with the others of the job, or an empty string."""
    through = [{rules.key(folder) for folder in folders_of(name)} for name in names]
    files = _taken(job_id, set[str]().union(*through))
    return [
        "one of its folders is another file of the job" if keys & files else reason
        for keys, reason in zip(through, rules.folder_conflicts(names), strict=True)
    ]


def _taken(job_id: UUID, wanted: Collection[str]) -> set[str | None]:
    """Return the given keys that files of the job have; databases limit the keys in one query."""
    there = DownloadFile.objects.filter(job=job_id)
    keys = iter(wanted)
    taken: set[str | None] = set()
    while batch := list(itertools.islice(keys, _KEYS)):
        taken.update(there.filter(name_key__in=batch).values_list("name_key", flat=True))
    return taken


def _unique(job_id: UUID, names: Sequence[str], rules: NameRules) -> list[str]:
    """Return the names, numbered where they clash with each other or with files of the job."""
    wanted = {rules.key(name) for name in names if name}
    there = DownloadFile.objects.filter(job=job_id)
    taken = _taken(job_id, wanted)
    next_number: dict[str, int] = {}

    def is_taken(name: str) -> bool:
        key = rules.key(name)
        return key in taken or (key not in wanted and there.filter(name_key=key).exists())

    found: list[str] = []
    for name in names:
        if not name:
            found.append(name)
            continue
        first = rules.key(name)
        unique, next_number[first] = rules.first_free(name, is_taken, next_number.get(first, 2))
        taken.add(rules.key(unique))
        found.append(unique)
    return found
