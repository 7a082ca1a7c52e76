"""The paths of downloads; imported only where they are installed."""

from cacheapp import conf
from cacheapp.downloads.plan import MAX_TITLE_CHARS
from cacheapp.downloads.sources.request import MAX_PROBLEMS
from cacheapp.downloads.states import FileState, JobState, NotificationState
from cacheapp.openapi.parts import (
    BOOLEAN,
    COUNT,
    INTEGER,
    MOMENT,
    PID,
    STRING,
    Schema,
    in_path,
    list_of,
    nullable,
    operation,
    query,
    record,
    ref,
    success,
)
from cacheapp.views import paging, serializers

VIEW, ADD = "cacheapp_downloads.view_downloadjob", "cacheapp_downloads.add_downloadjob"
CHANGE = "cacheapp_downloads.change_downloadjob"
_JOB_ID = in_path("job_id", {"type": "string", "format": "uuid"}, "The id of the job.")
_NO_JOB = {404: "No job that the caller may see has this id."}
_DATABASE = {503: "The database or the broker is unavailable."}
_AFTER = query("after", STRING, "The cursor in `next` of the page before.")


def _job_fields() -> dict[str, Schema]:
    whole = ("files_total", "files_unchanged", "files_renamed", "files_done", "files_failed")
    return {
        "id": {"type": "string", "format": "uuid"},
        "title": nullable(STRING),
        "state": {"enum": [str(state) for state in JobState]},
        "error": STRING,
        **dict.fromkeys(("paused", "pause_requested", "cancel_requested"), BOOLEAN),
        "threads": COUNT,
        "created_by": nullable(STRING),
        "source": nullable(STRING),
        "include": list_of(STRING),
        "exclude": list_of(STRING),
        "portable_names": BOOLEAN,
        "limit_rate": nullable(COUNT),
        "parts": nullable(COUNT),
        **dict.fromkeys((*whole, "bytes_done"), COUNT),
        "bytes_total": nullable(COUNT),
        "rate_bps": {"type": ["number", "null"]},
        "eta_s": {"type": ["number", "null"]},
        "owner_pid": nullable(INTEGER),
        "owner_lost": BOOLEAN,
        "adoptions": COUNT,
        "generation": COUNT,
        "created_at": MOMENT,
        "started_at": nullable(MOMENT),
        "heartbeat_at": MOMENT,
        "finished_at": nullable(MOMENT),
    }


def schemas() -> dict[str, Schema]:
    """Return the schemas that these paths refer to."""
    job = {"pid": PID, **_job_fields()}
    named = {"url": STRING, "name": STRING}
    errors = list_of(record({**named, "error": STRING}), maxItems=serializers.MAX_ERRORS)
    renamed = list_of(record({**named, "original_name": STRING}), maxItems=serializers.MAX_RENAMED)
    return {
        "Job": record(job),
        "ListedJob": record(_job_fields()),
        "JobDetail": record(
            {
                **job,
                "live": {"type": ["object", "null"]},
                "webhook": {"anyOf": [ref("Webhook"), {"type": "null"}]},
                "errors": errors,
                "errors_left_out": COUNT,
                "renamed": renamed,
                "renamed_left_out": COUNT,
            }
        ),
        "Webhook": record(
            {
                "url": STRING,
                "state": {"enum": [*(str(state) for state in NotificationState), None]},
                "event_id": nullable(STRING),
                "tries": COUNT,
                "error": STRING,
                "next_try_at": nullable(MOMENT),
                "delivered_at": nullable(MOMENT),
            }
        ),
        "File": record(
            {
                "position": COUNT,
                "url": STRING,
                "name": STRING,
                "original_name": nullable(STRING),
                "state": {"enum": [str(state) for state in FileState]},
                "bytes_done": COUNT,
                "bytes_total": nullable(COUNT),
                "sha256": nullable(STRING),
                "tries": COUNT,
                "error": STRING,
                "generation": COUNT,
            }
        ),
        "Order": _order(),
    }


def _order() -> Schema:
    limits = conf.conf()
    urls = list_of(STRING, minItems=1, maxItems=limits.download_max_files)
    optional = {
        "urls": urls,
        "manifest": {**STRING, "description": "Lines of `url [checksum] [name]`."},
        "base_url": STRING,
        "s3": {**STRING, "pattern": "^s3://"},
        "include": list_of(STRING),
        "exclude": list_of(STRING),
        "threads": {"type": "integer", "minimum": 1, "maximum": limits.download_max_threads},
        "portable_names": BOOLEAN,
        "parts": {"type": "integer", "minimum": 1, "maximum": conf.MAX_PARTS},
        "limit_rate": {"type": ["integer", "string"]},
        "webhook": STRING,
        "title": {
            **STRING,
            "maxLength": MAX_TITLE_CHARS,
            "description": "One line for people; the pages make one from the source if it is absent.",
        },
    }
    return {
        **record(optional, optional=list(optional)),
        "oneOf": [{"required": [kind]} for kind in ("urls", "manifest", "s3")],
    }


