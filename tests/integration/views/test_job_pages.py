"""The list of downloads and the page of one: search, actions on several, retries, and complete files."""

import contextlib
import io
import re
import secrets
import uuid
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections
from django.http import HttpResponse, StreamingHttpResponse
from django.test import AsyncRequestFactory, Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django.fixtures import Settings

from cacheapp import clock
from cacheapp.downloads.jobs import repository, transitions
from cacheapp.downloads.jobs.actors import Actor
from cacheapp.downloads.jobs.models import DownloadFile, DownloadJob
from cacheapp.downloads.jobs.ownership import JobOwner
from cacheapp.downloads.runners import live_progress
from cacheapp.downloads.sources.request import DownloadRequest
from cacheapp.views import file_map, pages_job
from cacheapp.views.after_redirect import keep_report, kept_report
from cacheapp.views.file_responses import file_response, zip_response
from cacheapp.views.streams import slots
from tests.integration.views.users import session, staff

pytestmark = pytest.mark.django_db

URL = "https://files.example.com"
OWNER = JobOwner(uuid.uuid4(), 4711)
VERBS = [f"{verb}_downloadjob" for verb in ("view", "add", "change")]
CONTENT = b"0123456789"


@pytest.fixture(autouse=True)
def _site(idle_site: None, settings: Settings, tmp_path: Path) -> None:
    settings.CACHEAPP = {
        **settings.CACHEAPP,
        "DOWNLOAD_ROOT": tmp_path / "downloads",
        "DOWNLOAD_ORIGINS": [URL],
    }


@pytest.fixture
def ann() -> User:
    return staff("ann", *VERBS)


def _job(user: User, state: str, *names: str) -> DownloadJob:
    """Create a job of the user; the files of a succeeded one are on disk."""
    by = Actor(f"user:{user.pk}", f"user {user.pk} ({user})", "api")
    order = DownloadRequest(tuple(f"{URL}/{name}" for name in names), threads=1)
    job = repository.create(order, OWNER, by)
    of_files = "queued" if state == "paused" else state
    job.files.update(state=of_files, bytes_done=10 if state == "succeeded" else 0)
    failed = len(names) if state == "failed" else 0
    done = len(names) if state == "succeeded" else 0
    DownloadJob.objects.filter(id=job.id).update(state=state, files_failed=failed, files_done=done)
    job.refresh_from_db()
    if state == "succeeded":
        directory = repository.destination_of(job, None if job.destination else _root())
        directory.mkdir(parents=True)
        for name in names:
            (directory / name).write_bytes(CONTENT)
    return job


def _root() -> Path:
    from cacheapp.conf import conf  # noqa: PLC0415 (it reads the settings of the test)

    found = conf().download_root
    assert found is not None
    return found


def _titles(response: Any) -> list[str]:
    return [one["title"] for one in response.context["shown"]]


def test_a_job_has_a_title_made_from_its_files(ann: User) -> None:
    _job(ann, "paused", "a.bin?key=Pa55word", "b.bin")
    said = session(ann).get("/downloads/").content.decode()
    assert "a.bin and 1 more from files.example.com" in said
    assert "Pa55word" not in said


def test_a_given_title_is_shown_escaped_and_found(ann: User) -> None:
    client = session(ann)
    form = {"urls": f"{URL}/a.bin", "threads": "1", "title": "<b>Sales</b> of May"}
    page = client.post("/downloads/", form, follow=True).content.decode()
    assert "Download: &lt;b&gt;Sales&lt;/b&gt; of May" in page
    _job(ann, "paused", "b.bin")
    assert _titles(client.get("/downloads/?q=sales")) == ["<b>Sales</b> of May"]
    refused = client.post("/downloads/", {**form, "title": "x" * 201})
    assert refused.status_code == 422
    assert "title: is " in refused.content.decode()


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["c.bin", "b.bin", "a.bin"]),
        ("?sort=oldest", ["a.bin", "b.bin", "c.bin"]),
        ("?state=paused", ["a.bin"]),
        ("?q=B.BIN", ["b.bin"]),
        ("?q=ann", ["c.bin", "b.bin", "a.bin"]),
        ("?q=nothing", []),
        ("?state=no&sort=no&page=99", ["c.bin", "b.bin", "a.bin"]),
    ],
)
def test_the_list_is_filtered_searched_and_sorted(ann: User, query: str, found: list[str]) -> None:
    for state, name in (("paused", "a.bin"), ("failed", "b.bin"), ("succeeded", "c.bin")):
        _job(ann, state, name)
    titles = _titles(session(ann).get(f"/downloads/{query}"))
    assert [title.partition(" ")[0] for title in titles] == found


