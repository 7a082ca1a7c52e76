"""Django's admin: it shows jobs and files, saves nothing, and can cancel and retry jobs."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from pytest_django.fixtures import Settings

from cacheapp import clock
from cacheapp.downloads.jobs import audit, repository
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.jobs.ownership import JobOwner
from cacheapp.downloads.runners import coordinator as hosting
from cacheapp.downloads.sources.request import DownloadRequest
from cacheapp.views.pages import CONTENT_SECURITY_POLICY
from cacheapp.views.sign_in import MAX_ATTEMPTS, MAX_ATTEMPTS_OF_ADDRESS, PER_S

pytestmark = pytest.mark.django_db

JOBS = "/admin/cacheapp_downloads/downloadjob/"
FILES = "/admin/cacheapp_downloads/downloadfile/"
URL = "https://files.example.com/<script>"


@pytest.fixture(autouse=True)
def _site(settings: Settings, tmp_path: Path) -> Iterator[None]:
    settings.ALLOWED_HOSTS = ["testserver"]
    settings.SECURE_SSL_REDIRECT = False
    settings.STATIC_ROOT = tmp_path  # WhiteNoise warns about a missing directory
    settings.STORAGES = {
        **settings.STORAGES,  # no collectstatic here
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    settings.CACHEAPP = {**settings.CACHEAPP, "DOWNLOAD_ROOT": tmp_path / "downloads"}
    hosting.coordinator().close(0)  # new jobs stay queued
    yield
    hosting._forget()  # noqa: SLF001 (as a fork does)


def staff(*codenames: str) -> Client:
    user = User.objects.create_user("staff", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client = Client()
    client.force_login(user)
    return client


def job_in(state: str) -> DownloadJob:
    job = repository.create(DownloadRequest((URL,), threads=1), JobOwner(uuid.uuid4(), 4711))
    job.files.update(state=state)
    DownloadJob.objects.filter(id=job.id).update(state=state)
    job.refresh_from_db()
    return job


def act(client: Client, action: str, *jobs: DownloadJob) -> Any:
    chosen = {"action": action, "_selected_action": [str(job.id) for job in jobs]}
    return client.post(JOBS, chosen, follow=True)


def test_jobs_and_files_are_listed_and_shown() -> None:
    client = staff("view_downloadjob", "view_downloadfile", "manage_all_downloads")
    job = job_in("failed")
    listed = client.get(JOBS).content.decode()
    assert str(job.id) in listed
    assert "0 of 1" in listed
    DownloadJob.objects.filter(id=job.id).update(bytes_done=3 * 2**20)
    change = client.get(f"{JOBS}{job.id}/change/").content.decode()
    assert str(job.id) in change
    assert f'<a href="/downloads/{job.id}/">page of the job</a>' in change
    assert "3.0\xa0MB" in change
    assert 'alt="False"' not in change  # "no" is a word, not a red cross
    assert '<div class="readonly">no</div>' in change
    assert f'<a href="/downloads/{job.id}/">page of the job</a>' in listed
    files = client.get(f"{FILES}?job__id__exact={job.id}").content.decode()
    assert "&lt;script&gt;" in files
    assert "<script>a" not in files
    shown = client.get(f"{FILES}{job.files.get().pk}/change/").content.decode()
    assert "&lt;script&gt;" in shown
    assert "<script>" not in shown.partition("files.example.com/")[2][:10]


def test_the_page_of_a_job_leads_to_its_record_in_the_admin() -> None:
    job = job_in("failed")
    client = staff("view_downloadjob", "manage_all_downloads")
    link = f'<a href="{JOBS}{job.id}/change/">The job in the admin</a>'
    assert link in client.get(f"/downloads/{job.id}/").content.decode()
    User.objects.filter(username="staff").update(is_staff=False)
    assert link not in client.get(f"/downloads/{job.id}/").content.decode()


def test_search_and_filter_find_jobs() -> None:
    client = staff("view_downloadjob", "manage_all_downloads")
    job, other = job_in("failed"), job_in("succeeded")
    found = client.get(f"{JOBS}?state=failed&q={job.id}").content.decode()
    assert str(job.id) in found
    assert str(other.id) not in found


def test_nothing_is_saved_by_a_form_though_all_is_permitted() -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("boss"))
    job = job_in("failed")
    assert client.get(f"{JOBS}add/").status_code == 403
    form = {"state": "succeeded", "title": "", "bytes_done": "7"}
    assert client.post(f"{JOBS}{job.id}/change/", form).status_code == 302
    assert client.post(f"{JOBS}{job.id}/delete/", {"post": "yes"}).status_code == 403
    act(client, "delete_selected", job)
    job = DownloadJob.objects.get(id=job.id)
    assert (job.state, job.bytes_done) == ("failed", 0)


def test_a_title_is_given_by_those_who_may_change_a_job_and_is_recorded() -> None:
    viewer = staff("view_downloadjob", "manage_all_downloads")
    job = job_in("failed")
    place = f"{JOBS}{job.id}/change/"
    assert viewer.post(place, {"title": "mine"}).status_code == 403
    boss = Client()
    boss.force_login(User.objects.create_superuser("boss"))
    for wrong in ("x" * 201, "two\nlines", "\u202eturned"):
        refused = boss.post(place, {"title": wrong})
        assert refused.status_code == 200, wrong
        assert "errorlist" in refused.content.decode()
    assert boss.post(place, {"title": " <b>Sales</b> "}).status_code == 302
    job.refresh_from_db()
    assert (job.title, job.generation) == ("<b>Sales</b>", 2)
    assert audit.entries_of(job)[0].action == "rename"
    listed = boss.get(f"{JOBS}?q=sales").content.decode()
    assert "&lt;b&gt;Sales&lt;/b&gt;" in listed


def test_jobs_are_cancelled_and_those_that_have_ended_are_named() -> None:
    client = staff("view_downloadjob", "change_downloadjob", "manage_all_downloads")
    running, paused, done = job_in("running"), job_in("paused"), job_in("succeeded")
    told = act(client, "cancel", running, paused, done).content.decode()
    running.refresh_from_db()
    paused.refresh_from_db()
    assert (running.cancel_requested, running.state, paused.state) == (True, "running", "cancelled")
    assert "2 cancelled" in told
    assert f"Job {done.id}: the job has already succeeded" in told


def test_failed_jobs_are_queued_again() -> None:
    client = staff("view_downloadjob", "change_downloadjob", "manage_all_downloads")
    job = job_in("failed")
    assert "1 queued again" in act(client, "retry", job).content.decode()
    job.refresh_from_db()
    assert (job.state, job.owner) == ("queued", hosting.coordinator().owner.token)


def test_who_may_only_look_changes_nothing() -> None:
    client = staff("view_downloadjob", "manage_all_downloads")
    jobs = [job_in("running"), job_in("failed")]
    assert 'value="cancel"' not in client.get(JOBS).content.decode()
    for action in ("cancel", "retry"):
        act(client, action, *jobs)
    assert [DownloadJob.objects.get(id=job.id).state for job in jobs] == ["running", "failed"]
    assert not DownloadJob.objects.filter(cancel_requested=True).exists()


def test_who_may_not_look_sees_nothing() -> None:
    assert staff().get(JOBS).status_code == 403
    assert Client().get(JOBS)["Location"].startswith("/admin/login/")


def test_people_sign_in_and_come_back_to_where_they_wanted() -> None:
    User.objects.create_user("anna", password="long enough to be one")  # noqa: S106 (made up)
    client = Client(enforce_csrf_checks=True, SERVER_NAME="testserver")
    client.get("/login/?next=/api/")
    token = client.cookies["csrftoken"].value
    form = {"username": "anna", "password": "long enough to be one", "next": "/api/"}
    assert client.post("/login/", form).status_code == 403
    answer = client.post("/login/", {**form, "csrfmiddlewaretoken": token})
    assert (answer.status_code, answer["Location"]) == (303, "/api/")
    assert client.post("/login/", {**form, "next": "https://evil.net/"}).status_code == 403


def test_passwords_can_be_tried_a_few_times_a_minute_at_either_door(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = clock.wall_s()
    monkeypatch.setattr(clock, "wall_s", lambda: now_s)  # otherwise, a minute might end in between
    User.objects.create_user("bert", password="long enough to be one", is_staff=True)  # noqa: S106
    client = Client(SERVER_NAME="testserver")
    wrong = {"username": "bert", "password": "a guess"}
    doors = ["/login/", "/admin/login/"]
    found = [client.post(doors[n % 2], wrong).status_code for n in range(MAX_ATTEMPTS + 1)]
    assert found == [200] * MAX_ATTEMPTS + [429]
    refused = client.post("/login/", {**wrong, "password": "long enough to be one"})
    assert refused.status_code == 429
    assert 0 < int(refused["Retry-After"]) <= PER_S
    assert (
        "Too many attempts to sign in with this name or from this address"
        in refused.content.decode()
    )
    assert "default-src 'none'" in refused["Content-Security-Policy"]
    assert client.get("/login/").status_code == 200
    elsewhere = Client(SERVER_NAME="testserver", REMOTE_ADDR="192.0.2.7")
    assert elsewhere.post("/login/", {**wrong, "password": "long enough to be one"})[
        "Location"
    ].startswith("/")
    assert client.post("/login/", {**wrong, "username": "somebody else"}).status_code == 200


@pytest.fixture
def one_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the clock: otherwise, a minute might end in between."""
    now_s = clock.wall_s()
    monkeypatch.setattr(clock, "wall_s", lambda: now_s)


