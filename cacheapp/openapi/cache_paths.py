"""The paths of caches, statistics and the demo."""

from collections.abc import Sequence

from cacheapp.openapi.parts import (
    ANY,
    BOOLEAN,
    COUNT,
    PID,
    STRING,
    Schema,
    in_path,
    nullable,
    operation,
    query,
    record,
    ref,
    success,
)
from cacheapp.views import origin
from cacheapp.views.cache_entry import KEY_PATTERN
from cacheapp.views.fields import EXACT_IN_JSON, MAX_TIMEOUT_S

DEMO, STATS = "cacheapp.use_demo", "cacheapp.view_stats"
_TIMEOUT: Schema = {
    "type": ["number", "null"],
    "minimum": 0,
    "maximum": MAX_TIMEOUT_S,
    "description": "Seconds; 0: do not store; null: no deadline. Default: that of the alias.",
}
_EXACT: Schema = {"type": "integer", "minimum": -EXACT_IN_JSON, "maximum": EXACT_IN_JSON}
_STORE_ERRORS = {
    404: "CACHES has no such alias.",
    503: "The store does not respond; `outcome` is fail if nothing happened, info if it may have.",
}


def schemas() -> dict[str, Schema]:
    """Return the schemas that these paths refer to."""
    entry = {
        "pid": PID,
        "alias": STRING,
        "key": STRING,
        "value": ANY,
        "hit": {**nullable(BOOLEAN), "description": "Whether the key was there; null if unknown."},
    }
    return {
        "Entry": record(entry),
        "Added": record({**entry, "added": BOOLEAN}),
        "Removed": record({**entry, "removed": COUNT}),
    }


def paths(aliases: Sequence[str]) -> dict[str, Schema]:
    """Return the paths below the one that `cacheapp.urls` is included at."""
    return {
        "/api/": {"get": _index()},
        "/api/worker": {"get": _worker()},
        "/api/stats": {"get": _stats()},
        "/api/cache/{alias}": {"parameters": [_alias(aliases)], "delete": _clear()},
        "/api/cache/{alias}/{key}": {
            "parameters": [_alias(aliases), _key()],
            "get": _entry("readKey", "Read a key", write=False),
            "put": _entry("storeKey", "Store a value", _value_body()),
            "delete": _entry("deleteKey", "Remove a key"),
        },
        **_key_action(
            "incr", "Add to a number", aliases, record(_INCR, optional=list(_INCR)), optional=True
        ),
        **_key_action("add", "Store a value if the key is missing", aliases, _value_body()),
        **_key_action(
            "touch",
            "Give a key a new timeout",
            aliases,
            record({"timeout": _TIMEOUT}, optional=["timeout"]),
            optional=True,
        ),
        "/api/demo/file/{number}": {"get": _file()},
    }


_INCR = {"delta": _EXACT, "initial": _EXACT, "timeout": _TIMEOUT}


def _value_body() -> Schema:
    return record({"value": ANY, "timeout": _TIMEOUT}, optional=["timeout"])


def _alias(aliases: Sequence[str]) -> Schema:
    return in_path("alias", {**STRING, "examples": list(aliases)}, "A name in CACHES.")


def _key() -> Schema:
    return in_path("key", {**STRING, "pattern": f"^{KEY_PATTERN}$"}, "A key of the demo.")


def _index() -> Schema:
    texts: Schema = {"type": "object", "additionalProperties": STRING}
    found = record({"pid": PID, "endpoints": texts, "aliases": texts})
    return operation("index", "All endpoints and aliases", None, {200: success("Both.", found)})


def _worker() -> Schema:
    found = record({"pid": PID, "threads": COUNT, "uptime_s": {"type": "number"}})
    return operation(
        "worker", "The worker that responds", DEMO, {200: success("Its figures.", found)}
    )


def _stats() -> Schema:
    counts: Schema = {"type": "object", "additionalProperties": {"type": ["integer", "string"]}}
    aliases: Schema = {"type": "object", "additionalProperties": counts}
    found = record({"pid": PID, "downloads": counts, "aliases": aliases}, optional=["downloads"])
    return operation(
        "stats",
        "Counters of caches and downloads, over all workers of this machine",
        STATS,
        {200: success("The counters.", found)},
        errors={503: "The database is unavailable."},
    )


def _entry(name: str, summary: str, body: Schema | None = None, *, write: bool = True) -> Schema:
    errors = {**_STORE_ERRORS, 400: "The key is not valid"}
    if write:
        errors[507] = "The store is full."
    responses = {200: success("The entry.", ref("Entry"))}
    return operation(name, summary, DEMO, responses, errors=errors, body=body)


def _key_action(
    name: str, summary: str, aliases: Sequence[str], body: Schema, *, optional: bool = False
) -> dict[str, Schema]:
    errors = {**_STORE_ERRORS, 400: "The key is not valid", 507: "The store is full."}
    if name == "incr":
        errors |= {404: "No such alias or key.", 409: "The value is not a number."}
    found = operation(
        name,
        summary,
        DEMO,
        {200: success("The entry.", ref("Added" if name == "add" else "Entry"))},
        errors=errors,
        body=body,
        body_required=not optional,
    )
    return {
        f"/api/cache/{{alias}}/{{key}}/{name}": {
            "parameters": [_alias(aliases), _key()],
            "post": found,
        }
    }


def _clear() -> Schema:
    return operation(
        "clearAlias",
        "Remove the keys of the demo",
        DEMO,
        {200: success("How many were removed.", ref("Removed"))},
        errors={**_STORE_ERRORS, 501: "They cannot be distinguished from other keys."},
    )


def _file() -> Schema:
    return operation(
        "demoFile",
        "A file to download; to programs on this machine, while the demo is on",
        None,
        {200: success("Its bytes.", {}, "application/octet-stream")},
        errors={400: "A parameter is out of range.", 404: "The demo is off."},
        parameters=[
            in_path(
                "number", {"type": "integer", "minimum": 0, "maximum": origin.MAX_NUMBER}, "Any."
            ),
            query("bytes", {"type": "integer", "minimum": 0, "maximum": origin.MAX_BYTES}, "Size."),
            query(
                "delay_ms",
                {"type": "integer", "minimum": 0, "maximum": origin.MAX_DELAY_MS},
                "Milliseconds to wait first.",
            ),
        ],
    )
