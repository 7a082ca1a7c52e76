"""Validates the JSON body of a download request and reports all its mistakes at once. Pure."""

import dataclasses
import io
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from cacheapp.access_settings import AllowedBucket, AllowedWebhook
from cacheapp.downloads.http.url_policy import UrlPolicy, UrlRefused
from cacheapp.downloads.http.webhooks import find_webhook
from cacheapp.downloads.plan import MAX_TITLE_CHARS
from cacheapp.downloads.sources.base import SourceEntry, SourceRefused
from cacheapp.downloads.sources.manifest import FORMS, ManifestFormat, numbered_lines
from cacheapp.downloads.sources.name_filter import ALL_NAMES, NameFilter
from cacheapp.downloads.storage.filenames import NameRefused, NameRules
from cacheapp.errors import CacheappError
from cacheapp.typed_values import (
    anything,
    boolean,
    byte_rate,
    line_of_text,
    list_of_str,
    read_values,
    show,
    text,
    whole_number,
)

DEFAULT_THREADS = 32
MAX_PROBLEMS = 100
"""Number of problems listed; further ones are only counted."""

_GLOBS = ("include", "exclude")
_BUCKET = re.compile(r"s3://([a-zA-Z0-9][a-zA-Z0-9._-]+)(?:/([!-~]{0,3072}))?")


@dataclasses.dataclass(frozen=True)
class DownloadRequest:
    """A valid request for a download."""

    urls: tuple[str, ...]
    threads: int
    extra_origins: frozenset[str] = frozenset()
    names: tuple[str, ...] = ()
    """Wanted name for each URL, not unique; empty: named by the URLs' last segments."""
    originals: tuple[str, ...] = ()
    """For each of `names`, the name in the request if it was changed, or ""."""
    checksums: tuple[str, ...] = ()
    """A checksum (`checksums.read_checksum`) or "" for each URL; empty: none is known."""
    portable_names: bool = False
    """Whether names are changed to be valid on all systems."""
    limit_rate: int | None = None
    parts: int | None = None
    """Limit of bytes per second, or `None`."""
    source: str = ""
    """The bucket prefix to list the files of; empty for a list of URLs."""
    names_wanted: NameFilter = ALL_NAMES
    """Which files of the bucket prefix are fetched."""
    webhook: str = ""
    """The URL that is notified of the job's end; empty: none."""
    title: str = ""
    """For people; empty: made from the source."""


class RequestRefused(CacheappError):
    """The request is invalid; `problems` lists what was found and what was expected."""

    def __init__(self, problems: list[dict[str, Any]]) -> None:
        count = len(problems)
        super().__init__(f"{count} invalid value{'s' * (count > 1)}; nothing was started")
        self.problems = problems[:MAX_PROBLEMS]
        self.problems_total = count


@dataclasses.dataclass(frozen=True)
class RequestLimits:
    """What may be requested over HTTP."""

    origins: frozenset[str]
    extra_origins: frozenset[str] = frozenset()
    buckets: tuple[AllowedBucket, ...] = ()
    webhooks: tuple[AllowedWebhook, ...] = ()
    max_files: int = 10_000
    max_threads: int = 200
    max_parts: int = 64


def parse_request(body: Mapping[str, Any], allowed: RequestLimits) -> DownloadRequest:
    """Return the request in a JSON body; raise `RequestRefused` with all its problems."""
    readers = {
        **dict.fromkeys([*_KINDS, "base_url"], anything),
        "threads": whole_number(1, allowed.max_threads),
        "portable_names": boolean,
        **dict.fromkeys(_GLOBS, list_of_str),
        "webhook": text,
        "title": line_of_text(MAX_TITLE_CHARS),
        "limit_rate": byte_rate,
        "parts": whole_number(1, allowed.max_parts),
    }
    values, mistakes = read_values(body, readers, "a field")
    problems: list[dict[str, Any]] = [{"field": it.name, "error": it.error} for it in mistakes]
    threads = values.get("threads", min(DEFAULT_THREADS, allowed.max_threads))
    rules = NameRules(portable=bool(values.get("portable_names")))
    named = [kind for kind in _KINDS if kind in body]
    request = DownloadRequest((), 1)
    if "base_url" in body and named != ["manifest"]:
        problems.append({"field": "base_url", "error": "given without manifest; expected both"})
    if len(named) > 1:
        problems.append(
            {"field": named[1], "error": f"given together with {named[0]}; expected one of them"}
        )
    else:
        kind = named[0] if named else "urls"
        request, found_problems = _KINDS[kind](body, allowed, rules)
        problems += found_problems
    if "s3" not in body:
        error = "given without s3; expected both"
        problems += [{"field": name, "error": error} for name in _GLOBS if name in values]
    names_wanted = _read_globs(values, problems)
    if "webhook" in values:
        _check_webhook(values["webhook"], allowed, problems)
    if problems:
        raise RequestRefused(problems)
    return dataclasses.replace(
        request,
        webhook=values.get("webhook", ""),
        title=values.get("title", ""),
        names_wanted=names_wanted,
        threads=threads,
        extra_origins=allowed.extra_origins,
        portable_names=rules.portable,
        limit_rate=values.get("limit_rate"),
        parts=values.get("parts"),
    )


Problems = list[dict[str, Any]]
_Body = Mapping[str, Any]


def _read_globs(values: Mapping[str, Any], problems: Problems) -> NameFilter:
    try:
        return NameFilter.of(*(values.get(name, ()) for name in _GLOBS))
    except SourceRefused as exc:
        problems.append({"field": _GLOBS[0], "error": str(exc)})
        return ALL_NAMES