def test_a_job_is_found_by_the_beginning_of_its_id(ann: User) -> None:
    job, _ = _job(ann, "paused", "a.bin"), _job(ann, "paused", "b.bin")
    assert len(_titles(session(ann).get(f"/downloads/?q={str(job.id)[:13]}"))) == 1


def test_an_action_on_several_jobs_reports_those_that_refused(ann: User) -> None:
    other = _job(staff("bob", *VERBS), "paused", "x")
    jobs = [_job(ann, "paused", "a"), _job(ann, "succeeded", "b"), other]
    form = {"do": "cancel", "job": [str(job.id) for job in jobs]}
    client = session(ann)
    answer = client.post("/downloads/actions?q=files&page=2&other=1", form)
    # The links of the page that follows are to the list, not to the address of the action.
    assert (answer.status_code, answer["Location"]) == (303, "/downloads/?q=files&page=2")
    said = client.get(answer["Location"]).content.decode()
    assert "Cancelled 1 of 3 jobs." in said
    assert "the job has already succeeded" in said
    assert "Cancelled 1 of 3 jobs." not in client.get(answer["Location"]).content.decode()
    for job in jobs:
        job.refresh_from_db()
    assert [job.state for job in jobs] == ["cancelled", "succeeded", "paused"]


def test_a_long_report_fits_into_a_cookie_and_a_forged_one_is_not_shown() -> None:
    request, response = RequestFactory().get("/"), HttpResponse()
    refused = [f"{number}: {secrets.token_hex(100)}" for number in range(30)]
    keep_report(request, response, "Cancelled 0 of 30 jobs.", refused)
    cookie = response.cookies["cacheapp_report"]
    assert len(cookie.output()) < 4096
    request.COOKIES = {"cacheapp_report": cookie.value}
    kept = kept_report(request)
    assert kept is not None
    shown = len(kept["refused"]) - 1
    assert kept["refused"] == [*refused[:shown], f"and {30 - shown} more"]
    assert shown > 5
    request.COOKIES = {"cacheapp_report": cookie.value.replace(":", ":x", 1)}
    assert kept_report(request) is None


def test_an_action_on_no_job_says_so(ann: User) -> None:
    response = session(ann).post("/downloads/actions", {"do": "cancel"})
    assert response.status_code == 422
    assert "No job is selected" in response.content.decode()


def test_one_failed_file_is_retried_and_the_others_stay_failed(ann: User) -> None:
    job = _job(ann, "failed", "a.bin", "b.bin")
    page = session(ann).get(f"/downloads/{job.id}/").content.decode()
    assert 'name="file" value="1"' in page
    form = {"do": "retry", "file": "1"}
    session(ann).post(f"/downloads/{job.id}/action", form)
    states = (
        DownloadFile.objects.filter(job=job).order_by("position").values_list("state", flat=True)
    )
    assert list(states) == ["failed", "queued"]
    again = session(ann).post(f"/downloads/{job.id}/action", {"do": "retry", "file": "7"})
    assert again.status_code == 409


def test_waiting_files_of_a_paused_job_are_called_paused(ann: User) -> None:
    job = _job(ann, "paused", "a.bin")
    response = session(ann).get(f"/downloads/{job.id}/")
    assert [tab["title"] for tab in response.context["tabs"]] == ["paused"]
    assert [row["state"] for row in response.context["rows"]] == ["paused"]


def test_the_history_names_the_worker_that_was_lost_and_the_one_that_took_over(ann: User) -> None:
    job = _job(ann, "queued", "a.bin")
    assert repository.start(job, OWNER, _root()) is not None
    job.refresh_from_db()
    assert transitions.adopt(job, JobOwner(uuid.uuid4(), 4712))
    events = session(ann).get(f"/downloads/{job.id}/").context["history"]
    assert [(event.what, event.by) for event in events] == [
        ("created", f"user {ann.pk} (ann) (api)"),
        ("began", "worker 4711"),
        ("taken over", "worker 4712"),
    ]
    assert events[-1].detail.startswith("worker 4711 gave no sign of life for ")


def _fetch(client: Client, job: DownloadJob, **headers: str) -> Any:
    return client.get(f"/downloads/{job.id}/files/0", headers=headers)


def _body(response: Any) -> bytes:
    return b"".join(response.streaming_content)


