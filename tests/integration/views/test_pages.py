"""Access to the pages, their content for each user, and what they must not reveal."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.cache import caches
from django.test import Client
from pytest_django.fixtures import Settings

from cacheapp import clock
from cacheapp.backends.local.private_directory import private_directory
from cacheapp.conf import conf, state_dir
from cacheapp.demo import overview, page_record, show, worker_agent
from cacheapp.demo.namespace import DemoCache
from cacheapp.demo.overview import VALUE_KEY
from cacheapp.downloads.runners.coordinator import existing_coordinator
from cacheapp.errors import StoreUnavailable
from cacheapp.processes import exclusive_run
from cacheapp.processes.run_record import replace
from cacheapp.views.pages import CONTENT_SECURITY_POLICY, DRAWING_POLICY
from cacheapp.views.pages_caches import OverviewEvents

pytestmark = pytest.mark.django_db(transaction=True)

PAGES = {
    "/": "cacheapp.use_demo",
    "/machines/": "cacheapp.use_demo",
    "/downloads/": "cacheapp_downloads.view_downloadjob",
    "/stats/": "cacheapp.view_stats",
    "/lab/": "cacheapp.run_lab",
    "/check/": "cacheapp.run_check",
}
HTML = {"Accept": "text/html"}
PASSWORD = "a-long-enough-one"  # noqa: S105 (of nobody)


@pytest.fixture(autouse=True)
def _served(settings: Settings, tmp_path: Path) -> Iterator[None]:
    """Static files as with DEBUG, without collectstatic. The socket is removed after the test."""
    settings.STATIC_ROOT = str(tmp_path)
    settings.SECURE_SSL_REDIRECT = False
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    yield
    worker_agent.stop()


@pytest.fixture
def demo(settings: Settings) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, "DEMO": True}


@pytest.fixture
def visitor() -> Client:
    """A browser on this machine, which sends CSRF tokens."""
    return Client(enforce_csrf_checks=True, headers={"Host": "localhost", **HTML})


@pytest.fixture
def user() -> User:
    return User.objects.create_user("ada", password=PASSWORD)


def _get(client: Client, path: str) -> Any:
    return client.get(path, SERVER_PROTOCOL="HTTP/1.1")


def _post(client: Client, path: str, data: dict[str, str]) -> Any:
    return client.post(path, data, SERVER_PROTOCOL="HTTP/1.1")


def _token(response: Any) -> str:
    return str(response.context["csrf_token"])


@pytest.mark.parametrize("path", PAGES)
def test_with_the_demo_on_this_machine_needs_no_login(
    demo: None, visitor: Client, path: str
) -> None:
    response = _get(visitor, path)
    assert response.status_code == 200
    assert response["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert response["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", PAGES)
def test_without_the_demo_whoever_is_not_known_is_led_to_the_login(
    visitor: Client, path: str
) -> None:
    response = _get(visitor, path)
    assert response.status_code == 302
    assert response["Location"] == f"/login/?next={path}"


@pytest.mark.parametrize("path", PAGES)
def test_a_user_without_the_permission_is_told_which_one(
    visitor: Client, user: User, path: str
) -> None:
    visitor.force_login(user)
    response = _get(visitor, path)
    assert response.status_code == 403
    assert PAGES[path] in response.content.decode()
    assert f'<a href="/login/?next={path}">Sign in as another user</a>' in response.content.decode()
    assert response["Content-Security-Policy"] == CONTENT_SECURITY_POLICY


@pytest.mark.parametrize("path", PAGES)
def test_a_user_with_the_permission_sees_the_page(visitor: Client, user: User, path: str) -> None:
    user.user_permissions.add(Permission.objects.get(codename=PAGES[path].partition(".")[2]))
    visitor.force_login(user)
    response = _get(visitor, path)
    assert response.status_code == 200
    assert "Sign out ada" in response.content.decode()


def _links(response: Any) -> list[str]:
    return [item["url"] for item in response.context["navigation"]]


def test_the_navigation_has_the_pages_that_the_user_may_open(visitor: Client, user: User) -> None:
    assert _links(_get(visitor, "/login/")) == []
    user.user_permissions.add(Permission.objects.get(codename="view_stats"))
    user.user_permissions.add(Permission.objects.get(codename="run_lab"))
    visitor.force_login(user)
    assert _links(_get(visitor, "/stats/")) == ["/lab/", "/stats/"]
    assert _links(_get(visitor, "/check/")) == ["/lab/", "/stats/"]  # a 403


def test_the_login_leads_to_the_first_page_that_the_user_may_open(
    visitor: Client, user: User
) -> None:
    user.user_permissions.add(Permission.objects.get(codename="view_stats"))
    token = _token(_get(visitor, "/login/?next=/check/"))
    given = {"username": "ada", "password": PASSWORD, "csrfmiddlewaretoken": token}
    assert _post(visitor, "/login/", {**given, "next": "/"})["Location"] == "/stats/"


def test_who_may_not_see_a_page_signs_in_as_another_user(visitor: Client, user: User) -> None:
    boss = User.objects.create_superuser("boss", password=PASSWORD)
    visitor.force_login(user)
    refused = _get(visitor, "/stats/?page=2").content.decode()
    assert '<a href="/login/?next=/stats/%3Fpage%3D2">Sign in as another user</a>' in refused
    form = _get(visitor, "/login/?next=/stats/%3Fpage%3D2")
    assert "You are signed in as ada." in form.content.decode()
    given = {"username": "boss", "password": PASSWORD, "csrfmiddlewaretoken": _token(form)}
    answer = _post(visitor, "/login/", {**given, "next": "/stats/?page=2"})
    assert answer["Location"] == "/stats/?page=2"
    assert visitor.session["_auth_user_id"] == str(boss.pk)


@pytest.mark.parametrize(
    ("referer", "wanted"),
    [
        ("http://localhost/downloads/?q=a", "/downloads/%3Fq%3Da"),
        ("http://elsewhere.example/downloads/", "/"),
        ("http://localhost//elsewhere.example/", "/"),
    ],
)
def test_a_form_without_a_session_is_kept_and_the_login_leads_to_its_page(
    visitor: Client, referer: str, wanted: str
) -> None:
    form = {"urls": "https://files.example.com/<a>"}
    response = visitor.post(
        "/downloads/", form, headers={"Referer": referer}, SERVER_PROTOCOL="HTTP/1.1"
    )
    said = response.content.decode()
    assert response.status_code == 403
    is_own = "https://files.example.com/&lt;a&gt;</textarea>" in said
    assert is_own == (wanted != "/"), "a text of another site is not shown"
    assert f'<a href="/login/?next={wanted}">Sign in</a>' in said


def test_a_part_of_a_page_is_not_replaced_by_the_login(visitor: Client) -> None:
    response = visitor.get("/stats/", headers={"HX-Request": "true"})
    assert (response.status_code, response["HX-Refresh"]) == (401, "true")


def test_a_refused_press_is_a_message_beside_the_button(demo: None, visitor: Client) -> None:
    token = _token(_get(visitor, "/"))
    form = {"do": "explode", "csrfmiddlewaretoken": token}
    response = visitor.post("/", form, headers={"HX-Request": "true"}, SERVER_PROTOCOL="HTTP/1.1")
    assert (response.status_code, response["HX-Retarget"]) == (400, "#refusal")
    assert "<html" not in response.content.decode()


def test_the_login_leads_back_and_goes_nowhere_else(visitor: Client, user: User) -> None:
    form = _get(visitor, "/login/?next=/stats/")
    assert form["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    given = {"username": "ada", "password": PASSWORD}
    token = _token(form)
    answer = _post(
        visitor, "/login/", {**given, "next": "//evil.example/", "csrfmiddlewaretoken": token}
    )
    assert answer["Location"] == "/"


def test_curl_gets_the_index_of_the_api(demo: None) -> None:
    curl = Client(headers={"Host": "localhost", "Accept": "*/*"})
    response = _get(curl, "/")
    assert response["Content-Type"] == "application/json"
    assert "GET /api/" in response.json()["endpoints"]
    assert "Accept" in response["Vary"]


def test_a_button_without_its_token_is_refused(demo: None, visitor: Client) -> None:
    response = _post(visitor, "/", {"do": "write"})
    assert response.status_code == 403
    assert "CSRF" in response.content.decode()


def test_a_button_with_its_token_works_and_leads_back(demo: None, visitor: Client) -> None:
    token = _token(_get(visitor, "/"))
    response = _post(visitor, "/", {"do": "write", "csrfmiddlewaretoken": token})
    assert (response.status_code, response["Location"]) == (303, "/")


def test_a_button_that_there_is_none_is_named(demo: None, visitor: Client) -> None:
    token = _token(_get(visitor, "/"))
    response = _post(visitor, "/", {"do": "explode", "csrfmiddlewaretoken": token})
    assert response.status_code == 400
    assert "expected one of show, write, increment, clear" in response.content.decode()


def test_show_me_leaves_its_result_and_its_marks(
    demo: None, visitor: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((overview, "_READ_S"), (overview, "_CHANGE_S"), (show, "_CHANGE_S")):
        monkeypatch.setattr(module, name, 60.0)
    token = _token(_get(visitor, "/"))
    assert "Not shown yet" in _get(visitor, "/").content.decode()
    _post(visitor, "/", {"do": "show", "csrfmiddlewaretoken": token})
    result = show.latest()
    assert result is not None
    by_alias = {one.alias: one for one in result.results}
    lmdb = by_alias["lmdb"]  # one worker: nothing can go wrong
    assert (lmdb.counted, lmdb.lost, lmdb.let_through, lmdb.spent) == (100, 0, 5, 1)
    assert "No cache lost an increment" in _get(visitor, "/").content.decode()
    marks = json.loads((state_dir() / "timeline.json").read_text())
    assert {(alias, kind) for _, alias, _, kind, _, _ in marks} >= {
        ("lmdb", "write"),
        ("lmdb", "increment"),
        ("lmdb", "read"),
    }


def _html(event: str) -> str:
    name, _, data = event.strip().partition("\ndata: ")
    assert name == "event: overview"
    found: str = json.loads(data)["html"]
    return found


def test_the_front_page_gets_an_event_as_soon_as_something_was_changed(
    demo: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [1000.0]
    monkeypatch.setattr(clock, "monotonic_s", lambda: now_s[0])
    events = OverviewEvents()
    assert "NOTHING YET" in _html(events.new_events())
    assert events.new_events() == ""  # the clock stands still, and nothing was changed
    overview.write()
    with page_record.record() as found:
        written = found.of("lmdb").written
    assert written is not None
    assert written.value in _html(events.new_events())
    assert events.new_events() == ""
    now_s[0] += 2.0
    assert written.value in _html(events.new_events())
    assert not events.is_finished


def test_the_events_of_the_front_page_end_where_the_demo_cannot_run(
    demo: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_names: str) -> None:
        raise StoreUnavailable("STATE_DIR is not private")

    monkeypatch.setattr(page_record, "stamp", refuse)
    events = OverviewEvents()
    assert events.new_events().startswith(": ")
    assert events.is_finished


def test_the_events_of_the_front_page_are_limited_and_refused_as_the_page_is(
    demo: None, visitor: Client, user: User, settings: Settings
) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, "DOWNLOAD_STREAMS": 1, "DOWNLOAD_STREAM_S": 0.001}
    with contextlib.closing(_get(visitor, "/events")) as first:
        assert first["Content-Type"] == "text/event-stream"
        assert _get(visitor, "/events").status_code == 503
        content = b"".join(first).decode()
    assert 'id=\\"overview\\"' in content
    settings.CACHEAPP = {**settings.CACHEAPP, "DEMO": False}
    visitor.force_login(user)
    assert _get(visitor, "/events").status_code == 403


def test_no_page_shows_a_key_that_is_not_the_demos_or_a_secret(
    demo: None, visitor: Client, settings: Settings
) -> None:
    caches["lmdb"].set("session-of-ada", "her-private-value")
    redis = {**settings.CACHES["redis"], "LOCATION": "redis://me:hunter2@127.0.0.1:1/0"}
    settings.CACHES = {**settings.CACHES, "redis": redis}
    for path in PAGES:
        said = _get(visitor, path).content.decode()
        assert "session-of-ada" not in said
        assert "her-private-value" not in said
        assert settings.SECRET_KEY not in said
        assert "hunter2" not in said


def test_clearing_leaves_the_applications_keys(demo: None, visitor: Client) -> None:
    caches["lmdb"].set("mine", 1)
    token = _token(_get(visitor, "/"))
    _post(visitor, "/", {"do": "write", "csrfmiddlewaretoken": token})
    _post(visitor, "/", {"do": "clear", "csrfmiddlewaretoken": token})
    assert caches["lmdb"].get("mine") == 1
    assert DemoCache("lmdb").get(VALUE_KEY) == (None, False)


def test_a_download_that_there_is_none_is_not_found(demo: None, visitor: Client) -> None:
    response = _get(visitor, "/downloads/00000000-0000-0000-0000-000000000000/")
    assert response.status_code == 404
    assert "No download has the id" in response.content.decode()
    assert response["Content-Security-Policy"] == CONTENT_SECURITY_POLICY


def test_ordering_needs_more_than_looking(visitor: Client, user: User) -> None:
    user.user_permissions.add(Permission.objects.get(codename="view_downloadjob"))
    visitor.force_login(user)
    token = _token(_get(visitor, "/downloads/"))
    form = {"urls": "http://a.example/x", "threads": "1", "csrfmiddlewaretoken": token}
    response = _post(visitor, "/downloads/", form)
    assert response.status_code == 403
    assert "add_downloadjob" in response.content.decode()
    assert existing_coordinator() is None


def test_what_is_wrong_with_an_order_is_listed_and_what_was_typed_stays(
    demo: None, visitor: Client
) -> None:
    token = _token(_get(visitor, "/downloads/"))
    form = {"urls": "http://a.example/x\nnonsense", "threads": "x<y", "csrfmiddlewaretoken": token}
    response = _post(visitor, "/downloads/", form)
    said = response.content.decode()
    assert response.status_code == 422
    assert len(response.context["problems"]) == 3
    assert "x&lt;y" in said
    assert "nonsense" in said
    assert conf().download_root is not None


def test_an_experiment_that_there_is_none_is_named(demo: None, visitor: Client) -> None:
    token = _token(_get(visitor, "/lab/"))
    form = {"name": "../x", "csrfmiddlewaretoken": token}
    response = _post(visitor, "/lab/start", form)
    assert response.status_code == 400
    assert "expected one of waiting" in response.content.decode()


def test_a_check_of_nothing_says_what_is_missing(demo: None, visitor: Client) -> None:
    token = _token(_get(visitor, "/check/"))
    form = {"alias": "nobody", "seconds": "9999", "csrfmiddlewaretoken": token}
    said = _post(visitor, "/check/start", form).content.decode()
    assert "No alias &#x27;nobody&#x27;" in said
    assert "Seconds: expected one of 0.5, 2, 5" in said


def test_a_refused_check_keeps_the_choices(demo: None, visitor: Client) -> None:
    token = _token(_get(visitor, "/check/"))
    form = {"seconds": "5", "what": "all", "csrfmiddlewaretoken": token}
    response = _post(visitor, "/check/start", form)
    assert response.status_code == 400
    kept = {"aliases": [], "seconds": "5", "private": False, "quick": False}
    assert response.context["choices"] == kept
    assert "No alias selected" in response.content.decode()
    again = _get(visitor, "/check/?alias=lmdb&seconds=0.5&private=1")
    kept = {"aliases": ["lmdb"], "seconds": "0.5", "private": True, "quick": True}
    assert again.context["choices"] == kept


def test_a_second_one_is_refused_while_one_runs(demo: None, visitor: Client) -> None:
    token = _token(_get(visitor, "/check/"))
    form = {"alias": "lmdb", "seconds": "0.5", "csrfmiddlewaretoken": token}
    descriptor = exclusive_run.acquire()
    try:
        response = _post(visitor, "/check/start", form)
    finally:
        os.close(descriptor)
    assert response.status_code == 409
    said = response.content.decode().lower()
    assert "only one experiment or check runs on a machine at a time" in said


def test_a_drawing_is_an_image_that_can_do_nothing(demo: None, visitor: Client) -> None:
    kept = {"drawings": [{"alias": "a", "property": "p", "svg": "<svg/>", "text": ""}]}
    replace("check-report.json", json.dumps(kept))
    response = _get(visitor, "/check/drawing/0")
    assert response["Content-Type"] == "image/svg+xml"
    assert response["Content-Security-Policy"] == DRAWING_POLICY
    assert _get(visitor, "/check/drawing/1").status_code == 404


JOB = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/stats/", "GET, HEAD"),
        ("/lab/", "GET, HEAD"),
        ("/check/", "GET, HEAD"),
        ("/", "GET, POST, HEAD"),
        ("/events", "GET, HEAD"),
        ("/machines/", "GET, POST, HEAD"),
        ("/downloads/", "GET, POST, HEAD"),
        ("/downloads/actions", "POST"),
        (f"/downloads/{JOB}/", "GET, HEAD"),
        ("/lab/drawing/waiting", "GET, HEAD"),
        ("/lab/waiting/", "GET, HEAD"),
        ("/check/drawing/0", "GET, HEAD"),
        (f"/downloads/{JOB}/action", "POST"),
        ("/lab/start", "POST"),
        ("/lab/stop", "POST"),
        ("/check/start", "POST"),
        ("/check/stop", "POST"),
    ],
)
def test_a_page_refuses_methods_that_it_does_not_use(
    demo: None, visitor: Client, path: str, allowed: str
) -> None:
    for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "TRACE", "OPTIONS"):
        if method in allowed.split(", "):
            continue
        response = visitor.generic(method, path)
        assert (response.status_code, response["Allow"]) == (405, allowed), method
        if method != "TRACE":
            assert "Use the buttons of the page" in response.content.decode(), method


@pytest.mark.parametrize(
    "text",
    ["", "[]", "5", "[[1]]", '{"lmdb": {"written": {"value": 1, "pid": "x"}, "counted": null}}'],
)
def test_damaged_records_count_as_none(demo: None, visitor: Client, text: str) -> None:
    """So do those that another version wrote."""
    directory = private_directory(state_dir())
    for name in ("page.json", "show.json", "timeline.json", "stats-ring.json"):
        (directory / name).write_text(text)
    for name in ("status.json", "check-status.json", "check-report.json", "waiting.json"):
        replace(name, text)
    found = {path: _get(visitor, path).status_code for path in PAGES}
    assert found == dict.fromkeys(PAGES, 200)
