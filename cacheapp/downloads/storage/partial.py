"""Partial files: their names, discovery, writing, and atomic publication.

The name of a partial file describes its content, so that a killed job is resumed from the disk
alone, whatever was recorded in the database:

    .<job>-<position>.<token>.<total or x>.<validator>.part     a beginning of the file
    .<job>-<position>.<token>.<total>.<validator>.split         ranges of it, listed in a journal

It is in the directory of its run (`run_directory`) and has its name before its first byte. Bytes of
another representation get another name, so a kill at any point cannot leave a file whose name and
bytes belong to two objects. `token` is the run's fencing token: a new owner writes to its own
files, so that a suspended earlier owner cannot write into them. A file that is fetched in parts has
holes; without its journal (`range_journal`) it is of no use.
"""

import base64
import binascii
import contextlib
import ctypes
import dataclasses
import errno
import functools
import os
import re
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from io import FileIO
from pathlib import Path

from cacheapp.downloads.http.errors import TransferFailed
from cacheapp.downloads.http.ranges import ResumePoint
from cacheapp.downloads.storage.checksums import Checksum, RunningChecksums
from cacheapp.downloads.storage.range_journal import Span, journal_path, read_ranges

_NAME = re.compile(
    r"\.([0-9a-f]{12})-([0-9]+)\.([0-9]+)\.([0-9]+|x)\.([A-Za-z0-9_-]*)\.(part|split)"
)
_WRITE = os.O_WRONLY | os.O_CLOEXEC
_HERE = -100  # AT_FDCWD: relative to the working directory
_NOREPLACE = 1
_UNKNOWN = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}
_MAX_VALIDATOR = 120  # bytes; a longer one does not fit into a name, and such a file is not resumed


@dataclasses.dataclass(frozen=True)
class PartialName:
    """The part of a partial file's name that is known before the first request."""

    directory: Path
    job: str
    """First 12 hexadecimal digits of the job's id: several jobs may share a directory."""
    position: int
    token: int

    def path(self, total: int | None, validator: str | None) -> Path:
        """Return the path for the bytes of that representation."""
        shown = "x" if total is None else str(total)
        mark = _encoded(validator)
        return self.directory / f".{self.job}-{self.position}.{self.token}.{shown}.{mark}.part"


@dataclasses.dataclass(frozen=True)
class LeftoverFile:
    """A partial file of an earlier run."""

    path: Path
    token: int
    resume_point: ResumePoint
    """With all bytes that are on disk, wherever they are."""
    spans: tuple[Span, ...] | None = None
    """The ranges on disk of a file with holes; `None`: it has none."""

    def remove(self) -> None:
        """Remove the file and its journal of ranges."""
        _remove(self.path)


class PartialFile:
    """A partial file written by one transfer. `size` bytes are in the file and in `running`."""

    def __init__(
        self,
        path: Path,
        checksums: tuple[Checksum, ...],
        *,
        digest: bool,
        also: AbstractSet[str] = frozenset(),
    ) -> None:
        # Exclusive: two transfers must never write to one file. Opened once for a file that arrives
        # in one response, and without `io`: an open costs as much as a request.
        self._file: int | None = os.open(path, os.O_CREAT | os.O_EXCL | _WRITE, 0o666)
        self.path = path
        self.size = 0
        self.total: int | None = None
        self.validator: str | None = None
        self.checksums = checksums
        algorithms = {wanted.algorithm for wanted in checksums} | also
        self.running = RunningChecksums(algorithms | {"sha256"} if digest else algorithms)

    @property
    def resume_point(self) -> ResumePoint | None:
        """Where to resume; `None` if nothing could prove that further bytes belong to the file."""
        if self.validator is None or len(self.validator) > _MAX_VALIDATOR:
            return None
        return ResumePoint(self.size, self.validator, self.total)

    def store(
        self,
        read: Callable[[memoryview], int],
        view: memoryview,
        check: "ChunkCheck",
        on_stored: Callable[[int], None],
    ) -> None:
        """Append what `read` returns until it returns 0.

        Call `check` before each write, and `on_stored` with the size of the file after it.
        """
        file, self._file = self._file, None
        again = file is None
        if file is None:
            file = os.open(self.path, _WRITE)
        try:
            if again:
                os.ftruncate(file, self.size)  # the bytes of a failed write are not counted
                os.lseek(file, self.size, os.SEEK_SET)
            for count in iter(functools.partial(read, view), 0):
                check(self.size, count)
                _write_all(file, view[:count])
                self.running.update(view[:count])
                self.size += count
                on_stored(self.size)
        finally:
            os.close(file)

    def close(self) -> None:
        """Close the file and keep it."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def sync(self) -> None:
        """Flush the data, to survive a power cut."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())

    def remove(self) -> None:
        """Close and remove the file."""
        self.close()
        _remove(self.path)

    def become_split(self) -> None:
        """Close the file, and give it the name of a file with holes. Its journal exists already."""
        self.close()
        path = self.path.with_suffix(".split")
        self.path.rename(path)
        self.path = path

    def copy_ranges(
        self, leftover: LeftoverFile, view: memoryview, on_stored: Callable[[int], None]
    ) -> None:
        """Become a copy of an earlier run's file with holes; its journal is made after that.

        `on_stored` receives the bytes so far. They are not in `size`, nor in `running`.
        """
        point, done = leftover.resume_point, 0
        self.total, self.validator = point.total, point.validator
        self.become_split()  # before there are holes
        with leftover.path.open("rb", buffering=0) as old, self.path.open("r+b", 0) as new:
            for span in leftover.spans or ():
                for count in _copied(old, new, span, view):
                    done += count
                    on_stored(done)


