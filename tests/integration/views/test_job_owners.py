"""A user sees and changes no job of another one: on every URL, by every method and every credential."""

import hashlib
import itertools
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.forms.models import model_to_dict
from django.http.response import HttpResponseBase
from django.test import Client
from django.urls import reverse
from pytest_django.fixtures import Settings

from cacheapp.downloads.jobs import repository
from cacheapp.downloads.jobs.actors import CODE, Actor
from cacheapp.downloads.jobs.models import DownloadFile, DownloadJob
from cacheapp.downloads.jobs.ownership import JobOwner
from cacheapp.downloads.sources.request import DownloadRequest
from cacheapp.urls import urlpatterns
from tests.integration.views.users import session, staff

pytestmark = pytest.mark.django_db

CANARY = "canary7f3a"
SECRET = f"sig-{CANARY}"
URL = f"https://files.example.com/{{}}?X-Amz-Signature={SECRET}"
_CSRF = re.compile('name="csrfmiddlewaretoken" value="[A-Za-z0-9]+"')
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
OF_ONE_JOB = {
    "download": True,
    "download_files": True,
    "download_events": True,
    "download_pause": True,
    "download_resume": True,
    "download_cancel": True,
    "download_retry": True,
    "download_page": False,
    "download_action": False,
    "download_map": False,
    "download_failed": False,
    "download_file": False,
    "download_zip": False,
}
"""URLs that take a job's id; True: part of the API, so that tokens may use it."""
LISTS_OF_JOBS = {"downloads", "downloads_page", "downloads_action"}
WITHOUT_JOBS: Mapping[str, dict[str, Any]] = {
    "index": {},
    "index_events": {},
    "lab_page": {},
    "lab_start": {},
    "lab_stop": {},
    "lab_drawing": {"name": "computing"},
    "lab_experiment": {"name": "computing"},
    "check_page": {},
    "check_start": {},
    "check_stop": {},
    "check_drawing": {"number": 1},
    "stats_page": {},
    "machines_page": {},
    "machines_data": {},
    "livez": {},
    "readyz": {},
    "metrics": {},
    "api": {},
    "openapi": {},
    "api_docs": {},
    "worker": {},
    "stats": {},
    "overview": {},
    "check_data": {},
    "lab_data": {},
    "alias": {"alias": "default"},
    "incr": {"alias": "default", "key": "k"},
    "add": {"alias": "default", "key": "k"},
    "touch": {"alias": "default", "key": "k"},
    "key": {"alias": "default", "key": "k"},
    "file": {"number": 1},
    "not_found": {"rest": "nothing"},
}
"""URLs that show no jobs, with their arguments."""
OTHER_TOKEN = Actor("token:b-token", "token b-token", "api")
PERMISSIONS = [
    *(f"{verb}_downloadjob" for verb in ("view", "add", "change", "delete")),
    *("view_downloadfile", "view_stats", "use_demo"),
]
TOKENS = {"a-token": "secret of a-token", "b-token": "secret of b-token", "ann-token": "of ann"}
FORWARDED = {
    "X-Forwarded-For": "127.0.0.1",
    "X-Real-IP": "127.0.0.1",
    "Forwarded": "for=127.0.0.1;host=localhost;proto=https",
    "X-Forwarded-Host": "localhost",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-User": "ben",
    "X-Remote-User": "ben",
    "Remote-User": "ben",
    "X-Original-URL": "/api/downloads",
    "X-Rewrite-URL": "/api/downloads",
    "X-HTTP-Method-Override": "DELETE",
}


@pytest.fixture(autouse=True)
def _site(idle_site: None, settings: Settings, tmp_path: Path) -> None:
    permissions = [f"cacheapp_downloads.{name}" for name in PERMISSIONS]
    tokens: dict[str, dict[str, Any]] = {
        name: {"sha256": hashlib.sha256(it.encode()).hexdigest(), "permissions": permissions}
        for name, it in TOKENS.items()
    }
    tokens["ann-token"]["user"] = "ann"
    settings.CACHEAPP = {
        **settings.CACHEAPP,
        "DEMO": False,
        "API_TOKENS": tokens,
        "DOWNLOAD_ROOT": tmp_path / "downloads",
        "DOWNLOAD_ORIGINS": ["https://files.example.com"],
        "DOWNLOAD_STREAM_S": 0.001,
    }


