"""The run of **Show me**: write, count, sign in and spend a token on every alias, and keep the result.

All of it happens now, in the workers of this site, with the operations that Django documents: `add`
and `incr`. The last result is a file in `STATE_DIR`, so that the page can show it before the next run.
"""

import dataclasses
import secrets
from dataclasses import dataclass
from typing import Any

from cacheapp import clock
from cacheapp.demo import overview, worker_rpc
from cacheapp.demo.namespace import aliases
from cacheapp.demo.overview import AliasRow, call_for_each
from cacheapp.demo.page_record import locked, read_record_or_none, write_json
from cacheapp.demo.worker_rpc import Reply, Request
from cacheapp.typed_values import read_dataclass

LOGIN_LIMIT = 5
_ATTEMPTS_PER_WORKER = 8
_CHANGE_S = 8.0
FILE = "show.json"


@dataclass(frozen=True)
class AliasResult:
    """What came out on one alias; `error` if the store did not do all of it."""

    alias: str
    workers: int
    seen_by: int
    """Workers that read what one of them wrote."""
    counted: int
    """Acknowledged increments."""
    lost: int
    """Of these, how many are missing in the highest number that a worker reads."""
    attempts: int
    """Attempts to sign in, where `LOGIN_LIMIT` are allowed."""
    let_through: int
    spent: int
    """How often a one-time token was accepted; each worker tried once."""
    error: str = ""

    @property
    def is_right(self) -> bool:
        """Whether the workers behaved as with one cache."""
        return (
            not self.error
            and self.lost == 0
            and self.seen_by == self.workers
            and self.let_through == LOGIN_LIMIT
            and self.spent == 1
        )


@dataclass(frozen=True)
class ShowResult:
    """The result on all aliases, and when."""

    at_s: float
    results: tuple[AliasResult, ...]


def run() -> ShowResult:
    """Run it on all aliases; runs of several visitors follow one another. Raises `StoreUnavailable`."""
    with locked("show", changing=True) as directory:
        overview.write()
        overview.increment()
        seen = overview.read()
        tried = _try_uses()
        results = tuple(_result(row, tried[row.alias]) for row in seen.rows if row.alias in tried)
        result = ShowResult(clock.wall_s(), results)
        write_json(directory / FILE, dataclasses.asdict(result))
    return result


def latest() -> ShowResult | None:
    """Return the result of the last run on this machine; `None` if there is none of this version."""
    return read_record_or_none(FILE, _parse)


def _parse(raw: Any) -> ShowResult:
    results = tuple(read_dataclass(AliasResult, one) for one in raw["results"])
    return read_dataclass(ShowResult, {**raw, "results": results})


def _try_uses() -> dict[str, list[Reply]]:
    """Try to sign in and to spend a token, in all workers at the same time, with new keys."""
    token = secrets.token_hex(4)

    def request(_alias: str, _number: int) -> Request:
        return {
            "do": "use",
            "login": f"_page-login-{token}",
            "token": f"_page-token-{token}",
            "limit": LOGIN_LIMIT,
            "times": _ATTEMPTS_PER_WORKER,
        }

    return call_for_each(aliases(), worker_rpc.workers(), request, _CHANGE_S)


def _result(row: AliasRow, tried: list[Reply]) -> AliasResult:
    bodies = [reply.body or {"error": "a worker did not answer in time"} for reply in tried]
    errors = [str(body["error"]) for body in bodies if "error" in body]
    written, counted = row.changes.written, row.changes.counted
    counts = [view.count for view in row.views if isinstance(view.count, int)]
    done = counted.done if counted else 0
    errors += [made.error for made in (written, counted) if made and made.error]
    if done and not counts:
        errors.append("the keys were removed during the run")
    return AliasResult(
        alias=row.alias,
        workers=len(row.views),
        seen_by=sum(view.value == written.value for view in row.views) if written else 0,
        counted=done,
        lost=max(0, done - max(counts, default=0)),
        attempts=_ATTEMPTS_PER_WORKER * len(tried),
        let_through=sum(body.get("passed", 0) for body in bodies),
        spent=sum(body.get("spent", 0) for body in bodies),
        error=errors[0] if errors else "",
    )