def test_all_spellings_of_a_name_share_one_limit(one_window: None) -> None:
    """Django strips and normalises a name; some databases ignore its case."""
    User.objects.create_user("dora", password="long enough to be one")  # noqa: S106 (made up)
    client = Client(SERVER_NAME="testserver", REMOTE_ADDR="192.0.2.8")
    # With spaces, and with the wide and the mathematical letters of Unicode.
    letters = [
        "dora", "DORA", " dora ", "dora\u3000", "\uff44ora", "d\uff4fra",
        "do\uff52a", "dor\uff41", "\U0001d41dora", "\u2003dora",
    ]  # fmt: skip
    assert len(set(letters)) == MAX_ATTEMPTS
    found = [
        client.post("/login/", {"username": it, "password": "x"}).status_code for it in letters
    ]
    assert found == [200] * MAX_ATTEMPTS
    for spelling in ("\uff24\uff2f\uff32\uff21", "dora"):
        right = {"username": spelling, "password": "long enough to be one"}
        assert client.post("/login/", right).status_code == 429


@pytest.mark.parametrize(
    "addresses",
    [["192.0.2.9"], ["2001:db8:1:2::1", "2001:db8:1:2:ffff::7"], ["::ffff:192.0.2.10"]],
    ids=["IPv4", "one /64", "mapped"],
)
def test_passwords_cannot_be_sprayed_over_many_names(
    one_window: None, monkeypatch: pytest.MonkeyPatch, addresses: list[str]
) -> None:
    hashed = 0

    def count(*_args: object, **_named: object) -> None:
        nonlocal hashed
        hashed += 1

    monkeypatch.setattr("django.contrib.auth.backends.ModelBackend.authenticate", count)
    found = []
    for number in range(MAX_ATTEMPTS_OF_ADDRESS + 20):
        client = Client(SERVER_NAME="testserver", REMOTE_ADDR=addresses[number % len(addresses)])
        guess = {"username": f"name-{number}", "password": "Summer2026"}
        found.append(client.post(("/login/", "/admin/login/")[number % 2], guess).status_code)
    assert found == [200] * MAX_ATTEMPTS_OF_ADDRESS + [429] * 20
    assert hashed == MAX_ATTEMPTS_OF_ADDRESS
    elsewhere = Client(SERVER_NAME="testserver", REMOTE_ADDR="2001:db8:1:3::1")
    assert elsewhere.post("/login/", {"username": "name-0", "password": "x"}).status_code == 200


def test_django_s_own_pages_have_the_policy_of_the_pages() -> None:
    for path in ("/admin/login/", "/admin/", "/admin/nothing/", "/logout/"):
        response = Client(SERVER_NAME="testserver").get(path)
        assert response["Content-Security-Policy"] == CONTENT_SECURITY_POLICY, path


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "OPTIONS"])
def test_the_sign_in_page_refuses_other_methods(method: str) -> None:
    assert Client(SERVER_NAME="testserver").generic(method, "/login/").status_code == 405


def test_people_sign_in_where_the_server_knows_no_address() -> None:
    User.objects.create_user("carl", password="long enough to be one")  # noqa: S106 (made up)
    client = Client(SERVER_NAME="testserver", REMOTE_ADDR="")
    form = {"username": "carl", "password": "long enough to be one"}
    assert client.post("/login/", form).status_code == 303
