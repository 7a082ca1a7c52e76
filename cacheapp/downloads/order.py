"""Reads what somebody asked to download, and says all that is wrong with it at once. Pure."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from cacheapp.downloads.guards import Guard, UrlRefused
from cacheapp.errors import CacheappError

DEFAULT_THREADS = 32
MAX_PROBLEMS = 100
"""Problems that are listed; more are counted."""


@dataclasses.dataclass(frozen=True)
class Order:
    """A download that may begin."""

    urls: tuple[str, ...]
    threads: int
    extra_origins: frozenset[str] = frozenset()


class OrderRefused(CacheappError):
    """The order is wrong; `problems` says how, each with what was found and what is expected."""

    def __init__(self, problems: list[dict[str, Any]]) -> None:
        count = len(problems)
        super().__init__(f"{count} thing{'s' * (count > 1)} wrong; nothing was started")
        self.problems = problems[:MAX_PROBLEMS]
        self.problems_total = count


def read_order(
    body: Mapping[str, Any],
    *,
    origins: frozenset[str],
    extra_origins: frozenset[str],
    max_files: int,
    max_threads: int,
) -> Order:
    """Return the order in a JSON body; raise `OrderRefused` with everything that is wrong."""
    problems: list[dict[str, Any]] = [
        {"field": name, "error": "not a field; expected urls, threads"}
        for name in body
        if name not in {"urls", "threads"}
    ]
    threads = body.get("threads", min(DEFAULT_THREADS, max_threads))
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= max_threads:
        expected = f"expected a whole number from 1 to {max_threads}"
        problems.append({"field": "threads", "error": f"is {threads!r:.100}; {expected}"})
    urls = body.get("urls")
    if not isinstance(urls, list) or not 1 <= len(urls) <= max_files:
        found = f"has {len(urls)}" if isinstance(urls, list) else f"is {urls!r:.100}"
        expected = f"expected a list of 1 to {max_files} URLs"
        problems.append({"field": "urls", "error": f"{found}; {expected}"})
    else:
        problems += _wrong_urls(urls, Guard(origins | extra_origins))
    if problems:
        raise OrderRefused(problems)
    assert isinstance(urls, list)  # noqa: S101 (for the type checker: anything else is a problem)
    return Order(tuple(urls), threads, extra_origins)


def _wrong_urls(urls: list[Any], guard: Guard) -> list[dict[str, Any]]:
    problems = []
    first: dict[str, int] = {}
    for position, url in enumerate(urls):
        try:
            if not isinstance(url, str):
                raise UrlRefused(f"is {url!r:.100}; expected a string")  # noqa: TRY301
            guard.admit(url)
            if url in first:
                raise UrlRefused(f"is urls[{first[url]}] again; expected each URL once")  # noqa: TRY301
        except UrlRefused as exc:
            shown = url[:200] if isinstance(url, str) else repr(url)[:200]
            problems.append({"field": f"urls[{position}]", "url": shown, "error": str(exc)})
        else:
            first[url] = position
    return problems
