"""The checksums of a file that its server sends, as far as they prove something."""

from collections.abc import Mapping

from cacheapp.downloads.engine.transfer_options import TransferLimits, TransferOptions
from cacheapp.downloads.http.client import HTTPClient
from cacheapp.downloads.http.ranges import ResumePoint, matching_validator
from cacheapp.downloads.storage.checksums import Checksum, checksums_from_headers

_OK = 200


class RemoteChecksums:
    """Reads the checksums of one file from responses."""

    def __init__(self, options: TransferOptions, limits: TransferLimits) -> None:
        self._options = options
        self._limits = limits

    def read(
        self, headers: Mapping[str, str], etag: str, *, whole_object: bool
    ) -> tuple[Checksum, ...]:
        """Return the checksums to verify; `etag`: "" unless the file has bytes of an earlier run."""
        if not self._limits.digest:
            return ()
        of_s3 = etag if self._options.etag else ""
        return checksums_from_headers(headers, of_s3, whole_object=whole_object)

    def fetch(self, resume_point: ResumePoint, client: HTTPClient) -> tuple[Checksum, ...] | None:
        """Return the checksums of a file complete on disk; `None` if the object has changed.

        They arrive in the head of a response. Its body is not read; the connection is closed.
        """
        response = client.get(self._options.url, {})
        try:
            if response.status != _OK:
                raise response.to_error()
            headers, total = response.headers, response.content_length()
        finally:
            response.close()
        tag = matching_validator(resume_point, headers.get("etag"), headers.get("last-modified"))
        if tag != resume_point.validator or total not in {None, resume_point.total}:
            return None
        return self.read(headers, resume_point.validator, whole_object=True)