def test_a_file_is_an_attachment_that_a_browser_does_not_show(ann: User) -> None:
    response = _fetch(session(ann), _job(ann, "succeeded", "page.html"))
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
    response = _fetch(session(ann), _job(ann, "succeeded", "a.bin"), Range=wanted)
    assert (response.status_code, response.get("Content-Range")) == (status, content_range)
    if body is not None:
        assert _body(response) == body
        assert response["Content-Length"] == str(len(body))


def test_a_part_of_a_file_that_has_changed_since_is_the_whole_file(ann: User) -> None:
    client, job = session(ann), _job(ann, "succeeded", "a.bin")
    tag = client.head(f"/downloads/{job.id}/files/0")["ETag"]
    same = {"Range": "bytes=2-4", "If-Range": tag}
    assert _body(_fetch(client, job, **same)) == b"234"
    other = {"Range": "bytes=2-4", "If-Range": '"other"'}
    assert _body(_fetch(client, job, **other)) == CONTENT


def test_the_files_of_others_and_of_unfinished_jobs_are_not_found(ann: User) -> None:
    of_bob = _job(staff("bob", *VERBS), "succeeded", "a.bin")
    for job in (of_bob, _job(ann, "paused", "b.bin")):
        assert _fetch(session(ann), job).status_code == 404
        assert session(ann).get(f"/downloads/{job.id}/files.zip").status_code == 404


def test_a_link_in_the_place_of_a_file_is_not_followed(ann: User, tmp_path: Path) -> None:
    job = _job(ann, "succeeded", "a.bin", "b.bin")
    secret = tmp_path / "secret"
    secret.write_text("a secret")
    path = repository.destination_of(job, _root()) / "a.bin"
    path.unlink()
    path.symlink_to(secret)
    assert _fetch(session(ann), job).status_code == 404
    response = session(ann).get(f"/downloads/{job.id}/files.zip")
    with zipfile.ZipFile(io.BytesIO(_body(response))) as archive:
        assert archive.namelist() == ["b.bin"]


def test_all_files_are_sent_as_one_zip(ann: User) -> None:
    job = _job(ann, "succeeded", "a.bin", "b.bin")
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
    client, job = session(ann), _job(ann, "succeeded", "a.bin")
    (repository.destination_of(job, _root()) / "a.bin").write_bytes(b"")
    for wanted, status in (("bytes=-3", 200), ("nonsense", 200), ("bytes=0-", 416)):
        response = _fetch(client, job, Range=wanted)
        assert (response.status_code, b"".join(response)) == (status, b"")


@pytest.mark.django_db(transaction=True)  # closing a response closes connections
def test_slow_readers_leave_a_thread_for_others(ann: User, settings: Settings) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, "DOWNLOAD_STREAMS": 4, "THREADS": 3}
    client, job = session(ann), _job(ann, "succeeded", "a.bin")
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
    client, job = session(ann), _job(ann, "succeeded", "a.bin")
    path = f"/api/downloads/{_job(ann, 'queued', 'b.bin').id}/events"
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
    client, job = session(ann), _job(ann, "succeeded", "a.bin")
    path = f"/api/downloads/{_job(ann, 'queued', 'b.bin').id}/events"
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
    client, job = session(ann), _job(ann, "succeeded", "a.bin")
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
    response = _fetch(session(ann), _job(ann, "succeeded", "a.bin"))
    kind = type(connections["default"])
    monkeypatch.setattr(kind, "close", lambda one: closed.append(one.alias))
    with contextlib.closing(response):
        chunks = iter(response.streaming_content)
        assert closed == []
        assert next(chunks) == CONTENT
        assert "default" in closed


