"""Lists and signs objects of an S3 bucket with botocore; the engine fetches them like any URL.

Size and ETag come from the listing, and each object is requested with `If-Match`, so no HEAD is
needed. The listing is read lazily, page by page.
"""

import os
import threading
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from cacheapp.downloads.http.url_policy import parse_http_url
from cacheapp.downloads.sources.base import SourceEntry, SourceRefused
from cacheapp.downloads.sources.name_filter import ALL_NAMES, NameFilter
from cacheapp.downloads.storage.filenames import FAITHFUL, NameRefused, NameRules
from cacheapp.extras import needed_for

_SCHEME = "s3://"
_CHECKSUMS = {"x-amz-checksum-mode": "ENABLED"}  # otherwise S3 does not send its checksums


def _ca_bundle() -> str | None:
    """Return the certificates for the listing; `None`: those that botocore finds."""
    variables = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
    return next((path for name in variables if (path := os.environ.get(name))), None)


class ListingFailed(SourceRefused):
    """Listing the bucket failed, possibly half-way; files already listed are kept."""


class S3Source:
    """`s3://bucket/prefix`, at Amazon or at an S3-compatible `endpoint`."""

    def __init__(
        self,
        text: str,
        *,
        endpoint: str | None = None,
        region: str | None = None,
        anonymous: bool = False,
        rules: NameRules = FAITHFUL,
        names: NameFilter = ALL_NAMES,
        proxied: bool = True,
    ) -> None:
        parts = urlsplit(text)
        if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment:
            raise SourceRefused(f"{text[:200]}: expected s3://bucket/prefix")
        self._bucket = parts.netloc
        self._prefix = unquote(parts.path.removeprefix("/"))
        self._endpoint = endpoint
        self._region = region
        self._place = threading.Lock()  # guards changes of `_region`, `_client` and `_base`
        self._is_placed = endpoint is not None or region is not None
        self._anonymous = anonymous
        self._rules = rules
        self._names = names
        self._proxies: dict[str, str] | None = (
            None if proxied else {}
        )  # None: botocore reads the environment
        self.scope = f"s3 {endpoint or ''} {self._bucket}/{self._prefix}"
        self.identity = " ".join(filter(None, [self.scope, names.identity]))
        try:
            with needed_for("A source in S3", "s3"):
                self._open()
        except Exception as exc:  # botocore's errors have no common base; some are ValueError
            raise SourceRefused(f"{text[:200]}: {exc}") from exc
        named = frozenset([parse_http_url(self._base).origin]) if endpoint else frozenset()
        self.trusted: frozenset[str] = named

    def _open(self) -> None:
        from botocore import UNSIGNED  # noqa: PLC0415 (0.1 s and 20 MB, only for S3)
        from botocore.config import Config  # noqa: PLC0415
        from botocore.session import Session  # noqa: PLC0415

        session = Session()
        self._credentials = None if self._anonymous else session.get_credentials()
        self._region = self._region or session.get_config_variable("region") or "us-east-1"
        version = "s3v4" if self._credentials else UNSIGNED
        self._client = session.create_client(
            "s3",
            region_name=self._region,
            endpoint_url=self._endpoint,
            verify=_ca_bundle(),
            config=Config(
                signature_version=version,
                proxies=self._proxies,
                connect_timeout=10,
                read_timeout=60,
                retries={"mode": "standard"},
            ),
        )
        self._base = self._base_url()

    def _base_url(self) -> str:
        """Return the URL prefix of the objects, by a public way to botocore's choice of it."""
        wanted = {"Bucket": self._bucket, "Key": "key"}
        url = self._client.generate_presigned_url("get_object", Params=wanted)
        return str(url.partition("?")[0]).removesuffix("key")

    def sign(self, url: str) -> Mapping[str, str]:
        """Return the headers that authenticate a request; made per request, as they soon expire."""
        if self._credentials is None:
            return _CHECKSUMS
        self.resolve_origin()
        from botocore.auth import S3SigV4Auth  # noqa: PLC0415
        from botocore.awsrequest import AWSRequest  # noqa: PLC0415

        request = AWSRequest(method="GET", url=url, headers=dict(_CHECKSUMS))
        credentials = self._credentials.get_frozen_credentials()
        S3SigV4Auth(credentials, "s3", self._region).add_auth(request)
        return dict(request.headers)

    def entries(self, after: str = "") -> Iterator[SourceEntry | str]:
        """Yield the objects behind a key, in the bucket's order."""
        wanted: dict[str, Any] = {"Bucket": self._bucket, "Prefix": self._prefix}
        if after:
            wanted["StartAfter"] = after
        pages = self._client.get_paginator("list_objects_v2").paginate(**wanted)
        try:
            for page in pages:
                if not self._is_placed:
                    with self._place:
                        self._follow_region(page)
                for found in page.get("Contents", ()):
                    yield self._entry(found)
        except Exception as exc:  # as above
            raise ListingFailed(f"listing {_SCHEME}{self._bucket}/{self._prefix}: {exc}") from exc

    def resolve_origin(self) -> str:
        """Return the one origin of the objects.

        If neither the caller nor a listing has given the bucket's region, it is looked up first.
        """
        wanted = {"Bucket": self._bucket, "Prefix": self._prefix, "MaxKeys": 1}
        if not self._is_placed:
            with self._place:
                try:
                    if not self._is_placed:
                        self._follow_region(self._client.list_objects_v2(**wanted))
                except Exception as exc:  # as above
                    raise ListingFailed(f"finding {_SCHEME}{self._bucket}: {exc}") from exc
        return parse_http_url(self._base).origin

    def _follow_region(self, page: Mapping[str, Any]) -> None:
        """Use the bucket's region, to which botocore was redirected, for URLs and signatures."""
        headers = page["ResponseMetadata"].get("HTTPHeaders", {})
        region = headers.get("x-amz-bucket-region")
        if not self._endpoint and region and region != self._region:
            self._region = region
            self._open()
        self._is_placed = True

    def _entry(self, found: Mapping[str, Any]) -> SourceEntry | str:
        key, size = str(found["Key"]), int(found["Size"])
        if key.endswith("/") and not size:
            return key  # a folder, as some tools create them
        below = key[self._prefix.rfind("/") + 1 :]
        if not self._names.accepts(below):
            return key
        url = self._base + quote(key, safe="/~")
        etag = str(found.get("ETag", ""))
        try:
            name = self._rules.from_key(below)
        except NameRefused as exc:
            return SourceEntry(key, url, "", size=size, error=str(exc))
        original = "" if name == below else below
        return SourceEntry(key, url, name, size=size, etag=etag, original=original)