def _user(name: str, *more: str) -> User:
    return staff(name, *PERMISSIONS, *more)


def _token(name: str) -> Client:
    return Client(HTTP_HOST="localhost", HTTP_AUTHORIZATION=f"Bearer {TOKENS[name]}")


@pytest.fixture
def ann() -> User:
    return _user("ann")


@pytest.fixture
def ben() -> User:
    return _user("ben")


@pytest.fixture
def manager() -> User:
    return _user("mia", "manage_all_downloads")


def _creator(user: User) -> Actor:
    return Actor(f"user:{user.pk}", f"user {user.pk} ({user.username})", "api")


def job_of(creator: Actor, state: str = "failed", **facts: Any) -> DownloadJob:
    """Return a job whose URLs, names, source, destination and errors have the canary."""
    urls = tuple(URL.format(f"{CANARY}-{n}") for n in range(2))
    facts = {"destination": f"/nowhere/{CANARY}", "error": f"error {CANARY}", **facts}
    job = repository.create(DownloadRequest(urls, 1), JobOwner(uuid.uuid4(), 4711), creator)
    source = f"{urls[0]} https://user:{SECRET}@files.example.com/"
    DownloadJob.objects.filter(id=job.id).update(
        state=state, source=source, files_failed=2, files_renamed=1, **facts
    )
    job.files.update(state=state, error="responded with 404", original_name=f"old {CANARY}")
    job.refresh_from_db()
    return job


def _text(response: HttpResponseBase) -> str:
    """Return everything that the client receives."""
    body = b"".join(response.streaming_content) if response.streaming else response.content  # type: ignore[attr-defined]
    return f"{response.status_code} {dict(response.items())} {body.decode(errors='replace')}"


def _rows() -> list[Any]:
    return [
        [model_to_dict(job) for job in DownloadJob.objects.order_by("id")],
        [model_to_dict(file) for file in DownloadFile.objects.order_by("id")],
    ]


def _paths(job_id: uuid.UUID) -> list[str]:
    more = {"download_file": [0]}  # the position of a file
    return [reverse(f"cacheapp:{name}", args=[job_id, *more.get(name, [])]) for name in OF_ONE_JOB]