def test_a_part_of_the_page_reads_nothing_for_the_other_parts(
    ann: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = _job(ann, "failed", "a.bin", "b.bin")
    drawn: list[object] = []
    monkeypatch.setattr(file_map, "draw_map", drawn.append)
    for target, wanted, missing in (("job", "history", "rows"), ("files", "rows", "history")):
        headers = {"HX-Request": "true", "HX-Target": target}
        with CaptureQueriesContext(connection) as queries:
            response = session(ann).get(f"/downloads/{job.id}/", headers=headers)
        assert f'<div id="{target}"' in response.content.decode()
        assert wanted in response.context
        assert missing not in response.context
        of_files = [one for one in queries if "downloads_downloadfile" in one["sql"]]
        assert bool(of_files) == (target == "files")
    assert drawn == []
    session(ann).get(f"/downloads/{job.id}/")
    assert len(drawn) == 1


def test_a_manager_cannot_guess_the_secrets_of_the_sources_of_others(ann: User) -> None:
    job = _job(ann, "paused", "a.bin")
    DownloadJob.objects.filter(id=job.id).update(source=f"{URL}/?key=Pa55word")
    boss = session(User.objects.create_superuser("boss"))
    assert len(_titles(boss.get("/downloads/"))) == 1
    assert _titles(boss.get("/downloads/?q=key=Pa")) == []
    assert len(_titles(session(ann).get("/downloads/?q=key=Pa"))) == 1


def test_a_search_is_repeated_less_often_than_the_list(ann: User) -> None:
    _job(ann, "paused", "a.bin")
    for query, seconds in (("", 2), ("?state=paused", 2), ("?q=a.bin", 30)):
        said = session(ann).get(f"/downloads/{query}").content.decode()
        assert f'hx-trigger="every {seconds}s, ' in said
        assert f'data-live="{seconds}"' in said


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


def _triggers(client: Client, job: DownloadJob) -> dict[str, str]:
    """Return when each part of the page is requested again."""
    said = client.get(f"/downloads/{job.id}/").content.decode()
    parts = re.findall(r'<div id="(\w+)"[^>]*hx-get="[^"]+"[^>]* hx-trigger="([^"]+)"', said)
    return dict(parts)


@pytest.mark.parametrize("state", ["queued", "running", "paused"])
def test_every_part_is_requested_until_it_has_shown_the_end(ann: User, state: str) -> None:
    """A paused job is resumed in another tab, and the files of a listing come after the page."""
    job = _job(ann, state, "a.bin")
    client = session(ann)
    for total in (1, 0):
        DownloadJob.objects.filter(id=job.id).update(files_total=total)
        found = _triggers(client, job)
        assert set(found) == {"job", "failed", "map", "files"}
        assert all("every 2s" in it and "event-end" in it for it in found.values()), found


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_no_part_of_an_ended_job_is_requested_again(ann: User, state: str) -> None:
    job = _job(ann, state, "a.bin", "b.bin")
    assert set(_triggers(session(ann), job).values()) == {"job-changed from:body"}


def test_an_ended_job_is_requested_until_its_webhook_is_notified(ann: User) -> None:
    job = _job(ann, "succeeded", "a.bin")
    DownloadJob.objects.filter(id=job.id).update(webhook="https://hooks.example.com/")
    now = timezone.now()
    job.notifications.create(url="https://x.example", body="{}", due_at=now, created_at=now)
    client = session(ann)
    assert "every 2s" in _triggers(client, job)["job"]
    job.notifications.update(state="delivered")
    assert "every" not in _triggers(client, job)["job"]


def test_the_admin_is_linked_only_where_it_is_installed_and_for_its_users(
    ann: User, settings: Settings
) -> None:
    job = _job(ann, "paused", "a.bin")
    request = RequestFactory().get("/")
    request.user = ann
    assert pages_job._admin_url(request, job).endswith(f"/{job.id}/change/")  # noqa: SLF001
    request.user = cast(Any, SimpleNamespace(has_perm=lambda _name: True))  # without is_staff
    assert pages_job._admin_url(request, job) == ""  # noqa: SLF001
    del request.user  # a project without users
    assert pages_job._admin_url(request, job) == ""  # noqa: SLF001
    settings.ROOT_URLCONF = "cacheapp.urls"  # without the admin
    request.user = ann
    assert pages_job._admin_url(request, job) == ""  # noqa: SLF001


@pytest.mark.parametrize(
    ("known_s", "shown"), [(4, "30 s"), (45, "45 s"), (599, "9 min 59 s"), (900, "10 minutes")]
)
def test_the_throughput_fills_its_chart(
    ann: User, monkeypatch: pytest.MonkeyPatch, known_s: float, shown: str
) -> None:
    monkeypatch.setattr(clock, "wall_s", lambda: 1_000_000.0)
    rates = [(1_000_000.0 - ago_s, 5.0) for ago_s in (known_s, known_s / 2, 0)]
    monkeypatch.setattr(live_progress, "rates_of", lambda _job: rates)
    job = _job(ann, "paused", "a.bin")
    said = session(ann).get(f"/downloads/{job.id}/").content.decode()
    assert f"Throughput, last {shown}<" in said
    first = re.findall(r'<path d="M([\d.]+) 60L', said)[0]
    assert float(first) == pytest.approx(600 * max(0, 1 - known_s / 30) if known_s < 600 else 150)
    monkeypatch.setattr(clock, "wall_s", lambda: 1_000_300.0)
    DownloadJob.objects.filter(id=job.id).update(state="succeeded")
    later = session(ann).get(f"/downloads/{job.id}/").content.decode()
    assert f"Throughput, last {shown} before the end<" in later
    assert f'<path d="M{first} 60L' in later
