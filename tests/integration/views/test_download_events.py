"""Event streams of jobs that no thread runs; tests/system has those of running jobs."""

import contextlib
import hashlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.test import AsyncClient, Client
from pytest_django.fixtures import Settings

from cacheapp.downloads.jobs import repository
from cacheapp.downloads.jobs.actors import CODE, Actor
from cacheapp.downloads.jobs.models import DownloadFile, DownloadJob
from cacheapp.downloads.jobs.ownership import JobOwner
from cacheapp.downloads.sources.request import DownloadRequest

pytestmark = pytest.mark.django_db(transaction=True)  # the end of a response closes the connection

URL = "https://files.example.com/a"
OWNER = JobOwner(uuid.uuid4(), 4711)


@pytest.fixture(autouse=True)
def _site(settings: Settings, tmp_path: Path) -> None:
    settings.ALLOWED_HOSTS = ["localhost"]
    settings.SECURE_SSL_REDIRECT = False
    settings.STATIC_ROOT = tmp_path  # WhiteNoise warns about a missing directory
    changed = {"DEMO": True, "DOWNLOAD_STREAMS": 2, "DOWNLOAD_STREAM_S": 0.001}
    settings.CACHEAPP = {**settings.CACHEAPP, **changed, "DOWNLOAD_HEARTBEAT_S": 1000.0}


@pytest.fixture
def client() -> Client:
    return Client(HTTP_HOST="localhost:8000", REMOTE_ADDR="127.0.0.1")


def job_of(files: int, state: str = "succeeded", creator: Actor = CODE) -> DownloadJob:
    order = DownloadRequest(tuple(f"{URL}{n}" for n in range(files)), threads=1)
    job = repository.create(order, OWNER, creator)
    job.files.update(state=state, generation=5)
    DownloadJob.objects.filter(id=job.id).update(state=state, generation=7)
    job.refresh_from_db()
    return job


def read(text: bytes) -> list[tuple[str | None, str, dict[str, Any]]]:
    """Return id, name and data of each event."""
    found = []
    for block in text.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line[0] != ":")
        if "event" in fields:
            found.append((fields.get("id"), fields["event"], json.loads(fields["data"])))
    return found


def told(client: Client, job: DownloadJob, query: str = "", **headers: str) -> Any:
    path = f"/api/downloads/{job.id}/events{query}"
    response = client.get(path, headers=headers)
    assert response.status_code == 200
    assert response["Content-Type"] == "text/event-stream"
    assert response["Cache-Control"] == "no-store"
    content = b"".join(response)
    response.close()
    return content


def test_a_finished_job_is_told_and_its_stream_ends(client: Client) -> None:
    job = job_of(2)
    content = told(client, job)
    assert content.startswith(b"retry: 1000\n\n")
    (first, last) = read(content)
    assert first[:2] == ("7", "job")
    assert (first[2]["id"], first[2]["files_total"]) == (str(job.id), 2)
    assert last[:2] == ("7", "end")
    assert last[2]["state"] == "succeeded"


@pytest.mark.parametrize("how", ["header", "query"])
def test_who_has_seen_the_end_is_told_not_to_come_back(how: str, client: Client) -> None:
    path = f"/api/downloads/{job_of(1).id}/events"
    if how == "header":
        answer = client.get(path, headers={"Last-Event-ID": "7"})
    else:
        answer = client.get(path, {"last_event_id": "7"})
    assert (answer.status_code, answer.content) == (204, b"")


def test_who_has_seen_less_is_told_the_rest(client: Client) -> None:
    content = told(client, job_of(1), **{"Last-Event-ID": "6"})
    assert [name for _number, name, _data in read(content)] == ["job", "end"]


def test_an_unfinished_job_is_told_for_a_time_only(client: Client) -> None:
    job = job_of(1, "running")
    assert [name for _number, name, _data in read(told(client, job))] == ["job"]
    assert read(told(client, job, **{"Last-Event-ID": "7"})) == []


def test_files_are_told_where_asked_for_those_that_changed_since(client: Client) -> None:
    job = job_of(250)
    DownloadFile.objects.filter(job=job, position__lt=210).update(generation=6)
    content = read(told(client, job, "?files=1", **{"Last-Event-ID": "5"}))
    assert [(number, name) for number, name, _data in content] == [
        *((None, "files"), (None, "files"), (None, "files"), ("7", "job"), ("7", "end"))
    ]
    files = [file for _number, name, data in content if name == "files" for file in data["files"]]
    assert [file["position"] for file in files] == list(range(210))


