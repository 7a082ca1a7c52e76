"""Send complete files of a job to a browser: one, with ranges (RFC 9110), or all as a zip while it is made.

A file is always an attachment of an unknown type, so a browser saves it and never shows it: what
was downloaded must not act as a page of this site.

A client may read slowly, and its file occupies a thread meanwhile. So files take the slots of
`views.streams`, which leave a thread free, and a response without one is 503.
"""

import datetime as dt
import functools
import os
import re
import stat
import threading
import zipfile
from collections.abc import AsyncIterator, Iterable, Iterator
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db import connections
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.http import content_disposition_header

from cacheapp.views.pages import error_page
from cacheapp.views.streams import RETRY_AFTER_S, StreamKind, slots

CHUNK_BYTES = 256 * 1024
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)
_NOT_IN_ZIP = re.compile(r"[\\\x00-\x1f\x7f-\x9f]|(?<=^[A-Za-z]):|(?<=/[A-Za-z]):")
"""What some programs take for a directory, a drive or a command to the terminal."""
_POLICY = "default-src 'none'; frame-ancestors 'none'; sandbox"


def file_response(request: HttpRequest, directory: Path, name: str, etag: str) -> HttpResponseBase:
    """Return a file of a directory, or the requested part of it; raise `Http404` if it is gone."""
    file = _open(directory, name)
    size = os.fstat(file.fileno()).st_size
    quoted = f'"{etag}"'
    is_meant = request.method == "GET" and request.headers.get("If-Range", quoted) == quoted
    wanted = _range(request.headers.get("Range", ""), size) if is_meant else None
    first, last = wanted or (0, size - 1)
    if wanted is not None and first > last:
        file.close()
        return HttpResponse(
            status=HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            headers={"Content-Range": f"bytes */{size}", **_headers(name)},
        )
    headers = {
        **_headers(name),
        "Content-Length": str(last - first + 1),
        "Accept-Ranges": "bytes",
        "ETag": quoted,
    }
    status = HTTPStatus.OK
    if wanted is not None and (first, last) != (0, size - 1):
        status = HTTPStatus.PARTIAL_CONTENT
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    if request.method == "HEAD":
        file.close()
        return HttpResponse(status=status, headers=headers)
    return _stream(request, _Part(file, first, last), status, headers)


def zip_response(
    request: HttpRequest, directory: Path, names: Iterable[str], file_name: str
) -> HttpResponseBase:
    """Return files of a directory as a zip that is never on disk nor in memory as a whole."""
    headers = {**_headers(file_name), "Content-Type": "application/zip"}
    if request.method == "HEAD":
        return HttpResponse(headers=headers)
    return _stream(request, _zip(directory, names), HTTPStatus.OK, headers)


def _headers(name: str) -> dict[str, str]:
    shown = name.rpartition("/")[2]
    return {
        "Content-Type": "application/octet-stream",
        "Content-Disposition": content_disposition_header(as_attachment=True, filename=shown) or "",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": _POLICY,
        "Cache-Control": "private, no-store",
    }


def _open(directory: Path, name: str) -> BinaryIO:
    """Open a regular file in a directory; raise `Http404` for anything else, such as a link."""
    path = directory / name
    try:
        if not path.parent.resolve().is_relative_to(directory.resolve()):
            raise Http404(f"{name} is outside of the directory of its job")
        file = open(  # noqa: SIM115 (with O_NOFOLLOW; the response closes it)
            path,
            "rb",
            opener=lambda file, flags: os.open(file, flags | os.O_NOFOLLOW | os.O_NONBLOCK),
        )
    except OSError as exc:
        raise Http404(f"{name} is no longer in the directory of its job") from exc
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise Http404(f"{name} is not a file")
    return file


def _range(wanted: str, size: int) -> tuple[int, int] | None:
    """Return the first and the last byte of a range; `None` for a header without one valid range.

    Such a header is ignored (RFC 9110, 14.2). If the range is valid but not in the file, the first
    byte is larger than the last.
    """
    found = _RANGE.fullmatch(wanted.strip())
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:  # the last bytes
        count = int(found[2])
        if count and not size:
            return None  # all of an empty file, which no Content-Range can name
        return size - min(size, count), size - 1
    first = int(found[1])
    if found[2] and int(found[2]) < first:
        return None
    return first, min(int(found[2]), size - 1) if found[2] else size - 1


