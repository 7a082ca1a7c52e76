"""The list of downloads and the page of one: search, actions on several, retries, and what is shown when."""

import re
import secrets
import uuid
from types import SimpleNamespace
from typing import Any, cast

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.http import HttpResponse
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django.fixtures import Settings

from cacheapp import clock
from cacheapp.downloads.jobs import repository, transitions
from cacheapp.downloads.jobs.models import DownloadFile, DownloadJob
from cacheapp.downloads.jobs.ownership import JobOwner
from cacheapp.downloads.runners import live_progress
from cacheapp.views import file_map, pages_job
from cacheapp.views.after_redirect import keep_report, kept_report
from tests.integration.views.download_jobs import OWNER, URL, VERBS, download_root, job_of
from tests.integration.views.users import session, staff

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("downloads_site")]


def _titles(response: Any) -> list[str]:
    return [one["title"] for one in response.context["shown"]]


def test_a_job_has_a_title_made_from_its_files(ann: User) -> None:
    job_of(ann, "paused", "a.bin?key=Pa55word", "b.bin")
    said = session(ann).get("/downloads/").content.decode()
    assert "a.bin and 1 more from files.example.com" in said
    assert "Pa55word" not in said


def test_a_given_title_is_shown_escaped_and_found(ann: User) -> None:
    client = session(ann)
    form = {"urls": f"{URL}/a.bin", "threads": "1", "title": "<b>Sales</b> of May"}
    page = client.post("/downloads/", form, follow=True).content.decode()
    assert "Download: &lt;b&gt;Sales&lt;/b&gt; of May" in page
    job_of(ann, "paused", "b.bin")
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
        job_of(ann, state, name)
    titles = _titles(session(ann).get(f"/downloads/{query}"))
    assert [title.partition(" ")[0] for title in titles] == found


def test_a_job_is_found_by_the_beginning_of_its_id(ann: User) -> None:
    job, _ = job_of(ann, "paused", "a.bin"), job_of(ann, "paused", "b.bin")
    assert len(_titles(session(ann).get(f"/downloads/?q={str(job.id)[:13]}"))) == 1


def test_an_action_on_several_jobs_reports_those_that_refused(ann: User) -> None:
    other = job_of(staff("bob", *VERBS), "paused", "x")
    jobs = [job_of(ann, "paused", "a"), job_of(ann, "succeeded", "b"), other]
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
    job = job_of(ann, "failed", "a.bin", "b.bin")
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
    job = job_of(ann, "paused", "a.bin")
    response = session(ann).get(f"/downloads/{job.id}/")
    assert [tab["title"] for tab in response.context["tabs"]] == ["paused"]
    assert [row["state"] for row in response.context["rows"]] == ["paused"]


def test_the_history_names_the_worker_that_was_lost_and_the_one_that_took_over(ann: User) -> None:
    job = job_of(ann, "queued", "a.bin")
    assert repository.start(job, OWNER, download_root()) is not None
    job.refresh_from_db()
    assert transitions.adopt(job, JobOwner(uuid.uuid4(), 4712))
    events = session(ann).get(f"/downloads/{job.id}/").context["history"]
    assert [(event.what, event.by) for event in events] == [
        ("created", f"user {ann.pk} (ann) (api)"),
        ("began", "worker 4711"),
        ("taken over", "worker 4712"),
    ]
    assert events[-1].detail.startswith("worker 4711 gave no sign of life for ")


def test_a_part_of_the_page_reads_nothing_for_the_other_parts(
    ann: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(ann, "failed", "a.bin", "b.bin")
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
    job = job_of(ann, "paused", "a.bin")
    DownloadJob.objects.filter(id=job.id).update(source=f"{URL}/?key=Pa55word")
    boss = session(User.objects.create_superuser("boss"))
    assert len(_titles(boss.get("/downloads/"))) == 1
    assert _titles(boss.get("/downloads/?q=key=Pa")) == []
    assert len(_titles(session(ann).get("/downloads/?q=key=Pa"))) == 1


def test_a_search_is_repeated_less_often_than_the_list(ann: User) -> None:
    job_of(ann, "paused", "a.bin")
    for query, seconds in (("", 2), ("?state=paused", 2), ("?q=a.bin", 30)):
        said = session(ann).get(f"/downloads/{query}").content.decode()
        assert f'hx-trigger="every {seconds}s, ' in said
        assert f'data-live="{seconds}"' in said


def _triggers(client: Client, job: DownloadJob) -> dict[str, str]:
    """Return when each part of the page is requested again."""
    said = client.get(f"/downloads/{job.id}/").content.decode()
    parts = re.findall(r'<div id="(\w+)"[^>]*hx-get="[^"]+"[^>]* hx-trigger="([^"]+)"', said)
    return dict(parts)


@pytest.mark.parametrize("state", ["queued", "running", "paused"])
def test_every_part_is_requested_until_it_has_shown_the_end(ann: User, state: str) -> None:
    """A paused job is resumed in another tab, and the files of a listing come after the page."""
    job = job_of(ann, state, "a.bin")
    client = session(ann)
    for total in (1, 0):
        DownloadJob.objects.filter(id=job.id).update(files_total=total)
        found = _triggers(client, job)
        assert set(found) == {"job", "failed", "map", "files"}
        assert all("every 2s" in it and "event-end" in it for it in found.values()), found


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_no_part_of_an_ended_job_is_requested_again(ann: User, state: str) -> None:
    job = job_of(ann, state, "a.bin", "b.bin")
    assert set(_triggers(session(ann), job).values()) == {"job-changed from:body"}


def test_an_ended_job_is_requested_until_its_webhook_is_notified(ann: User) -> None:
    job = job_of(ann, "succeeded", "a.bin")
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
    job = job_of(ann, "paused", "a.bin")
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
    job = job_of(ann, "paused", "a.bin")
    said = session(ann).get(f"/downloads/{job.id}/").content.decode()
    assert f"Throughput, last {shown}<" in said
    first = re.findall(r'<path d="M([\d.]+) 60L', said)[0]
    assert float(first) == pytest.approx(600 * max(0, 1 - known_s / 30) if known_s < 600 else 150)
    monkeypatch.setattr(clock, "wall_s", lambda: 1_000_300.0)
    DownloadJob.objects.filter(id=job.id).update(state="succeeded")
    later = session(ann).get(f"/downloads/{job.id}/").content.decode()
    assert f"Throughput, last {shown} before the end<" in later
    assert f'<path d="M{first} 60L' in later
