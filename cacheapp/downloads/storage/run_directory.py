"""A directory per run, from which files are published until another run takes it over.

    <download directory>/.<job>.<token>/      partial files and journal of the run with that token

Invariant: after a new owner has completed `take_over` and checked the database (`JobRun.start`), no
run with a smaller token publishes a file, however long it was suspended and wherever it resumes.
This holds because:

- A file is published by a link or rename *out of* the run's directory: one system call, by path.
  The new owner renames that directory. From then on the earlier run's paths do not exist, and the
  kernel refuses. No lock is held, so a suspended or killed process blocks no other.
- No directory with a smaller token appears later. The new owner writes its larger token to the
  database, then looks for directories. A run creates its directory, then checks that the database
  still has its token, and begins nothing otherwise. Whichever comes second sees the first.
- A system call that was in progress during the rename may complete a moment later. Its journal
  entry was written before and moved with the directory: the new owner finds the name taken, and
  reads that the file is complete (`JobRun`).

Invariant: removing a run's directory removes nothing of its new owner. Removing many files takes
time, during which the directory may be taken over, and an open directory also shows files created
later. So it is first renamed (`remove_directory`) to a name that no new owner looks for. If the
process is killed, a directory remains that no run resumes; the next removal or cleanup deletes it
(`removable_directories`).

An earlier run may still write to its open files, so the new owner copies what it resumes from
(`Transfer`). A power cut may undo a recent rename; then no earlier process is alive either.
"""

import contextlib
import dataclasses
import errno
import math
import os
import re
import shutil
import stat
import uuid
from pathlib import Path

from cacheapp.downloads.storage.partial import find_leftovers

_ANY_JOB = "[0-9a-f]{12}"
_NOT_EMPTY = (errno.ENOTEMPTY, errno.EEXIST)


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """The directory of one run of a job."""

    directory: Path
    """Where the job's files are stored; several jobs may share it."""
    job: str
    """First 12 hexadecimal digits of the job's id."""
    token: int

    @property
    def path(self) -> Path:
        """The path of the run's directory."""
        return self.directory / f".{self.job}.{self.token}"

    def has_directories(self) -> bool:
        """Return whether any run of the job has left a directory."""
        return bool(run_directories(self.directory, self.job))

    def has_partial_files(self) -> bool:
        """Return whether a later run may resume from a partial file of this run."""
        return bool(find_leftovers(self.path, self.job))

    def take_over(self) -> None:
        """Take over the directories of all runs with smaller tokens; those runs publish no more.

        Raise `OSError` if the directory cannot be created.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        for _ in range(2):
            # Twice: while another process renames a directory, a scan may see neither name.
            while older := self._smaller():
                for path in older:
                    # Another run took it over: scan again.
                    with contextlib.suppress(FileNotFoundError):
                        self._take(path)
            # Cleanup may have removed the empty parent directory.
            self.directory.mkdir(parents=True, exist_ok=True)
            self.path.mkdir(mode=0o700, exist_ok=True)
        # Left by a run that was killed while unpacking.
        for _, aside in run_directories(self.path, self.job):
            self._unpack(aside)

    def _take(self, path: Path) -> None:
        try:
            path.rename(self.path)
        except OSError as exc:
            if exc.errno not in _NOT_EMPTY:
                raise
            self._take_all(path)

    def _take_all(self, path: Path) -> None:
        """Move the content of an earlier run's directory into ours: their file names never collide.

        A run that was killed as it began has left nothing; one that two others took over at once,
        all.
        """
        aside = self.path / path.name
        path.rename(aside)  # from here on that run cannot publish
        self._unpack(aside)

    def _unpack(self, aside: Path) -> None:
        """Move everything out of a directory that was moved into ours."""
        for entry in list(os.scandir(aside)):
            with contextlib.suppress(OSError):  # another run takes ours over and will find it there
                Path(entry.path).rename(self.path / entry.name)
        with contextlib.suppress(OSError):
            aside.rmdir()

    def remove_if_empty(self) -> None:
        """Remove the directory if it is empty: another run owns the job, and nothing was begun."""
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def unpublish(self, target: Path, position: int) -> None:
        """Move a published file into the run's directory, if it exists and we still own the job.

        Moving it *into* our directory fails for a late run, which might otherwise remove a file
        that the new owner has fetched. Folders, and paths below a file, are left alone.
        """
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if stat.S_ISREG(target.lstat().st_mode):
                target.rename(self.path / f"{position}.unnoted")

    def exists(self) -> bool:
        """Return whether no other run has taken the directory over."""
        return self.path.is_dir()

    def remove_all(self) -> None:
        """Remove the directories of this run and earlier ones. Call it when the job has ended."""
        for path in removable_directories(self.directory, self.job, self.token):
            remove_directory(path)

    def _smaller(self) -> list[Path]:
        """Return the directories of smaller tokens, the largest token first."""
        found = run_directories(self.directory, self.job)
        return [path for token, path in sorted(found, reverse=True) if token < self.token]


def remove_directory(path: Path) -> bool:
    """Remove one of the `removable_directories`; return False if it was gone already."""
    name = ".".join([*path.name.split(".")[:3], uuid.uuid4().hex])
    try:
        doomed = path.rename(path.with_name(name))
    except OSError:  # taken over or removed by another process, or not permitted
        return False
    shutil.rmtree(doomed, ignore_errors=True)
    return True


def run_directories(directory: Path, job: str = _ANY_JOB) -> list[tuple[int, Path]]:
    """Return token and path of the run directories in a directory, of one job or of all."""
    return _named(directory, rf"\.{job}\.([0-9]+)")


def removable_directories(
    directory: Path, job: str = _ANY_JOB, newest: float = math.inf
) -> list[Path]:
    """Return run directories up to a token, and those with an interrupted removal."""
    found = _named(directory, rf"\.{job}\.([0-9]+)(?:\.[0-9a-f]{{32}})?")
    return [path for token, path in found if token <= newest]


def _named(directory: Path, name: str) -> list[tuple[int, Path]]:
    pattern = re.compile(name)
    try:
        entries = list(os.scandir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
    matches = ((pattern.fullmatch(entry.name), entry) for entry in entries)
    return [
        (int(match[1]), Path(entry.path))
        for match, entry in matches
        if match and entry.is_dir(follow_symlinks=False)
    ]