def _check_webhook(webhook: str, allowed: RequestLimits, problems: Problems) -> None:
    try:
        find_webhook(webhook, allowed.webhooks)
    except UrlRefused as exc:
        problems.append({"field": "webhook", "error": str(exc)})


def _urls(
    body: _Body, allowed: RequestLimits, rules: NameRules
) -> tuple[DownloadRequest, Problems]:
    urls = body.get("urls")
    if not isinstance(urls, list) or not 1 <= len(urls) <= allowed.max_files:
        found = f"has {len(urls)}" if isinstance(urls, list) else f"is {show(urls)}"
        expected = f"expected a list of 1 to {allowed.max_files} URLs"
        return DownloadRequest((), 1), [{"field": "urls", "error": f"{found}; {expected}"}]
    problems = _wrong_urls(urls, UrlPolicy(allowed.origins | allowed.extra_origins), rules)
    return DownloadRequest(() if problems else tuple(urls), 1), problems


def _manifest(
    body: _Body, allowed: RequestLimits, rules: NameRules
) -> tuple[DownloadRequest, Problems]:
    text, base_url = body["manifest"], body.get("base_url", "")
    if not isinstance(text, str):
        error = f"is {show(text)}; expected {FORMS}"
        return DownloadRequest((), 1), [{"field": "manifest", "error": error}]
    if not isinstance(base_url, str):
        error = f"is {show(base_url)}; expected a URL"
        return DownloadRequest((), 1), [{"field": "base_url", "error": error}]
    try:
        form = ManifestFormat(rules, base_url)
    except SourceRefused as exc:
        return DownloadRequest((), 1), [{"field": "base_url", "error": str(exc)}]
    entries, problems = _entries(text, form, UrlPolicy(allowed.origins | allowed.extra_origins))
    count = len(entries) + len(problems)
    if not 1 <= count <= allowed.max_files:
        expected = f"expected 1 to {allowed.max_files} lines with a URL"
        problems = [{"field": "manifest", "error": f"has {count}; {expected}"}]
    else:
        reasons = rules.folder_conflicts(rules.number_duplicates(it.name for it in entries))
        problems += [
            {"field": f"manifest line {entry.cursor}", "error": reason}
            for entry, reason in zip(entries, reasons, strict=True)
            if reason
        ]
    request = DownloadRequest(
        urls=tuple(it.url for it in entries),
        threads=1,
        names=tuple(it.name for it in entries),
        originals=tuple(it.original for it in entries),
        checksums=tuple(it.checksum for it in entries),
    )
    return request, problems


def _entries(
    text: str, form: ManifestFormat, policy: UrlPolicy
) -> tuple[list[SourceEntry], Problems]:
    """Return the files of a manifest's lines, and the problems of its invalid lines."""
    entries: list[SourceEntry] = []
    problems: Problems = []
    lines = io.BytesIO(text.encode(errors="replace"))  # half of a surrogate pair becomes "?"
    for number, line in numbered_lines(lines):
        try:
            if (entry := form.read(str(number), line)) is not None:
                policy.check_url(entry.url)
                entries.append(entry)
        except (SourceRefused, UrlRefused) as exc:
            problems.append({"field": f"manifest line {number}", "error": str(exc)})
    return entries, problems


def _s3(body: _Body, allowed: RequestLimits, _rules: NameRules) -> tuple[DownloadRequest, Problems]:
    text = body["s3"]
    try:
        find_allowed_bucket(text, allowed.buckets)
    except SourceRefused as exc:
        return DownloadRequest((), 1), [{"field": "s3", "error": str(exc)}]
    return DownloadRequest((), 1, source=text), []


_KINDS: dict[str, Callable[[_Body, RequestLimits, NameRules], tuple[DownloadRequest, Problems]]] = {
    "urls": _urls,
    "manifest": _manifest,
    "s3": _s3,
}


def find_allowed_bucket(text: Any, buckets: Iterable[AllowedBucket]) -> AllowedBucket:
    """Return the setting that allows `s3://bucket/prefix`; otherwise raise `SourceRefused`.

    Endpoint and credentials come from the setting only, never from the client, which can read
    exactly what the setting opens to every client.
    """
    found = _BUCKET.fullmatch(text) if isinstance(text, str) else None
    if found is None or set(text) & set("?#"):
        expected = "s3://bucket/prefix, with all but visible ASCII percent-encoded"
        raise SourceRefused(f"is {show(text)}; expected {expected}")
    name, prefix = found[1], unquote(found[2] or "")
    for bucket in buckets:
        if name == bucket.name and prefix.startswith(bucket.prefix):
            return bucket
    allowed = ", ".join(f"s3://{it.name}/{it.prefix}" for it in buckets)
    known = allowed or "none (CACHEAPP['DOWNLOAD_BUCKETS'])"
    raise SourceRefused(f"{text[:200]} is not allowed; allowed: {known}")


def _wrong_urls(urls: list[Any], policy: UrlPolicy, rules: NameRules) -> list[dict[str, Any]]:
    problems = []
    first: dict[str, int] = {}
    for position, url in enumerate(urls):
        try:
            if not isinstance(url, str):
                raise UrlRefused(f"is {show(url)}; expected a string")  # noqa: TRY301
            policy.check_url(url)
            rules.from_url(url)
            if url in first:
                raise UrlRefused(f"repeats urls[{first[url]}]; expected each URL once")  # noqa: TRY301
        except (UrlRefused, NameRefused) as exc:
            shown = url[:200] if isinstance(url, str) else repr(url)[:200]
            problems.append({"field": f"urls[{position}]", "url": shown, "error": str(exc)})
        else:
            first[url] = position
    return problems