def _requests(job_id: uuid.UUID) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield each method, URL, and body that a client may send to a job."""
    for method, path in itertools.product(METHODS, _paths(job_id)):
        yield method, path, {}
    for path in _paths(job_id):
        yield "DELETE", f"{path}?files=keep", {}
        yield "GET", f"{path}?files=1", {}
        yield "POST", path, {"data": "{}", "content_type": "application/json"}
    action = reverse("cacheapp:download_action", args=[job_id])
    for do in ("pause", "resume", "cancel", "retry", "nonsense"):
        form = {"data": f"do={do}", "content_type": "application/x-www-form-urlencoded"}
        yield "POST", action, form


def test_every_url_is_classified() -> None:
    """A new URL belongs into one of the tables above, by whether it shows jobs."""
    names = [pattern.name for pattern in urlpatterns]
    assert sorted(str(name) for name in names) == sorted(
        [*OF_ONE_JOB, *LISTS_OF_JOBS, *WITHOUT_JOBS]
    )
    with_id = {str(it.name) for it in urlpatterns if "job_id" in it.pattern.converters}
    assert with_id == set(OF_ONE_JOB)


@pytest.mark.parametrize(
    ("credential", "creator"),
    [
        ("session", "another user"),
        ("session", "none"),
        ("own token", "another user"),
        ("own token", "another token"),
        ("token of ann", "another user"),
    ],
)
def test_a_job_of_another_user_responds_as_one_that_does_not_exist(
    credential: str, creator: str, ann: User, ben: User
) -> None:
    tokens = {"own token": "a-token", "token of ann": "ann-token"}
    client = session(ann) if credential == "session" else _token(tokens[credential])
    creators = {"another user": _creator(ben), "another token": OTHER_TOKEN, "none": CODE}
    job, missing = job_of(creators[creator], "paused"), uuid.uuid4()
    before = _rows()
    for there, nowhere in zip(_requests(job.id), _requests(missing), strict=True):
        answers = []
        for (method, path, body), job_id in ((there, job.id), (nowhere, missing)):
            text = _text(client.generic(method, path, **body))
            answers.append(_CSRF.sub("", text.replace(str(job_id), "ID")))
        assert answers[0] == answers[1], there
        assert answers[0][:3] in {"404", "405", "302", "403"}, there
        assert CANARY not in answers[0]
    assert _rows() == before


def test_no_other_url_shows_anything_of_a_job_of_another_user(ann: User, ben: User) -> None:
    job = job_of(_creator(ben))
    before = _rows()
    paths = [reverse(f"cacheapp:{name}") for name in sorted(LISTS_OF_JOBS)]
    paths += [reverse(f"cacheapp:{name}", kwargs=kw) for name, kw in WITHOUT_JOBS.items()]
    for client in (session(ann), _token("a-token")):
        for method, path in itertools.product(METHODS, paths):
            answer = _text(client.generic(method, f"{path}?state=failed&limit=100&page=1"))
            assert CANARY not in answer, (method, path)
            assert str(job.id)[:8] not in answer, (method, path)
    assert _rows() == before


def test_the_creator_sees_and_changes_the_job_with_whole_urls(ann: User) -> None:
    job = job_of(_creator(ann), "running", destination="")
    for client in (session(ann), _token("ann-token")):
        path = f"/api/downloads/{job.id}"
        shown = client.get(path).json()
        assert shown["created_by"] == f"user {ann.pk} (ann)"
        assert client.get(f"{path}/files").json()["files"][0]["url"] == URL.format(f"{CANARY}-0")
        assert SECRET in shown["source"]
        assert [it["id"] for it in client.get("/api/downloads").json()["jobs"]] == [str(job.id)]
        assert client.post(f"{path}/pause").status_code == 202
    page = session(ann).get(reverse("cacheapp:downloads_page")).content.decode()
    assert str(job.id)[:8] in page


def test_a_renamed_user_keeps_his_jobs(ann: User) -> None:
    job = job_of(_creator(ann))
    User.objects.filter(pk=ann.pk).update(username="anna")
    User.objects.create_user("ann")
    assert session(User.objects.get(pk=ann.pk)).get(f"/api/downloads/{job.id}").status_code == 200


def test_a_manager_sees_and_changes_all_jobs_without_the_secrets_of_their_urls(
    ann: User, manager: User
) -> None:
    jobs = [job_of(_creator(ann), destination=""), job_of(CODE, destination="")]
    client = session(manager)
    listed = client.get("/api/downloads").json()["jobs"]
    assert {it["id"] for it in listed} == {str(job.id) for job in jobs}
    for job in jobs:
        path = f"/api/downloads/{job.id}"
        answers = [client.get(it) for it in (path, f"{path}/files", f"{path}/events?files=1")]
        answers += [client.get(f"/downloads/{job.id}/"), client.get("/downloads/")]
        answers += [client.get("/api/downloads")]
        for answer in answers:
            text = _text(answer)
            assert answer.status_code == 200
            assert SECRET not in text
        (file, _) = client.get(f"{path}/files").json()["files"]
        assert file["url"] == f"https://files.example.com/{CANARY}-0?..."
        shown = client.get(path).json()
        assert shown["errors"][0]["url"] == f"https://files.example.com/{CANARY}-0?..."
        assert shown["renamed"][0]["url"] == f"https://files.example.com/{CANARY}-0?..."
        assert shown["source"].endswith("?... https://...@files.example.com/")
        assert client.delete(f"{path}?files=keep").status_code == 200
    assert not DownloadJob.objects.exists()


def test_a_superuser_manages_all_jobs(ben: User) -> None:
    job = job_of(_creator(ben))
    boss = User.objects.create_superuser("boss")
    text = _text(session(boss).get(f"/api/downloads/{job.id}"))
    assert text.startswith("200 ")
    assert SECRET not in text


def test_no_forwarded_header_makes_the_client_another_one(
    ann: User, ben: User, settings: Settings
) -> None:
    job = job_of(_creator(ben), "running")
    before = _rows()
    path = f"/api/downloads/{job.id}"
    for name, value in FORWARDED.items():
        header = {name: value}
        for client in (session(ann), _token("a-token")):
            answers = [client.get(path, headers=header), client.delete(path, headers=header)]
            answers.append(client.post(f"{path}/cancel", headers=header))
            assert [it.status_code for it in answers] == [404, 404, 404], name
            assert not any(CANARY in _text(it) for it in answers)
    settings.CACHEAPP = {**settings.CACHEAPP, "DEMO": True}
    for name, value in FORWARDED.items():
        remote = Client(HTTP_HOST="localhost", REMOTE_ADDR="192.0.2.7")
        assert remote.get(path, headers={name: value}).status_code == 403, name
    assert _rows() == before


def _admin_paths(model: str, key: Any) -> list[str]:
    root = f"/admin/cacheapp_downloads/{model}/"
    return [root, *(f"{root}{key}/{it}" for it in ("", "change/", "history/", "delete/"))]


def test_the_admin_shows_and_changes_no_job_of_another_user(ann: User, ben: User) -> None:
    job = job_of(_creator(ben))
    before = _rows()
    client = session(ann)
    for model, key in (("downloadjob", job.id), ("downloadfile", job.files.all()[0].pk)):
        for method, path in itertools.product(METHODS, _admin_paths(model, key)):
            assert CANARY not in _text(client.generic(method, path)), (method, path)
        text = _text(client.get(f"/admin/cacheapp_downloads/{model}/?q={CANARY}"))
        assert text.count(CANARY) == text.count(f'value="{CANARY}"') + text.count(f"q={CANARY}")
        for action in ("cancel", "retry", "delete_selected"):
            chosen = {"action": action, "_selected_action": [str(key)]}
            assert CANARY not in _text(client.post(f"/admin/cacheapp_downloads/{model}/", chosen))
    assert _rows() == before


def test_the_admin_shows_no_secret_of_a_url_and_compares_none(ben: User, manager: User) -> None:
    job = job_of(_creator(ben))
    file = job.files.order_by("position")[0]
    for user in (manager, ben, User.objects.create_superuser("boss")):
        client = session(user)
        for model, key in (("downloadjob", job.id), ("downloadfile", file.pk)):
            texts = [_text(client.get(path, follow=True)) for path in _admin_paths(model, key)]
            assert any(CANARY in text for text in texts)
            assert not any(SECRET in text for text in texts)
            found = _text(client.get(f"/admin/cacheapp_downloads/{model}/?q={SECRET}"))
            assert (
                str(key)
                not in found.replace(f"q={SECRET}", "").partition("<main")[2][:0]
                + (found.partition('id="result_list"')[2])
            )
        for lookup in (
            f"downloadjob/?source__contains={SECRET}",
            "downloadjob/?idempotency_key__startswith=a",
            f"downloadfile/?url__contains={SECRET}",
            f"downloadfile/?job__source__contains={SECRET}",
            f"downloadjob/?files__url__contains={SECRET}",
        ):
            answer = client.get(f"/admin/cacheapp_downloads/{lookup}")
            assert answer.status_code == 400, lookup


def test_the_command_lists_no_secret(ben: User, capsys: pytest.CaptureFixture[str]) -> None:
    job = job_of(_creator(ben))
    call_command("downloads")
    shown = capsys.readouterr().out
    assert str(job.id) in shown
    assert SECRET not in shown


def test_no_log_line_has_a_secret(
    ann: User, manager: User, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="cacheapp")
    client = session(ann)
    order = json.dumps({"urls": [URL.format(f"{CANARY}-9")]})
    made = client.post("/api/downloads", order, content_type="application/json")
    assert made.status_code == 202
    path = f"/api/downloads/{made.json()['id']}"
    for by in (client, session(manager)):
        for action in ("pause", "cancel", "retry"):
            by.post(f"{path}/{action}")
        by.delete(f"{path}?files=delete")
    assert SECRET not in caplog.text
    assert not any(SECRET in str(vars(record)) for record in caplog.records)
