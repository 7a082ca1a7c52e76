"""Fetches one file: to a partial file beside the target, renamed when it is whole, or not at all.

Invariants:
- A final name appears only when the file is whole, and never replaces a file (`_publish`).
- After `abort` has returned, no final name appears (`_lock` is held for the check and the rename).
- Whatever ends `run` but success removes the partial file.
"""

import dataclasses
import errno
import http.client
import os
import re
import ssl
import threading
from pathlib import Path
from typing import BinaryIO

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)

from cacheapp import clock
from cacheapp.downloads import connections
from cacheapp.downloads.guards import Address, Guard, UrlRefused
from cacheapp.errors import CacheappError

READ_BYTES = 256 * 1024
_LENGTH = re.compile("[0-9]{1,18}")
_REDIRECTS = frozenset([301, 302, 303, 307, 308])


class TransferFailed(CacheappError):
    """The file could not be fetched; nothing of it is left. The message says why."""


class TransferAborted(CacheappError):
    """Somebody asked the transfer to stop, and it did; nothing of the file is left."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a transfer may take; times in seconds."""

    max_bytes: int
    connect_s: float = 10.0
    read_s: float = 60.0
    """Silence on the connection."""
    stall_s: float = 60.0
    """Time in which `READ_BYTES` must come: a trickle keeps `read_s` content, but not this."""
    max_redirects: int = 5


class Buffer:
    """One thread's reading space: made when a first body arrives, then used again."""

    def __init__(self) -> None:
        self._bytes: bytearray | None = None

    def view(self) -> memoryview:
        """Return the whole space."""
        if self._bytes is None:
            self._bytes = bytearray(READ_BYTES)
        return memoryview(self._bytes)


def partial_path(directory: Path, position: int) -> Path:
    """Return where a file gathers. The leading dot keeps it apart from every final name."""
    return directory / f".{position}.part"


def remove_partials(directory: Path) -> None:
    """Remove what transfers that ended without a word have left behind."""
    for path in directory.glob(".*.part"):
        path.unlink(missing_ok=True)


class Transfer:
    """One file on its way. `run` belongs to one thread; `abort` is for any other.

    `bytes_done` and `moved_at_s` are written by the running thread alone and read by others, who
    may see them a moment late. `_lock` guards `_aborted`, and the rename against it.
    """

    def __init__(self, guard: Guard, limits: Limits, partial: Path, target: Path) -> None:
        self.bytes_done = 0
        self.moved_at_s = clock.monotonic_s()
        self._guard = guard
        self._limits = limits
        self._partial = partial
        self._target = target
        self._line = connections.Line()
        self._lock = threading.Lock()
        self._aborted: str | None = None

    def abort(self, reason: str) -> None:
        """Make `run` end soon, with `TransferAborted(reason)`; unless the file is whole by now."""
        with self._lock:
            self._aborted = self._aborted or reason
        self._line.cut()

    def is_stalled(self, now_s: float) -> bool:
        """Return whether too little has come for too long."""
        return now_s - self.moved_at_s > self._limits.stall_s

    def run(self, client: urllib3.PoolManager, url: str, buffer: Buffer) -> int:
        """Fetch `url`; return the file's length.

        Raise `TransferFailed` or `TransferAborted`; in both cases nothing is left on disk.
        """
        connections.use(self._line)
        try:
            return self._fetch(client, url, buffer)
        except (UrlRefused, TransferFailed) as exc:
            raise self._ended(str(exc)) from exc
        except (HTTPError, http.client.HTTPException, OSError) as exc:
            raise self._ended(_explain(exc)) from exc
        finally:
            self._line.release()
            connections.use(None)

    def _ended(self, message: str) -> CacheappError:
        with self._lock:
            if self._aborted is not None:  # what the cut looked like from here is of no interest
                return TransferAborted(self._aborted)
        return TransferFailed(_printable(message))

    def _check(self) -> None:
        with self._lock:
            if self._aborted is not None:
                raise TransferFailed(self._aborted)

    def _fetch(self, client: urllib3.PoolManager, url: str, buffer: Buffer) -> int:
        response = self._follow(client, url)
        whole = False
        try:
            answer = connections.raw_answer()
            expected = _announced(answer)
            if expected is not None and expected > self._limits.max_bytes:
                raise TransferFailed(self._too_long(f"has {expected}"))
            self._store(answer, expected, buffer)
            whole = True
            return self.bytes_done
        finally:
            self._line.release()
            if not whole:  # the rest of the answer would be taken for the next one
                response.close()
            response.release_conn()

    def _follow(self, client: urllib3.PoolManager, url: str) -> urllib3.BaseHTTPResponse:
        """Return the answer at the end of the redirects; each hop has been admitted."""
        address = self._guard.admit(url)
        for _ in range(self._limits.max_redirects + 1):
            self._check()
            response = self._ask(client, address)
            location = response.headers.get("Location")
            if response.status == http.HTTPStatus.OK:
                return response
            self._line.release()
            response.close()  # its body, of any length, is not worth reading
            response.release_conn()
            if response.status not in _REDIRECTS or not location:
                raise TransferFailed(f"answered {response.status} {response.reason or ''}".rstrip())
            address = self._guard.follow(address, location)
        raise TransferFailed(f"redirected more than {self._limits.max_redirects} times")

    def _ask(self, client: urllib3.PoolManager, address: Address) -> urllib3.BaseHTTPResponse:
        try:
            return self._ask_once(client, address)
        except ProtocolError as exc:
            # The server may have closed a kept connection just as it was used: nothing was
            # answered, and GET may be repeated. Once: the next may be an old one as well.
            broken = isinstance(exc.args[-1], ConnectionError)
            if not (broken and connections.was_reused()):
                raise
            self._check()
            client.clear()
            return self._ask_once(client, address)

    def _ask_once(self, client: urllib3.PoolManager, address: Address) -> urllib3.BaseHTTPResponse:
        pool = client.connection_from_host(address.host, address.port, address.scheme)
        return pool.urlopen(
            "GET",
            address.target,
            headers=client.headers,
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
            timeout=urllib3.Timeout(connect=self._limits.connect_s, read=self._limits.read_s),
        )

    def _store(
        self, answer: http.client.HTTPResponse, expected: int | None, buffer: Buffer
    ) -> None:
        # Exclusive: two transfers that thought the file theirs would mix their bytes.
        with self._partial.open("xb", buffering=0) as file:
            try:
                self._copy(answer, file, buffer)
                if expected is not None and self.bytes_done != expected:
                    raise TransferFailed(f"broke off after {self.bytes_done} bytes of {expected}")
                self._publish_unless_aborted()
            finally:
                self._partial.unlink(missing_ok=True)

    def _publish_unless_aborted(self) -> None:
        with self._lock:
            if self._aborted is not None:
                raise TransferFailed(self._aborted)
            _publish(self._partial, self._target)

    def _copy(self, answer: http.client.HTTPResponse, file: BinaryIO, buffer: Buffer) -> None:
        view = buffer.view()
        while count := answer.readinto(view):
            if self.bytes_done + count > self._limits.max_bytes:
                raise TransferFailed(self._too_long("has more"))
            written = file.write(view[:count])
            while written < count:  # a disk that fills up, or a signal, may take less
                written += file.write(view[written:count])
            self.bytes_done += count
            self.moved_at_s = clock.monotonic_s()
            if self._aborted is not None:  # without the lock: a late look costs one chunk
                raise TransferFailed(self._aborted)

    def _too_long(self, found: str) -> str:
        return f"{found} bytes; expected at most {self._limits.max_bytes}"


