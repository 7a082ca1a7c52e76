"""Value files: large values beside the database, named by its rows.

A file is written once, under a random name, before its row is committed. It is unlinked only after
a commit that removed its name from the row. So the file of a committed row exists as long as the
row is current. A writer that dies in between leaves an orphan, which `Shard.sweep` removes.
"""

import os
import re
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any

from cacheapp import clock
from cacheapp.backends.core import lease_format
from cacheapp.backends.core.lease_format import Payload
from cacheapp.backends.disk.library import core, diskcache
from cacheapp.backends.local.interruptions import is_interruption, suppress_failure

ORPHAN_AGE_S = 600.0
"""Files without a row are kept for this long: their writer may be about to commit."""

_MIN_64, _MAX_64 = -(2**63), 2**63 - 1
_FOLDER = re.compile(r"[0-9a-f]{2}")

MODE_LEASE, MODE_SOFT = 16, 17
"""Modes beyond diskcache's: the row's `value` begins with a head that decides visibility."""

Columns = tuple[int, int, str | None, Any]  # size, mode, filename, value


def fits_64_bits(number: int) -> bool:
    """Return True if SQLite stores the number as an INTEGER, which it can count."""
    return _MIN_64 <= number <= _MAX_64


class ValueFiles(diskcache.Disk):  # type: ignore[misc]  # no types
    """`diskcache.Disk` without pickling: a payload is an int or bytes.

    Folders have one level instead of two: with two, nearly every file would have its own folder,
    and each takes a block that no size limit counts. Empty folders remain, so that none disappears
    between its creation and the creation of a file in it.
    """

    def to_columns(self, payload: Payload) -> Columns:
        """Return the payload as columns of its row, and write its value file if it needs one."""
        if type(payload) is int:
            # Beyond 64 bits: text, in a base for which Python does not limit the number of digits.
            return 0, core.MODE_RAW, None, payload if fits_64_bits(payload) else hex(payload)
        assert isinstance(payload, bytes)  # noqa: S101 (for the type checker)
        if payload[:1] >= b"\xb0":
            if lease_format.is_lease(payload):
                return 0, MODE_LEASE, None, payload
            if lease_format.has_soft_deadline(payload):
                return self._soft_to_columns(payload)
        if len(payload) < self.min_file_size:
            return 0, core.MODE_RAW, None, payload
        return self._write_file(core.MODE_BINARY, None, payload)

    def _soft_to_columns(self, payload: bytes) -> Columns:
        """Store the head in the row: it decides visibility, and is removed with the soft deadline.

        An integer never gets a value file, as in a plain payload.
        """
        if (
            lease_format.holds_int(payload)
            or len(payload) < self.min_file_size + lease_format.SOFT_HEAD_BYTES
        ):
            return 0, MODE_SOFT, None, payload
        head, inner = (
            payload[: lease_format.SOFT_HEAD_BYTES],
            payload[lease_format.SOFT_HEAD_BYTES :],
        )
        return self._write_file(MODE_SOFT, head, inner)

    def _write_file(self, mode: int, head: bytes | None, content: bytes) -> Columns:
        name, path = self.filename()
        self._create(path, content)
        return len(content), mode, name, head

    def filename(self, key: Any = None, value: Any = None) -> tuple[str, str]:
        """Return a new name, relative and absolute."""
        del key, value
        digits = os.urandom(16).hex()
        name = f"{digits[:2]}/{digits[2:]}.val"
        return name, f"{self._directory}/{name}"

    def _create(self, path: str, payload: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            number = os.open(path, flags, 0o600)
        except FileNotFoundError as exc:
            if is_interruption(exc):
                raise
            # Only the folder: a shard's directory that was removed must not reappear without its
            # database.
            with suppress_failure(FileExistsError):
                Path(path).parent.mkdir(mode=0o700)
            number = os.open(path, flags, 0o600)
        try:
            with open(number, "wb", buffering=0) as file:
                _write_all(file, memoryview(payload))
        except BaseException:
            with suppress_failure(OSError):
                os.unlink(path)
            raise

    def read(self, name: str, size: int, head: bytes | None) -> bytes | None:
        """Return head and content of a value file; `None` if it is missing or has the wrong size."""
        try:
            with open(f"{self._directory}/{name}", "rb", buffering=0) as file:
                content = file.readall()
        except FileNotFoundError as exc:
            if is_interruption(exc):
                raise
            return None
        if len(content) != size:
            return None
        return content if head is None else head + content

    def remove(self, file_path: str) -> None:
        """Unlink a value file; `Shard.sweep` removes later what cannot be unlinked now."""
        with suppress_failure(OSError):
            os.unlink(f"{self._directory}/{file_path}")

    def old_files(self, older_than_s: float) -> list[str]:
        """Return the names of the value files that were written longer ago than `older_than_s`."""
        before = clock.wall_s() - older_than_s
        return [entry_name for entry_name, written in self._files() if written < before]

    def _files(self) -> Iterator[tuple[str, float]]:
        with suppress_failure(FileNotFoundError), os.scandir(self._directory) as folders:
            for folder in folders:
                if not _FOLDER.fullmatch(folder.name):
                    continue
                with os.scandir(folder.path) as files:
                    for file in files:
                        with suppress_failure(FileNotFoundError):
                            yield f"{folder.name}/{file.name}", file.stat().st_mtime


def _write_all(file: FileIO, rest: memoryview) -> None:
    while rest:
        rest = rest[file.write(rest) :]


def payload_from_column(value: Any) -> Payload:
    """Return the payload of a row without a value file: the reverse of `to_columns`."""
    return int(value, 16) if type(value) is str else value
