"""What went wrong with a transfer, in words for people and in facts for the scheduler."""

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

from cacheapp.errors import CacheappError


class TransferFailed(CacheappError):
    """A try to fetch the file failed; the message says why."""

    def __init__(
        self,
        message: str,
        *,
        retryable: bool = False,
        slow_down: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.retryable = retryable
        """Whether another try may do better."""
        self.slow_down = slow_down
        """Whether the host seems to have more than enough to do."""
        self.retry_after_s = retry_after_s
        """How long the host wants to be left alone."""


class TransferAborted(CacheappError):
    """Somebody asked the transfer to stop, and it did."""


_EXPLANATIONS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (NameResolutionError, "the host name has no address"),  # a NewConnectionError: goes first
    (NewConnectionError, "no connection: {cause}"),
    (ConnectTimeoutError, "connecting took too long"),
    ((ReadTimeoutError, TimeoutError), "the connection was silent for too long"),
    ((SSLError, ssl.SSLError), "TLS failed: {cause}"),
    (http.client.IncompleteRead, "broke off in the middle of its chunks"),
)
_DISK = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk takes no writes",
    errno.ENAMETOOLONG: "the name is too long for this file system",
    errno.EXDEV: "a folder of its path is another file system",
}


def translate_error(exc: Exception) -> TransferFailed:
    """Return the failure that an exception of the network or the disk amounts to."""
    if isinstance(exc, TransferFailed):
        return exc
    return TransferFailed(
        printable(_sentence(exc)),
        retryable=_is_passing(exc),
        slow_down=isinstance(exc, ReadTimeoutError | ConnectTimeoutError | TimeoutError),
    )


def printable(message: str) -> str:
    """Return what any database and terminal takes: parts of it were written by the origin."""
    return "".join(character if character.isprintable() else "?" for character in message[:500])


def _is_passing(exc: Exception) -> bool:
    if isinstance(exc, NameResolutionError):
        return True
    if isinstance(exc, SSLError | ssl.SSLCertVerificationError):
        return not isinstance(_last(exc), ssl.SSLCertVerificationError)
    # Of the system's errors only those of connections: a disk does not mend by asking again.
    passing = HTTPError | http.client.HTTPException | ConnectionError | TimeoutError | ssl.SSLError
    return isinstance(exc, passing)


def _sentence(exc: Exception) -> str:
    """Return a sentence for people; it names no address, only what the URL says already."""
    if isinstance(exc, OSError) and exc.errno in _DISK:
        return _DISK[exc.errno]
    for kind, sentence in _EXPLANATIONS:
        if isinstance(exc, kind):
            return sentence.format(cause=_last_cause(exc))
    return f"{type(exc).__name__}: {_last_cause(exc)}"


def _last(exc: BaseException) -> BaseException:
    while True:
        inner = (
            exc.__cause__,
            getattr(exc, "reason", None),
            *exc.args[:1],
        )  # urllib3 has all three
        cause = next((found for found in inner if isinstance(found, BaseException)), None)
        if cause is None:
            return exc
        exc = cause


def _last_cause(exc: BaseException) -> str:
    exc = _last(exc)
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror  # without the path: that is the server's affair
    return str(exc) or type(exc).__name__