def paths() -> dict[str, Schema]:
    """Return the paths below the one that `cacheapp.urls` is included at."""
    of_job = [_JOB_ID]
    return {
        "/api/downloads": {"get": _jobs(), "post": _create()},
        "/api/downloads/{job_id}": {"parameters": of_job, "get": _job(), "delete": _delete()},
        "/api/downloads/{job_id}/files": {"parameters": of_job, "get": _files()},
        "/api/downloads/{job_id}/events": {"parameters": of_job, "get": _events()},
        **{
            f"/api/downloads/{{job_id}}/{name}": {"parameters": of_job, "post": _action(name)}
            for name in ("pause", "resume", "cancel", "retry")
        },
    }


def _page(items: str, schema: Schema) -> Schema:
    return record({"pid": PID, items: list_of(schema), "next": nullable(STRING)})


def _limit(most: int, default: int) -> Schema:
    return query(
        "limit", {"type": "integer", "minimum": 1, "maximum": most}, f"Default: {default}."
    )


def _state(states: type[JobState | FileState]) -> Schema:
    return query("state", {"enum": [str(state) for state in states]}, "Only in this state.")


def _jobs() -> Schema:
    return operation(
        "listDownloads",
        "The newest jobs",
        VIEW,
        {200: success("A page.", _page("jobs", ref("ListedJob")))},
        errors={400: "A parameter is not valid.", **_DATABASE},
        parameters=[_limit(paging.MAX_JOBS, paging.DEFAULT_JOBS), _state(JobState), _AFTER],
    )


def _files() -> Schema:
    return operation(
        "listFiles",
        "The files of a job, in their order",
        VIEW,
        {200: success("A page.", _page("files", ref("File")))},
        errors={400: "A parameter is not valid.", **_NO_JOB, **_DATABASE},
        parameters=[_limit(paging.MAX_FILES, paging.DEFAULT_FILES), _state(FileState), _AFTER],
    )


def _create() -> Schema:
    key = {
        "name": "Idempotency-Key",
        "in": "header",
        "schema": {**STRING, "pattern": "^[!-~]{1,255}$"},
        "description": "The same key and body create one job, however often they are sent.",
    }
    location: Schema = {
        "headers": {"Location": {"schema": STRING, "description": "The job's address."}}
    }
    return operation(
        "createDownload",
        "Start a job",
        ADD,
        {
            202: success("The job is queued.", ref("Job"), **location),
            200: success("This key has created the job before.", ref("Job"), **location),
        },
        errors={
            400: f"Nothing was started; `problems` lists up to {MAX_PROBLEMS} mistakes",
            422: "The key was used for another order.",
            429: "Too much waits for this caller.",
            503: "Downloads, the database or the broker are unavailable.",
        },
        parameters=[key],
        body=ref("Order"),
    )


def _job() -> Schema:
    return operation(
        "readDownload",
        "A job, with the errors of its files",
        VIEW,
        {200: success("The job.", ref("JobDetail"))},
        errors={**_NO_JOB, **_DATABASE},
    )


def _delete() -> Schema:
    removed = record({"pid": PID, "id": STRING, "removed": BOOLEAN, "files_left": list_of(STRING)})
    return operation(
        "deleteDownload",
        "Cancel a job; with `files`, remove its record",
        VIEW,
        {
            200: success("It is cancelled, or removed.", {"anyOf": [ref("Job"), removed]}),
            202: success("It is being cancelled.", ref("Job")),
        },
        errors={
            400: "A parameter is not valid.",
            409: "Its state does not allow that.",
            **_NO_JOB,
            **_DATABASE,
        },
        parameters=[query("files", {"enum": ["keep", "delete"]}, "What happens to its files.")],
    )


def _action(name: str) -> Schema:
    errors = {409: "Its state does not allow that.", **_NO_JOB, **_DATABASE}
    parameters = []
    if name in {"resume", "retry"}:
        errors |= {400: "A parameter is not valid.", 429: "Too much waits for this caller."}
        parameters = [query("verify", {"enum": ["true", "false"]}, "Compare the files' digests.")]
    return operation(
        f"{name}Download",
        f"{name.capitalize()} a job",
        CHANGE,
        {
            200: success("Nothing had to change.", ref("Job")),
            202: success("It is being done.", ref("Job")),
        },
        errors=errors,
        parameters=parameters,
    )


def _events() -> Schema:
    return operation(
        "streamEvents",
        "Server-sent events: the job after each change",
        VIEW,
        {
            200: success("The stream.", STRING, "text/event-stream"),
            204: {"description": "The client has the last event."},
        },
        errors={
            400: "A parameter is not valid.",
            503: "No stream is free: poll, or try again after `Retry-After`.",
            **_NO_JOB,
        },
        parameters=[
            query("files", {"enum": ["0", "1"]}, "1: also the files that changed."),
            query("last_event_id", STRING, "As the header Last-Event-ID."),
        ],
    )
