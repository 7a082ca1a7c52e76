"""The paths with the data of pages."""

from cacheapp.openapi.parts import (
    BOOLEAN,
    COUNT,
    INTEGER,
    PID,
    STRING,
    Schema,
    list_of,
    nullable,
    operation,
    query,
    record,
    success,
)

_OBJECT: Schema = {"type": "object"}
_RUNNING = {**nullable(STRING), "description": "The experiment or check that runs now."}
_LAST_RUN = {**nullable(_OBJECT), "description": "The last run: its state, and how far it is."}


def paths() -> dict[str, Schema]:
    """Return the paths below the one that `cacheapp.urls` is included at."""
    return {
        "/api/overview": {"get": _overview()},
        "/api/machines": {"get": _machines()},
        "/api/check": {"get": _check()},
        "/api/lab": {"get": _lab()},
    }


def _overview() -> Schema:
    alias = record(
        {
            "alias": STRING,
            "backend": STRING,
            "verdict": {"enum": ["SHARED", "BROKEN", "DOWN", "OPEN"]},
            "why": list_of(STRING),
            "written": nullable(_OBJECT),
            "counted": nullable(_OBJECT),
            "reads": list_of(_OBJECT),
        }
    )
    worker = record(
        {"pid": INTEGER, "requests": nullable(COUNT), "uptime_s": nullable({"type": "number"})}
    )
    found = record(
        {
            "pid": PID,
            "workers": list_of(worker),
            "missing_workers": COUNT,
            "aliases": list_of(alias),
            "show": nullable(_OBJECT),
        }
    )
    return operation(
        "overview",
        "What every worker reads of every alias, and the last result of Show me",
        "cacheapp.use_demo",
        {200: success("What the front page shows.", found)},
        errors={503: "STATE_DIR cannot be used."},
    )


def _machine() -> Schema:
    return record(
        {
            "name": STRING,
            "value": {**nullable(STRING), "description": "What the machine reads."},
            "from_copy": {**BOOLEAN, "description": "Whether its copy served the read."},
            "listener_pid": {**COUNT, "description": "0 while no process listens for the copy."},
            "epoch": INTEGER,
            "confirmation_us": COUNT,
        }
    )


def _machines_write() -> Schema:
    number = {"type": "number"}
    delay = {**nullable(number), "description": "To the first read of the new value; null: none."}
    propagation = record(
        {
            "machine": STRING,
            "before": nullable(STRING),
            "from_copy": BOOLEAN,
            "old_reads": COUNT,
            "delay_ms": delay,
        }
    )
    return record(
        {
            "at_s": number,
            "writer": STRING,
            "value": STRING,
            "propagations": list_of(propagation),
        }
    )


def _machines() -> Schema:
    alias = {**nullable(STRING), "description": "Of the Redis; null if there is none to copy."}
    found = record(
        {
            "pid": PID,
            "alias": alias,
            "bound_s": {"type": "number"},
            "machines": list_of(_machine()),
            "in_redis": nullable(STRING),
            "last_write": nullable(_machines_write()),
        }
    )
    return operation(
        "machines",
        "What two machines with a copy of Redis read, and how the last write reached them",
        "cacheapp.use_demo",
        {200: success("What the page of two machines shows.", found)},
        errors={503: "Redis or STATE_DIR cannot be used, or the record of the last write."},
    )


def _check() -> Schema:
    report = {**nullable(_OBJECT), "description": "As from `cachecheck --json`, with drawings."}
    found = record({"pid": PID, "running": _RUNNING, "last_run": _LAST_RUN, "report": report})
    return operation(
        "check",
        "The last check that was started from a page",
        "cacheapp.run_check",
        {200: success("Its state and its report.", found)},
        errors={503: "STATE_DIR cannot be used."},
    )


def _lab() -> Schema:
    result = {**nullable(_OBJECT), "description": "As from `manage.py lab --json`."}
    experiment = record(
        {"name": STRING, "title": STRING, "claims": list_of(STRING), "result": result}
    )
    found = record(
        {"pid": PID, "running": _RUNNING, "last_run": _LAST_RUN, "experiments": list_of(experiment)}
    )
    return operation(
        "lab",
        "The claims of the lab, with their last results on this machine",
        "cacheapp.run_lab",
        {200: success("All experiments, or one.", found)},
        errors={400: "There is no such experiment.", 503: "STATE_DIR cannot be used."},
        parameters=[query("name", STRING, "Only this experiment.")],
    )