def _announced(answer: http.client.HTTPResponse) -> int | None:
    """Return the length that the answer announces; `None` where its chunks mark its end."""
    if answer.chunked:
        return None
    if coding := answer.headers.get("Transfer-Encoding"):
        raise TransferFailed(f"sends Transfer-Encoding {coding[:40]!r}; expected none or chunked")
    lengths = answer.headers.get_all("Content-Length", [])
    if not lengths:
        raise TransferFailed("announces neither Content-Length nor chunks: a cut would go unseen")
    if len(set(lengths)) > 1 or not _LENGTH.fullmatch(lengths[0]):
        raise TransferFailed(f"announces Content-Length {lengths!r:.60}; expected one number")
    return int(lengths[0])


def _publish(partial: Path, target: Path) -> None:
    """Give the file its final name, in one step, unless something has that name already."""
    try:
        os.link(partial, target)
    except FileExistsError as exc:
        raise TransferFailed(f"{target.name} exists already and was left as it is") from exc
    except OSError as exc:
        if exc.errno not in {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}:
            raise
        # No hard links here (FAT, some network disks). The name is taken, empty, for the moment
        # between these two lines; that is the price of never replacing what is somebody else's.
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        partial.replace(target)


_EXPLANATIONS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (NameResolutionError, "the host name has no address"),  # a NewConnectionError: goes first
    (NewConnectionError, "no connection: {cause}"),
    (ConnectTimeoutError, "connecting took too long"),
    ((ReadTimeoutError, TimeoutError), "the connection was silent for too long"),
    ((SSLError, ssl.SSLError), "TLS failed: {cause}"),
    (http.client.IncompleteRead, "broke off in the middle of its chunks"),
)


def _printable(message: str) -> str:
    """Return what any database and terminal takes: parts of it were written by the origin."""
    return "".join(character if character.isprintable() else "?" for character in message[:500])


def _explain(exc: Exception) -> str:
    """Return a sentence for people; it names no address, only what the URL says already."""
    for kind, sentence in _EXPLANATIONS:
        if isinstance(exc, kind):
            return sentence.format(cause=_last_cause(exc))
    return f"{type(exc).__name__}: {_last_cause(exc)}"


def _last_cause(exc: BaseException) -> str:
    while exc.__cause__ is not None:
        exc = exc.__cause__
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror  # without the path: that is the server's affair
    return str(exc) or type(exc).__name__
