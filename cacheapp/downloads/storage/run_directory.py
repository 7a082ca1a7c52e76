"""The fence: a directory per run, out of which it gives files their names, until it is taken away.

    <where the files arrive>/.<job>.<token>/      partial files and journal of the run with that token

Invariant: once a taker's `take_over` and its look at the database (`JobRun.start`) are over, no run of
a smaller token gives any file its name, however long it slept (SIGSTOP) and wherever it wakes.
What holds it:

- A file gets its name by a link or rename *out of* the run's directory, one system call by path.
  The taker renames that directory: from that instant the earlier run's paths lead nowhere, and the
  kernel refuses. No lock is held, so nobody who is suspended or killed can hold anybody up.
- No directory of a smaller token comes to be later. The taker writes the larger token to the
  database, then looks for directories; a run makes its directory, then looks whether the database
  still has its token, and begins nothing if not. Whoever of the two comes second sees the first.
- A call that was inside the kernel while the directory was renamed may end a moment later. Its note
  in the journal came before it, and moved along: the taker, who finds the name taken, reads that the
  file is whole (`JobRun`).

Invariant: whoever removes a run's directory removes nothing that its taker has. Removing many files takes
a while, in which the directory may be taken over; and who has it open removes what comes to be in it
later. So it is first renamed (`remove_directory`) to a name that no taker looks for. Who is killed then leaves
a directory that nobody goes on with, and that goes with the next removal or pruning (`removable_directories`).

What the earlier run has open it may still write to: the taker copies what it goes on from
(`Transfer`). A power cut may bring back what was renamed just before; nobody runs then.
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

_ANY = "[0-9a-f]{12}"
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST)


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """The fence of one run."""

    directory: Path
    """Where the job's files arrive; jobs may share it."""
    job: str
    """12 hexadecimal digits of the job's id."""
    token: int

    @property
    def path(self) -> Path:
        """The run's own directory."""
        return self.directory / f".{self.job}.{self.token}"

    def has_directories(self) -> bool:
        """Return whether any run of the job has left a directory."""
        return bool(run_directories(self.directory, self.job))

    def take_over(self) -> None:
        """Shut out all runs of smaller tokens, and take over what they have left.

        Raise `OSError` where the directory cannot be made.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        for _ in range(2):
            # Twice: of a directory that another renames meanwhile, a look may see neither name.
            while older := self._smaller():
                for path in older:
                    with contextlib.suppress(FileNotFoundError):  # another took it: look again
                        self._take(path)
            # Pruning may have removed the one around it since, which was empty.
            self.path.mkdir(parents=True, exist_ok=True)
        for _, aside in run_directories(self.path, self.job):  # of who was killed as it unpacked
            self._unpack(aside)

    def _take(self, path: Path) -> None:
        try:
            path.rename(self.path)
        except OSError as exc:
            if exc.errno not in _TAKEN:
                raise
            self._take_all(path)

    def _take_all(self, path: Path) -> None:
        """Take what an earlier run has left beside what we have: no two have a name in common.

        A run that was killed as it began has left nothing; one that two others took over at once, all.
        """
        aside = self.path / path.name
        path.rename(aside)  # from here on that run names nothing
        self._unpack(aside)

    def _unpack(self, aside: Path) -> None:
        """Move all out of a directory that was put into ours."""
        for entry in list(os.scandir(aside)):
            with contextlib.suppress(OSError):  # another takes us over: it will look for it
                Path(entry.path).rename(self.path / entry.name)
        with contextlib.suppress(OSError):
            aside.rmdir()

    def remove_if_empty(self) -> None:
        """Remove the directory if it is empty: we came too late, and nothing was begun in it."""
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def unpublish(self, target: Path, position: int) -> None:
        """Take a name from a file, if there is one and we are still the ones to decide.

        *Into* our directory, so that a late run cannot: it would take away what its taker fetched.
        A folder is left: other files of the job are in it. So is what lies below a file.
        """
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if stat.S_ISREG(target.lstat().st_mode):
                target.rename(self.path / f"{position}.unnoted")

    def exists(self) -> bool:
        """Return whether nobody has taken the job over."""
        return self.path.is_dir()

    def remove_all(self) -> None:
        """Remove what this run and those before it have left; for when the job has ended."""
        for path in removable_directories(self.directory, self.job, self.token):
            remove_directory(path)

    def _smaller(self) -> list[Path]:
        """Return the directories of smaller tokens, that of the largest first."""
        found = run_directories(self.directory, self.job)
        return [path for token, path in sorted(found, reverse=True) if token < self.token]


def remove_directory(path: Path) -> bool:
    """Remove one of the `removable_directories`; return whether it was still there, and so ours to remove."""
    name = ".".join([*path.name.split(".")[:3], uuid.uuid4().hex])
    try:
        doomed = path.rename(path.with_name(name))
    except OSError:  # somebody took it over, or away; or we may not
        return False
    shutil.rmtree(doomed, ignore_errors=True)
    return True


def run_directories(directory: Path, job: str = _ANY) -> list[tuple[int, Path]]:
    """Return token and path of the fences of a job, or of all jobs, in a directory."""
    return _named(directory, rf"\.{job}\.([0-9]+)")


def removable_directories(directory: Path, job: str = _ANY, newest: float = math.inf) -> list[Path]:
    """Return the fences up to a token, and what is left of those that somebody began to remove."""
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