class _Part(Iterator[bytes]):
    """The bytes of a file from the first to the last one; `close` works also before the first `next`."""

    def __init__(self, file: BinaryIO, first: int, last: int) -> None:
        file.seek(first)
        self._file = file
        self._left = last - first + 1

    def __next__(self) -> bytes:
        chunk = self._file.read(min(CHUNK_BYTES, self._left)) if self._left else b""
        self._left -= len(chunk)
        if not chunk:
            self.close()
            raise StopIteration
        return chunk

    def close(self) -> None:
        """Close the file."""
        self._left = 0
        self._file.close()


class _Buffer:
    """What `zipfile` has written and nobody has taken yet; it cannot seek, as a socket cannot."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Do nothing: the response takes the bytes."""

    def take(self) -> bytes:
        found, self._parts = b"".join(self._parts), []
        return found


def _zip(directory: Path, names: Iterable[str]) -> Iterator[bytes]:
    """Yield a zip of the files, uncompressed; files that are gone meanwhile are left out."""
    buffer: Any = _Buffer()
    taken: dict[str, int] = {}
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            try:
                file = _open(directory, name)
            except Http404:
                continue
            with file, archive.open(_entry(file, name, taken), "w", force_zip64=True) as entry:
                for chunk in iter(functools.partial(file.read, CHUNK_BYTES), b""):
                    entry.write(chunk)
                    yield buffer.take()
            yield buffer.take()
    yield buffer.take()


def _entry(file: BinaryIO, name: str, taken: dict[str, int]) -> zipfile.ZipInfo:
    at = dt.datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, dt.UTC)
    # A zip knows no time before 1980.
    date = (max(1980, at.year), at.month, at.day, at.hour, at.minute, at.second)
    return zipfile.ZipInfo(_entry_name(name, taken), date_time=date)


def _entry_name(name: str, taken: dict[str, int]) -> str:
    """Return a name that every program unpacks as the same file, with a number if it is taken."""
    safe = found = _NOT_IN_ZIP.sub("_", name)
    path = PurePosixPath(safe)
    while found in taken:
        taken[safe] += 1
        found = str(path.with_name(f"{path.stem} ({taken[safe]}){path.suffix}"))
    taken[found] = 1
    return found


class _Response(StreamingHttpResponse):
    """Closes what it sends and frees its stream, also if the client left before the first byte."""

    def __init__(self, chunks: Any, body: Any, status: HTTPStatus, headers: dict[str, str]) -> None:
        super().__init__(body, status=status, headers=headers)
        self._chunks = chunks
        self._closed = threading.Lock()  # acquired by the first `close`

    def close(self) -> None:
        """Close the response and the file; free the stream, once."""
        try:
            super().close()
        finally:
            if self._closed.acquire(blocking=False):
                slots.release(StreamKind.FILE)
            self._chunks.close()


def _stream(
    request: HttpRequest, chunks: Any, status: HTTPStatus, headers: dict[str, str]
) -> HttpResponseBase:
    if not slots.acquire(StreamKind.FILE):
        chunks.close()
        busy = "This worker sends as many files as it may at the same time."
        response = error_page(request, HTTPStatus.SERVICE_UNAVAILABLE, busy)
        response["Retry-After"] = str(RETRY_AFTER_S)
        return response
    try:
        sent = _without_database(chunks)
        body: Any = _in_threads(sent) if isinstance(request, ASGIRequest) else sent
        return _Response(chunks, body, status, headers)
    except BaseException:
        slots.release(StreamKind.FILE)
        chunks.close()
        raise


def _without_database(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the chunks; before them, close the connections, which nothing needs as long as it takes."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()
    yield from chunks


async def _in_threads(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Yield what a blocking iterator yields, without blocking the event loop."""

    def following() -> bytes | None:
        return next(chunks, None)

    while (chunk := await sync_to_async(following)()) is not None:
        yield chunk
