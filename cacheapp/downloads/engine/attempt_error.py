"""The error of an attempt, whatever ended it."""

from cacheapp.downloads.http.errors import (
    TransferAborted,
    TransferFailed,
    printable,
    translate_error,
)
from cacheapp.downloads.http.url_policy import UrlRefused


def attempt_error(
    exc: Exception, aborted: str | None, stalled: str | None
) -> TransferFailed | TransferAborted:
    """Return the error for an exception; `aborted` and `stalled`: why other threads ended it."""
    if aborted is not None:  # the exception is only a result of the shutdown of the socket
        return TransferAborted(aborted)
    if stalled is not None:
        return TransferFailed(stalled, retryable=True, slow_down=True)
    failed = TransferFailed(str(exc)) if isinstance(exc, UrlRefused) else translate_error(exc)
    failed.args = (printable(str(failed)),)
    return failed