ChunkCheck = Callable[[int, int], None]
"""Receives the offset and length of a chunk; raises if it must not be written."""


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    if path.suffix == ".split":
        journal_path(path).unlink(missing_ok=True)


def _write_all(file: int, view: memoryview) -> None:
    written = os.write(file, view)
    while written < len(view):  # a full disk or a signal may cause a short write
        written += os.write(file, view[written:])


def _copied(old: FileIO, new: FileIO, span: tuple[int, int], view: memoryview) -> Iterator[int]:
    """Copy a span of bytes between the files; yield how many each step has copied."""
    first, end = span
    while first < end:
        old.seek(first)
        new.seek(first)
        count = old.readinto(view[: end - first]) or 0
        if not count:
            raise TransferFailed(f"byte {first} of its partial file is missing")
        count = new.write(view[:count])
        first += count
        yield count


def find_leftovers(directory: Path, job: str) -> dict[int, LeftoverFile]:
    """Return the resumable partial files of a job's earlier runs, by position.

    If a position has several, the longest is returned. The directory is scanned once.
    """
    found: dict[int, LeftoverFile] = {}
    with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in entries:
            _keep_longest(found, entry, job)
    return found


def _keep_longest(found: dict[int, LeftoverFile], entry: os.DirEntry[str], job: str) -> None:
    match = _NAME.fullmatch(entry.name)
    left = _leftover(entry, match) if match and match[1] == job else None
    if match is None or left is None:
        return
    before = found.get(int(match[2]))
    if before is None or before.resume_point.size < left.resume_point.size:
        found[int(match[2])] = left


def _leftover(entry: os.DirEntry[str], match: re.Match[str]) -> LeftoverFile | None:
    """Return the partial file of a directory entry if it can be resumed."""
    validator = _decoded(match[5])
    total = None if match[4] == "x" else int(match[4])
    try:
        size = entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:  # removed since it was listed
        return None
    if not validator or not size or (total is not None and size > total):
        return None
    path, token = Path(entry.path), int(match[3])
    if match[6] == "part":
        return LeftoverFile(path, token, ResumePoint(size, validator, total))
    spans = () if total is None else read_ranges(path, total)
    size = sum(end - first for first, end in spans)
    return LeftoverFile(path, token, ResumePoint(size, validator, total), spans) if size else None


def publish(partial: Path, target: Path, *, replace: bool = False, fsync: bool = False) -> None:
    """Give the file its final name atomically; replace an existing file only if `replace`."""
    name = partial.replace if replace else functools.partial(_publish_new, partial)
    try:
        try:
            name(target)
        except FileNotFoundError:  # the first file of its folder
            target.parent.mkdir(parents=True, exist_ok=True)
            name(target)
    except (FileExistsError, NotADirectoryError) as exc:
        raise TransferFailed("a folder of its path already exists as a file") from exc
    if fsync:
        sync_directory(target.parent)


def sync_directory(directory: Path) -> None:
    """Flush the directory's names, to survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _publish_new(partial: Path, target: Path) -> None:
    try:
        if not rename_new(partial, target):
            _link_new(partial, target)
    except FileExistsError as exc:
        raise TransferFailed(f"{target.name} already exists; it was not replaced") from exc


def _link_new(partial: Path, target: Path) -> None:
    try:
        os.link(partial, target)
    except OSError as exc:
        if exc.errno not in {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}:
            raise
        # No hard links either. An empty file holds the name between these two lines, and
        # permanently if the process is killed or loses the job there (see
        # docs/download-guarantees.md). That is the price of never replacing a file of another owner.
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        partial.replace(target)
    else:
        partial.unlink()


def _encoded(validator: str | None) -> str:
    raw = (validator or "").encode("latin-1", errors="replace")
    return base64.urlsafe_b64encode(raw).decode().rstrip("=") if len(raw) <= _MAX_VALIDATOR else ""


def _decoded(mark: str) -> str | None:
    try:
        raw = base64.urlsafe_b64decode(mark + "=" * (-len(mark) % 4))
    except (binascii.Error, ValueError):
        return None
    return raw.decode("latin-1")


def _find_renameat2() -> Callable[[int, bytes, int, bytes, int], int] | None:
    """Return the function of the C library; older versions of musl lack it."""
    found = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if found is None:
        return None
    found.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    found.restype = ctypes.c_int
    return found  # type: ignore[no-any-return]


_renameat2 = _find_renameat2()


def rename_new(old: Path, new: Path) -> bool:
    """Rename a file without replacing another; return False if the file system cannot do that.

    Python does not expose `renameat2(RENAME_NOREPLACE)`. It is one call instead of a link and an
    unlink, and works on file systems without hard links (FAT, exFAT, SMB). NFS and other kernels
    lack it.

    Raise `FileExistsError` if the name is taken, and otherwise the errors of `os.rename`.
    """
    if _renameat2 is None:
        return False
    if not _renameat2(_HERE, os.fsencode(old), _HERE, os.fsencode(new), _NOREPLACE):
        return True
    code = ctypes.get_errno()
    if code in _UNKNOWN:
        return False
    raise OSError(code, os.strerror(code), str(old), None, str(new))
