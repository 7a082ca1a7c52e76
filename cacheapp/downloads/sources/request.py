"""Reads what somebody asked to download, and says all that is wrong with it at once. Pure."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from cacheapp.access_settings import AllowedBucket
from cacheapp.downloads.http.url_policy import UrlPolicy, UrlRefused
from cacheapp.downloads.sources.base import SourceRefused, read_line
from cacheapp.downloads.storage.filenames import folder_conflicts, number_duplicates
from cacheapp.errors import CacheappError

DEFAULT_THREADS = 32
MAX_PROBLEMS = 100
"""Problems that are listed; more are counted."""

_BUCKET = re.compile(r"s3://([a-zA-Z0-9][a-zA-Z0-9._-]+)(?:/([!-~]{0,3072}))?")


@dataclasses.dataclass(frozen=True)
class DownloadRequest:
    """A download that may begin."""

    urls: tuple[str, ...]
    threads: int
    extra_origins: frozenset[str] = frozenset()
    names: tuple[str, ...] = ()
    """Wished for each URL, safe but not unique; empty: the URLs' last segments."""
    checksums: tuple[str, ...] = ()
    """A SHA-256 for each URL, or empty text; empty: none is known."""
    source: str = ""
    """A bucket's prefix whose files are still to be listed."""


class RequestRefused(CacheappError):
    """The order is wrong; `problems` says how, each with what was found and what is expected."""

    def __init__(self, problems: list[dict[str, Any]]) -> None:
        count = len(problems)
        super().__init__(f"{count} thing{'s' * (count > 1)} wrong; nothing was started")
        self.problems = problems[:MAX_PROBLEMS]
        self.problems_total = count


@dataclasses.dataclass(frozen=True)
class RequestLimits:
    """What somebody may order over HTTP."""

    origins: frozenset[str]
    extra_origins: frozenset[str] = frozenset()
    buckets: tuple[AllowedBucket, ...] = ()
    max_files: int = 10_000
    max_threads: int = 200


def parse_request(body: Mapping[str, Any], allowed: RequestLimits) -> DownloadRequest:
    """Return the order in a JSON body; raise `RequestRefused` with everything that is wrong."""
    known = ", ".join([*_KINDS, "threads"])
    problems: list[dict[str, Any]] = [
        {"field": name, "error": f"not a field; expected {known}"}
        for name in body
        if name not in {*_KINDS, "threads"}
    ]
    highest = allowed.max_threads
    threads = body.get("threads", min(DEFAULT_THREADS, highest))
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= highest:
        expected = f"expected a whole number from 1 to {highest}"
        problems.append({"field": "threads", "error": f"is {threads!r:.100}; {expected}"})
    named = [kind for kind in _KINDS if kind in body]
    request = DownloadRequest((), 1)
    if len(named) > 1:
        problems.append({"field": named[1], "error": f"stands beside {named[0]}; expected one"})
    else:
        kind = named[0] if named else "urls"
        request, found_problems = _KINDS[kind](body.get(kind), allowed)
        problems += found_problems
    if problems:
        raise RequestRefused(problems)
    return dataclasses.replace(request, threads=threads, extra_origins=allowed.extra_origins)


Problems = list[dict[str, Any]]


def _urls(urls: Any, allowed: RequestLimits) -> tuple[DownloadRequest, Problems]:
    if not isinstance(urls, list) or not 1 <= len(urls) <= allowed.max_files:
        found = f"has {len(urls)}" if isinstance(urls, list) else f"is {urls!r:.100}"
        expected = f"expected a list of 1 to {allowed.max_files} URLs"
        return DownloadRequest((), 1), [{"field": "urls", "error": f"{found}; {expected}"}]
    problems = _wrong_urls(urls, UrlPolicy(allowed.origins | allowed.extra_origins))
    return DownloadRequest(() if problems else tuple(urls), 1), problems


def _manifest(text: Any, allowed: RequestLimits) -> tuple[DownloadRequest, Problems]:
    if not isinstance(text, str):
        expected = "expected lines: url [sha256] [name]"
        return DownloadRequest((), 1), [
            {"field": "manifest", "error": f"is {text!r:.100}; {expected}"}
        ]
    policy = UrlPolicy(allowed.origins | allowed.extra_origins)
    problems: Problems = []
    entries = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            if (entry := read_line(str(number), line.strip())) is not None:
                policy.check_url(entry.url)
                entries.append(entry)
        except (SourceRefused, UrlRefused) as exc:
            problems.append({"field": f"manifest line {number}", "error": str(exc)})
    count = len(entries) + len(problems)
    if not 1 <= count <= allowed.max_files:
        expected = f"expected 1 to {allowed.max_files} lines with a URL"
        problems = [{"field": "manifest", "error": f"has {count}; {expected}"}]
    else:
        reasons = folder_conflicts(number_duplicates(it.name for it in entries))
        problems += [
            {"field": f"manifest line {entry.cursor}", "error": reason}
            for entry, reason in zip(entries, reasons, strict=True)
            if reason
        ]
    urls, names, checksums = (
        [getattr(it, part) for it in entries] for part in ("url", "name", "sha256")
    )
    return DownloadRequest(tuple(urls), 1, names=tuple(names), checksums=tuple(checksums)), problems


def _s3(text: Any, allowed: RequestLimits) -> tuple[DownloadRequest, Problems]:
    try:
        find_allowed_bucket(text, allowed.buckets)
    except SourceRefused as exc:
        return DownloadRequest((), 1), [{"field": "s3", "error": str(exc)}]
    return DownloadRequest((), 1, source=text), []


_KINDS: dict[str, Callable[[Any, RequestLimits], tuple[DownloadRequest, Problems]]] = {
    "urls": _urls,
    "manifest": _manifest,
    "s3": _s3,
}


def find_allowed_bucket(text: Any, buckets: Iterable[AllowedBucket]) -> AllowedBucket:
    """Return the entry of the setting that lets in `s3://bucket/prefix`; else `SourceRefused`.

    Only the setting says where a bucket is and who asks: whoever orders names neither an endpoint
    nor credentials, and gets to see with the server's what the setting lets everybody see.
    """
    found = _BUCKET.fullmatch(text) if isinstance(text, str) else None
    if found is None or set(text) & set("?#"):
        expected = "s3://bucket/prefix, percent-encoded where it has other than visible ASCII"
        raise SourceRefused(f"is {text!r:.200}; expected {expected}")
    name, prefix = found[1], unquote(found[2] or "")
    for bucket in buckets:
        if name == bucket.name and prefix.startswith(bucket.prefix):
            return bucket
    allowed = ", ".join(f"s3://{it.name}/{it.prefix}" for it in buckets)
    known = allowed or "none (CACHEAPP['DOWNLOAD_BUCKETS'])"
    raise SourceRefused(f"{text[:200]} is not allowed; allowed: {known}")


def _wrong_urls(urls: list[Any], policy: UrlPolicy) -> list[dict[str, Any]]:
    problems = []
    first: dict[str, int] = {}
    for position, url in enumerate(urls):
        try:
            if not isinstance(url, str):
                raise UrlRefused(f"is {url!r:.100}; expected a string")  # noqa: TRY301
            policy.check_url(url)
            if url in first:
                raise UrlRefused(f"is urls[{first[url]}] again; expected each URL once")  # noqa: TRY301
        except UrlRefused as exc:
            shown = url[:200] if isinstance(url, str) else repr(url)[:200]
            problems.append({"field": f"urls[{position}]", "url": shown, "error": str(exc)})
        else:
            first[url] = position
    return problems
