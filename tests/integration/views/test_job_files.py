"""The files of a complete job: ranges, one zip, and the threads that send them."""

import contextlib
import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.http import StreamingHttpResponse
from django.test import AsyncRequestFactory, Client, RequestFactory
from pytest_django.fixtures import Settings

from cacheapp.downloads.jobs import repository
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.views.file_responses import file_response, zip_response
from cacheapp.views.streams import slots
from tests.integration.views.download_jobs import CONTENT, VERBS, download_root, job_of
from tests.integration.views.users import session, staff

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("downloads_site")]


def _fetch(client: Client, job: DownloadJob, **headers: str) -> Any:
    return client.get(f"/downloads/{job.id}/files/0", headers=headers)


def _body(response: Any) -> bytes:
    return b"".join(response.streaming_content)


def test_a_file_is_an_attachment_that_a_browser_does_not_show(ann: User) -> None:
    response = _fetch(session(ann), job_of(ann, "succeeded", "page.html"))
    assert _body(response) == CONTENT
    assert response["Content-Disposition"] == 'attachment; filename="page.html"'
    assert response["Content-Type"] == "application/octet-stream"
    assert response["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in response["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("wanted", "status", "content_range", "body"),
    [
        ("bytes=2-4", 206, "bytes 2-4/10", b"234"),
        ("bytes=7-", 206, "bytes 7-9/10", b"789"),
        ("bytes=-3", 206, "bytes 7-9/10", b"789"),
        ("bytes=8-99", 206, "bytes 8-9/10", b"89"),
        ("Bytes=8-8", 206, "bytes 8-8/10", b"8"),
        ("bytes=0-1,5-6", 200, None, CONTENT),
        ("bytes=-", 200, None, CONTENT),
        ("bytes=5-2", 200, None, CONTENT),
        ("lines=1-2", 200, None, CONTENT),
        ("bytes=10-", 416, "bytes */10", None),
        ("bytes=-0", 416, "bytes */10", None),
    ],
)
def test_a_part_of_a_file_is_sent(
    ann: User, wanted: str, status: int, content_range: str | None, body: bytes | None
) -> None:
    response = _fetch(session(ann), job_of(ann, "succeeded", "a.bin"), Range=wanted)
    assert (response.status_code, response.get("Content-Range")) == (status, content_range)
    if body is not None:
        assert _body(response) == body
        assert response["Content-Length"] == str(len(body))


def test_a_part_of_a_file_that_has_changed_since_is_the_whole_file(ann: User) -> None:
    client, job = session(ann), job_of(ann, "succeeded", "a.bin")
    tag = client.head(f"/downloads/{job.id}/files/0")["ETag"]
    same = {"Range": "bytes=2-4", "If-Range": tag}
    assert _body(_fetch(client, job, **same)) == b"234"
    other = {"Range": "bytes=2-4", "If-Range": '"other"'}
    assert _body(_fetch(client, job, **other)) == CONTENT


def test_the_files_of_others_and_of_unfinished_jobs_are_not_found(ann: User) -> None:
    of_bob = job_of(staff("bob", *VERBS), "succeeded", "a.bin")
    for job in (of_bob, job_of(ann, "paused", "b.bin")):
        assert _fetch(session(ann), job).status_code == 404
        assert session(ann).get(f"/downloads/{job.id}/files.zip").status_code == 404


def test_a_link_in_the_place_of_a_file_is_not_followed(ann: User, tmp_path: Path) -> None:
    job = job_of(ann, "succeeded", "a.bin", "b.bin")
    secret = tmp_path / "secret"
    secret.write_text("a secret")
    path = repository.destination_of(job, download_root()) / "a.bin"
    path.unlink()
    path.symlink_to(secret)
    assert _fetch(session(ann), job).status_code == 404
    response = session(ann).get(f"/downloads/{job.id}/files.zip")
    with zipfile.ZipFile(io.BytesIO(_body(response))) as archive:
        assert archive.namelist() == ["b.bin"]


def test_all_files_are_sent_as_one_zip(ann: User) -> None:
    job = job_of(ann, "succeeded", "a.bin", "b.bin")
    response = session(ann).get(f"/downloads/{job.id}/files.zip")
    assert (
        response["Content-Disposition"] == f'attachment; filename="download-{str(job.id)[:8]}.zip"'
    )
    with zipfile.ZipFile(io.BytesIO(_body(response))) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == {
            "a.bin": CONTENT,
            "b.bin": CONTENT,
        }


def test_an_empty_file_has_no_range(ann: User) -> None:
    client, job = session(ann), job_of(ann, "succeeded", "a.bin")
    (repository.destination_of(job, download_root()) / "a.bin").write_bytes(b"")
    for wanted, status in (("bytes=-3", 200), ("nonsense", 200), ("bytes=0-", 416)):
        response = _fetch(client, job, Range=wanted)
        assert (response.status_code, b"".join(response)) == (status, b"")


