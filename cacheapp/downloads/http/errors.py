"""Translates network and disk errors into a message for the user and facts for the scheduler."""

import errno
import http.client
import ssl

from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
    SSLError,
)

from cacheapp.downloads.http.response import MalformedHead
from cacheapp.errors import CacheappError


class TransferFailed(CacheappError):
    """An attempt to fetch the file failed; the message says why."""

    def __init__(
        self,
        message: str,
        *,
        retryable: bool = False,
        slow_down: bool = False,
        retry_after_s: float | None = None,
        keeps_bytes: bool = False,
    ) -> None:
        super().__init__(message)
        self.retryable = retryable
        """Whether another attempt may succeed."""
        self.slow_down = slow_down
        """Whether the host seems overloaded."""
        self.retry_after_s = retry_after_s
        """The `Retry-After` of the response, if any."""
        self.keeps_bytes = keeps_bytes or retryable
        """Whether a later run may continue the bytes on disk, such as after an expired login."""


class TransferAborted(CacheappError):
    """The transfer was stopped on request."""


class NotModified(CacheappError):
    """The version on disk is still the current one; no body was read."""


_SENTENCES: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    # A subclass of NewConnectionError: first.
    (NameResolutionError, "the host name has no address"),
    (NewConnectionError, "no connection: {cause}"),
    (ConnectTimeoutError, "connecting timed out"),
    ((ReadTimeoutError, TimeoutError), "no data arrived before the timeout"),
    ((SSLError, ssl.SSLError), "TLS failed: {cause}"),
    (MalformedHead, "{cause}"),
    (http.client.IncompleteRead, "ended in the middle of its chunks"),
)
_LASTING_TLS = frozenset(
    [
        *("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "UNSUPPORTED_PROTOCOL"),
        *("NO_PROTOCOLS_AVAILABLE", "TLSV1_ALERT_PROTOCOL_VERSION", "TLSV1_UNRECOGNIZED_NAME"),
        *("SSLV3_ALERT_HANDSHAKE_FAILURE", "TLSV13_ALERT_CERTIFICATE_REQUIRED"),
    ]
)
"""OpenSSL's reasons for failures that depend on how the server is set up."""
_DISK = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk is read-only",
    errno.ENAMETOOLONG: "the name is too long for this file system",
    errno.EXDEV: "a folder of its path is on another file system",
}


def translate_error(exc: Exception) -> TransferFailed:
    """Return the failure for an exception of the network or the disk."""
    if isinstance(exc, TransferFailed):
        return exc
    return TransferFailed(
        printable(_sentence(exc)),
        retryable=_is_transient(exc),
        slow_down=isinstance(exc, ReadTimeoutError | ConnectTimeoutError | TimeoutError),
    )


def printable(message: str) -> str:
    """Replace unprintable characters: the text may come from a server."""
    return "".join(character if character.isprintable() else "?" for character in message[:500])


def _is_transient(exc: Exception) -> bool:
    if isinstance(exc, NameResolutionError):
        return True
    if isinstance(exc, MalformedHead | http.client.LineTooLong):
        return False
    if isinstance(exc, SSLError | ssl.SSLError):
        last = _last(exc)
        is_lasting = getattr(last, "reason", None) in _LASTING_TLS
        return not (isinstance(last, ssl.SSLCertVerificationError) or is_lasting)
    # Of operating system errors only connection errors: a disk error would repeat.
    transient = (
        HTTPError | http.client.HTTPException | ConnectionError | TimeoutError | ssl.SSLError
    )
    return isinstance(exc, transient)


def _sentence(exc: Exception) -> str:
    """Return a sentence that names no network address, only what the URL already shows."""
    if isinstance(exc, OSError) and exc.errno in _DISK:
        return _DISK[exc.errno]
    for kind, sentence in _SENTENCES:
        if isinstance(exc, kind):
            return sentence.format(cause=_last_cause(exc))
    return f"{type(exc).__name__}: {_last_cause(exc)}"


def _last(exc: BaseException) -> BaseException:
    while True:
        inner = (
            exc.__cause__,
            getattr(exc, "reason", None),
            *exc.args[:1],
        )  # urllib3 uses all three
        cause = next((found for found in inner if isinstance(found, BaseException)), None)
        if cause is None:
            return exc
        exc = cause


def _last_cause(exc: BaseException) -> str:
    exc = _last(exc)
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror  # without the path, which is internal to the server
    return str(exc) or type(exc).__name__
