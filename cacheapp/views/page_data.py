"""The data of the front page, of the two machines and of the check page, as JSON."""

import contextlib
import dataclasses
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from cacheapp.cachecheck import run_record
from cacheapp.demo import machines, overview, show, worker_agent
from cacheapp.demo.overview import AliasRow
from cacheapp.errors import CacheappError
from cacheapp.processes import exclusive_run
from cacheapp.views.access import permission_required
from cacheapp.views.responses import ApiError, allow_methods, json_response


@contextlib.contextmanager
def store_errors() -> Iterator[None]:
    """Respond with 503 if `STATE_DIR`, a record or a store cannot be used."""
    try:
        yield
    except CacheappError as exc:
        raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, str(exc)) from exc


@permission_required("cacheapp.use_demo")
@allow_methods("GET")
def caches(_request: HttpRequest) -> HttpResponseBase:
    """Return what every worker reads of every alias, and the last result of Show me."""
    with store_errors():
        worker_agent.start()
        seen = overview.read()
        shown = show.latest()
    return json_response(
        HTTPStatus.OK,
        workers=[dataclasses.asdict(tile) for tile in seen.tiles],
        missing_workers=seen.missing,
        aliases=[_alias(row) for row in seen.rows],
        show=dataclasses.asdict(shown) if shown else None,
    )


def _alias(row: AliasRow) -> dict[str, Any]:
    written, counted = row.changes.written, row.changes.counted
    return {
        "alias": row.alias,
        "backend": row.backend,
        "verdict": row.judged.verdict,
        "why": row.judged.why,
        "written": dataclasses.asdict(written) if written else None,
        "counted": dataclasses.asdict(counted) if counted else None,
        "reads": [dataclasses.asdict(view) for view in row.views],
    }


@permission_required("cacheapp.use_demo")
@allow_methods("GET")
def two_machines(_request: HttpRequest) -> HttpResponseBase:
    """Return what both machines read now, and the last write on one of them."""
    alias = machines.source()
    with store_errors():
        snapshot = machines.read(alias) if alias else None
        observed = machines.last_write() if alias else None
    return json_response(
        HTTPStatus.OK,
        alias=alias,
        bound_s=machines.BOUND_S,
        machines=[dataclasses.asdict(one) for one in snapshot.machines] if snapshot else [],
        in_redis=snapshot.in_redis if snapshot else None,
        last_write=dataclasses.asdict(observed) if observed else None,
    )


@permission_required("cacheapp.run_check")
@allow_methods("GET")
def check(_request: HttpRequest) -> HttpResponseBase:
    """Return the last check from a page: its state, and its report as from `cachecheck --json`."""
    with store_errors():
        status, holder = run_record.status(), exclusive_run.holder()
        report = run_record.report()
    return json_response(
        HTTPStatus.OK,
        running=holder.name if holder else None,
        last_run=dataclasses.asdict(status) if status else None,
        report=report,
    )