@pytest.mark.django_db(transaction=True)  # closing a response closes connections
def test_slow_readers_leave_a_thread_for_others(ann: User, settings: Settings) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, "DOWNLOAD_STREAMS": 4, "THREADS": 3}
    client, job = session(ann), job_of(ann, "succeeded", "a.bin")
    paths = [f"/downloads/{job.id}/files/0", f"/downloads/{job.id}/files.zip"]
    held = [client.get(path) for path in paths]
    try:
        assert [one.status_code for one in held] == [200, 200]
        for path in paths:
            refused = client.get(path)
            assert (refused.status_code, refused["Retry-After"]) == (503, "5")
            assert client.head(path).status_code == 200
        held[0].close()  # nothing was read of it
        held[0].close()
        with contextlib.closing(client.get(paths[0])) as again:
            assert again.status_code == 200
            assert client.get(paths[1]).status_code == 503
            assert _body(again) == CONTENT
    finally:
        for one in held:
            one.close()


@pytest.mark.django_db(transaction=True)
def test_with_two_threads_an_event_stream_ends_for_a_file(ann: User, settings: Settings) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, "THREADS": 2}
    client, job = session(ann), job_of(ann, "succeeded", "a.bin")
    path = f"/api/downloads/{job_of(ann, 'queued', 'b.bin').id}/events"
    with contextlib.closing(client.get(path)) as stream:
        with contextlib.closing(_fetch(client, job)) as file:
            assert file.status_code == 200
            assert _fetch(client, job).status_code == 503
            events = b"".join(stream)  # it ends now, and not at its time
            assert b"event: job" in events
            assert b"event: end" not in events
            stream.close()
            assert client.get(path).status_code == 503
        with contextlib.closing(client.get(path)) as again:
            assert again.status_code == 200


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("threads", [None, 4])
def test_event_streams_leave_threads_to_files(
    ann: User, settings: Settings, threads: int | None
) -> None:
    """A user may have many tabs open, each with a stream."""
    settings.CACHEAPP = {**settings.CACHEAPP, "DOWNLOAD_STREAMS": 2, "THREADS": threads}
    client, job = session(ann), job_of(ann, "succeeded", "a.bin")
    path = f"/api/downloads/{job_of(ann, 'queued', 'b.bin').id}/events"
    with contextlib.ExitStack() as tabs:
        for _ in range(2):
            assert tabs.enter_context(contextlib.closing(client.get(path))).status_code == 200
        assert client.get(path).status_code == 503
        assert tabs.enter_context(contextlib.closing(_fetch(client, job))).status_code == 200
        assert not slots.must_end_for_a_file()
        assert tabs.enter_context(contextlib.closing(_fetch(client, job))).status_code == 200
        # One thread is kept for other requests.
        assert slots.must_end_for_a_file() == (threads is not None)
        assert _fetch(client, job).status_code == 503


def test_a_worker_with_one_thread_sends_files(ann: User, settings: Settings) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, "THREADS": 1}
    client, job = session(ann), job_of(ann, "succeeded", "a.bin")
    for _ in range(2):
        assert _body(_fetch(client, job)) == CONTENT


def test_names_in_a_zip_are_the_same_file_for_every_program(tmp_path: Path) -> None:
    names = ["a_b.bin", "a\\b.bin", "a\nb.bin", "C:/x", "12:30.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    response = zip_response(RequestFactory().get("/"), tmp_path, names, "all.zip")
    found = ["a_b.bin", "a_b (2).bin", "a_b (3).bin", "C_/x", "12:30.txt"]
    with contextlib.closing(response), zipfile.ZipFile(io.BytesIO(_body(response))) as archive:
        assert archive.namelist() == found
        assert [archive.read(name).decode() for name in found] == names


@pytest.mark.django_db(transaction=True)
def test_a_file_is_sent_without_a_connection_to_the_database(
    ann: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []
    response = _fetch(session(ann), job_of(ann, "succeeded", "a.bin"))
    kind = type(connections["default"])
    monkeypatch.setattr(kind, "close", lambda one: closed.append(one.alias))
    with contextlib.closing(response):
        chunks = iter(response.streaming_content)
        assert closed == []
        assert next(chunks) == CONTENT
        assert "default" in closed


async def test_a_file_is_sent_over_asgi_too(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(CONTENT)
    request = AsyncRequestFactory().get("/")
    for response in (
        file_response(request, tmp_path, "a.bin", "tag"),
        zip_response(request, tmp_path, ["a.bin"], "all.zip"),
    ):
        assert isinstance(response, StreamingHttpResponse)
        with contextlib.closing(response):
            assert CONTENT in b"".join([chunk async for chunk in response])
