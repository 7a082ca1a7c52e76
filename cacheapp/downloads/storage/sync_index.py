r"""Remembers which version of each file is on disk, so that `--sync` fetches only what has changed.

The index is a file `.<12 hex digits>.sync` in the destination, one for each source (its scope).
Each line is JSON and describes one file as it was saved; the last line of a name counts.

Invariant: a record is believed only while the file on disk has its size and modification time,
which belong to exactly the bytes that were fetched with the record's validators: the time is read
from the partial file before that is renamed, and the record is written after the rename. So a kill
at any point, a torn or lost line, or a line of a late process costs at most one fetch, and never
hides a change:

- Killed between rename and record: the file has no record, or one that does not fit, and is fetched
  again.
- Killed within the write of a line: the line is not valid JSON and is ignored. The next process
  begins with a line end, so its first record is not appended to the torn one.
- Killed while the index is rewritten: the old file stays until the new one is renamed over it. A
  process that appends to the old one meanwhile loses these records only.
- A power cut may leave zeros instead of lines: they are ignored.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import stat
import threading
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path

from cacheapp.downloads.storage.presence import is_present

_APPEND = os.O_APPEND | os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_SPARE_LINES = 1000
"""Lines without effect before an index is rewritten, besides as many as it has files."""


@dataclasses.dataclass(frozen=True)
class SyncedFile:
    """A file as it was saved."""

    name: str
    url: str
    size: int
    mtime_ns: int
    etag: str = ""
    modified: str = ""
    """`Last-Modified`, as the server wrote it."""
    sha256: str = ""
    checksum: str = ""
    """The given checksum that it matches, as `checksums.read_checksum` returns it."""

    def matches(self, found: os.stat_result) -> bool:
        """Return whether a file on disk is unchanged since it was saved."""
        now = (found.st_size, found.st_mtime_ns)
        return stat.S_ISREG(found.st_mode) and now == (self.size, self.mtime_ns)


class SyncIndex:
    """The index of one source in one destination. `_lock` guards `_descriptor`.

    Call `load` first. Threads may then append at the same time.
    """

    def __init__(self, directory: Path, scope: str) -> None:
        digest = hashlib.blake2b(scope.encode(), digest_size=6).hexdigest()
        self.directory = directory
        self._path = directory / f".{digest}.sync"
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._files: dict[str, SyncedFile] = {}

    @property
    def files(self) -> Mapping[str, SyncedFile]:
        """The last record of each name."""
        return self._files

    def load(self) -> None:
        """Read the index, and rewrite it if most of its lines have no effect."""
        parsed: list[SyncedFile | None] = []
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as file:
            parsed += map(_parse, file)
        self._files.update({found.name: found for found in parsed if found is not None})
        if len(parsed) > 2 * len(self._files) + _SPARE_LINES:
            self._rewrite()

    def current(self, name: str, url: str, *, verify: bool = False) -> SyncedFile | None:
        """Return the record of a file that is on disk as it was saved from this URL.

        `verify`: also read it and compare its digest. Raise `OSError` if it cannot be examined.
        """
        found = self._files.get(name)
        if found is None or found.url != url:
            return None
        path = self.directory / name
        try:
            is_same = found.matches(path.lstat())
        except (FileNotFoundError, NotADirectoryError):
            return None
        checksum = f"sha256:{found.sha256}" if found.sha256 else found.checksum
        if is_same and verify and checksum:
            is_same = is_present(path, found.size, checksum)
        return found if is_same else None

    def append(self, file: SyncedFile) -> None:
        """Record a file that has just been saved."""
        line = _line(file)
        with self._lock:
            if self._descriptor is None:
                self._descriptor = os.open(self._path, _APPEND, 0o600)
                line = b"\n" + line
            descriptor = self._descriptor
        os.write(descriptor, line)
        self._files[file.name] = file

    def close(self) -> None:
        """Close the file. Call it after the last `append`."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _rewrite(self) -> None:
        new = self._path.with_suffix(".sync.new")
        with contextlib.suppress(OSError):  # the longer one is as good
            new.unlink(missing_ok=True)
            with new.open("xb") as file:
                file.writelines(map(_line, self._files.values()))
            new.replace(self._path)


def set_modified(path: Path, last_modified: str) -> int:
    """Set a file's modification time from a valid `Last-Modified`; return the time in ns."""
    with contextlib.suppress(ValueError, IndexError, TypeError, OverflowError, OSError):
        moment = parsedate_to_datetime(last_modified).timestamp()
        os.utime(path, ns=(path.stat().st_atime_ns, int(moment) * 10**9))
    return path.stat().st_mtime_ns


def _line(file: SyncedFile) -> bytes:
    return json.dumps(dataclasses.astuple(file)).encode() + b"\n"


def _parse(line: bytes) -> SyncedFile | None:
    try:
        found = SyncedFile(*json.loads(line))
    except (ValueError, TypeError):
        return None
    texts = (found.name, found.url, found.etag, found.modified, found.sha256, found.checksum)
    is_typed = all(isinstance(it, str) for it in texts)
    numbers = (found.size, found.mtime_ns)
    return found if is_typed and all(type(it) is int for it in numbers) else None