def test_what_changes_after_the_job_was_read_is_left_to_the_next_event(client: Client) -> None:
    job = job_of(2)
    DownloadFile.objects.filter(job=job, position=1).update(generation=8)
    content = read(told(client, job, "?files=1"))
    assert [file["position"] for file in content[0][2]["files"]] == [0]


def test_an_owner_that_is_lost_is_told_though_the_job_has_not_changed(client: Client) -> None:
    job = job_of(1, "running")
    DownloadJob.objects.update(heartbeat_at="2026-01-01T00:00:00Z")
    (told_now,) = read(told(client, job, **{"Last-Event-ID": "7"}))
    assert (told_now[0], told_now[2]["owner_lost"]) == ("7", True)
    DownloadJob.objects.update(owner=None)  # released, so there is no owner to lose
    assert read(told(client, job, **{"Last-Event-ID": "7"})) == []


@pytest.mark.parametrize("given", ["x", "-1", "1.5", "1" * 30])
def test_an_id_that_no_event_had_is_refused(given: str, client: Client) -> None:
    path = f"/api/downloads/{job_of(1).id}/events"
    answer = client.get(path, headers={"Last-Event-ID": given})
    assert answer.status_code == 400
    assert "expected the id of an event" in answer.json()["detail"]


def test_an_unknown_job_has_no_events(client: Client) -> None:
    assert client.get(f"/api/downloads/{uuid.uuid4()}/events").status_code == 404


def test_a_job_that_is_removed_meanwhile_is_gone(client: Client) -> None:
    job = job_of(1, "running")
    response = client.get(f"/api/downloads/{job.id}/events")
    job.delete()
    content = b"".join(response)
    response.close()
    assert [name for _number, name, _data in read(content)] == ["gone"]


@pytest.fixture
def full(client: Client) -> Iterator[tuple[str, Any]]:
    """Use all streams; nothing is read from them."""
    path = f"/api/downloads/{job_of(1, 'running').id}/events"
    taken = [client.get(path) for _ in range(2)]
    yield path, taken
    for response in taken:
        response.close()


def test_who_finds_no_place_is_told_to_ask_for_the_job_instead(
    client: Client, full: tuple[str, Any]
) -> None:
    path, _taken = full
    answer = client.get(path)
    assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    assert answer["Content-Type"] == "application/problem+json"
    assert answer.json()["poll"] == path.removesuffix("/events")
    assert client.get(answer.json()["poll"]).status_code == 200


def test_a_worker_keeps_one_of_its_threads_for_what_else_is_asked(
    client: Client, settings: Settings
) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, "DOWNLOAD_STREAMS": 4, "THREADS": 2}
    path = f"/api/downloads/{job_of(1, 'running').id}/events"
    with contextlib.closing(client.get(path)):
        assert client.get(path).status_code == 503


def test_a_place_is_given_back_once_also_where_nothing_was_read(
    client: Client, full: tuple[str, Any]
) -> None:
    path, taken = full
    taken[0].close()
    taken[0].close()
    taken.append(client.get(path))
    assert taken[-1].status_code == 200
    assert client.get(path).status_code == 503


def test_head_takes_no_place(client: Client) -> None:
    path = f"/api/downloads/{job_of(1, 'running').id}/events"
    for _ in range(3):
        assert client.head(path)["Content-Type"] == "text/event-stream"


async def test_a_stream_is_told_over_asgi_too(settings: Settings) -> None:
    digest = hashlib.sha256(b"secret").hexdigest()
    token = {"sha256": digest, "permissions": ["cacheapp_downloads.view_downloadjob"]}
    settings.CACHEAPP = {**settings.CACHEAPP, "API_TOKENS": {"reader": token}}
    settings.ALLOWED_HOSTS = ["testserver"]
    reader = Actor("token:reader", "token reader", "api")
    job = await sync_to_async(job_of)(1, creator=reader)
    path = f"/api/downloads/{job.id}/events?files=1"
    response = await AsyncClient().get(path, headers={"authorization": "Bearer secret"})
    content = b"".join([part async for part in response])  # type: ignore[attr-defined]
    assert [name for _number, name, _data in read(content)] == ["files", "job", "end"]
    await sync_to_async(response.close)()
