"""Send complete files of a job to a browser: one, with ranges (RFC 9110), or all as a zip while it is made.

A file is always an attachment of an unknown type, so a browser saves it and never shows it: what
was downloaded must not act as a page of this site.
"""

import datetime as dt
import os
import re
import stat
import zipfile
from collections.abc import AsyncIterator, Iterable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.http import content_disposition_header

CHUNK_BYTES = 256 * 1024
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_POLICY = "default-src 'none'; frame-ancestors 'none'; sandbox"


def file_response(request: HttpRequest, directory: Path, name: str, etag: str) -> HttpResponseBase:
    """Return a file of a directory, or the requested part of it; raise `Http404` if it is gone."""
    file = _open(directory, name)
    size = os.fstat(file.fileno()).st_size
    quoted = f'"{etag}"'
    wanted = request.headers.get("Range")
    if wanted is not None and request.headers.get("If-Range", quoted) != quoted:
        wanted = None
    first, last = _range(wanted, size)
    if first > last and wanted is not None:
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


def _range(wanted: str | None, size: int) -> tuple[int, int]:
    """Return the first and the last byte to send; all for a header that has no single range.

    The first is larger than the last if the range is not in the file.
    """
    found = _RANGE.fullmatch((wanted or "").strip())
    if found is None or not (found[1] or found[2]):
        return 0, size - 1
    if not found[1]:  # the last bytes
        count = int(found[2])
        return (max(0, size - count), size - 1) if count else (size, size - 1)
    first, last = int(found[1]), int(found[2]) if found[2] else size - 1
    return first, min(last, size - 1)


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
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            try:
                file = _open(directory, name)
            except Http404:
                continue
            with file, archive.open(_entry(file, name), "w", force_zip64=True) as entry:
                while chunk := file.read(CHUNK_BYTES):
                    entry.write(chunk)
                    yield buffer.take()
            yield buffer.take()
    yield buffer.take()


def _entry(file: BinaryIO, name: str) -> zipfile.ZipInfo:
    at = dt.datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, dt.UTC)
    # A zip knows no time before 1980.
    date = (max(1980, at.year), at.month, at.day, at.hour, at.minute, at.second)
    return zipfile.ZipInfo(name, date_time=date)


class _Response(StreamingHttpResponse):
    """Closes what it sends, also if the client left before the first byte."""

    def __init__(self, chunks: Any, body: Any, status: HTTPStatus) -> None:
        super().__init__(body, status=status)
        self._chunks = chunks

    def close(self) -> None:
        """Close the response and the file."""
        try:
            super().close()
        finally:
            self._chunks.close()


def _stream(
    request: HttpRequest, chunks: Iterator[bytes], status: HTTPStatus, headers: dict[str, str]
) -> HttpResponseBase:
    body: Any = _in_threads(chunks) if isinstance(request, ASGIRequest) else iter(chunks)
    response = _Response(chunks, body, status)
    for header, value in headers.items():
        response[header] = value
    return response


async def _in_threads(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Yield what a blocking iterator yields, without blocking the event loop."""

    def following() -> bytes | None:
        return next(chunks, None)

    while (chunk := await sync_to_async(following)()) is not None:
        yield chunk
