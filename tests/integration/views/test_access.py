"""Access to views: by session, by bearer token, or from this machine with the demo on."""

import hashlib
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.checks import run_checks
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.test import Client, override_settings
from django.urls import path
from pytest_django.fixtures import Settings

from cacheapp.conf import read
from cacheapp.views.access import caller, check_permission, permission_required
from cacheapp.views.responses import json_response

pytestmark = pytest.mark.django_db

SECRET = "a-secret-that-nobody-guesses"  # noqa: S105 (made up)
MAY = "cacheapp_downloads.view_downloadjob"


@permission_required(MAY, POST="cacheapp_downloads.add_downloadjob")
def api(request: HttpRequest) -> HttpResponseBase:
    return json_response(HTTPStatus.OK, caller=caller(request).name)


@permission_required()
def whoever(request: HttpRequest) -> HttpResponseBase:
    check_permission(request, "cacheapp.use_demo")
    return json_response(HTTPStatus.OK)


@permission_required(MAY, page_methods=["GET", "POST"])
def page(request: HttpRequest) -> HttpResponseBase:
    return HttpResponse(
        f"{caller(request).name} {caller(request).has_permission('cacheapp.run_lab')}"
    )


urlpatterns = [path("api", api), path("whoever", whoever), path("page", page)]


def _entry(secret: str, *permissions: str) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(secret.encode()).hexdigest(), "permissions": permissions}


@pytest.fixture(autouse=True)
def _site(settings: Settings, tmp_path: Path) -> None:
    settings.ROOT_URLCONF = __name__
    settings.LOGIN_URL = "/login"
    settings.ALLOWED_HOSTS = ["*"]
    settings.SECURE_SSL_REDIRECT = False
    settings.CSRF_COOKIE_SECURE = settings.SESSION_COOKIE_SECURE = False
    settings.STATIC_ROOT = tmp_path  # WhiteNoise warns about a missing directory
    tokens = {"reader": _entry(SECRET, MAY), "other": _entry("x" * 40, "cacheapp.use_demo")}
    settings.CACHEAPP = {**settings.CACHEAPP, "DEMO": False, "API_TOKENS": tokens}


@pytest.fixture
def reader() -> User:
    user = User.objects.create_user("reader")
    user.user_permissions.add(Permission.objects.get(codename="view_downloadjob"))
    return user


def from_here(**meta: str) -> Client:
    return Client(enforce_csrf_checks=True, HTTP_HOST="localhost", **meta)  # type: ignore[arg-type]


def signed_in(user: User, **meta: str) -> Client:
    client = from_here(**meta)
    client.force_login(user)
    return client


def bearing(secret: str) -> Client:
    return from_here(HTTP_AUTHORIZATION=f"Bearer {secret}")


def test_a_bearer_with_the_permission_is_let_in() -> None:
    found = bearing(SECRET).get("/api")
    assert (found.status_code, found.json()["caller"]) == (200, "token reader")
    assert "Authorization" in found["Vary"]


def test_a_bearer_without_the_permission_is_told_which() -> None:
    found = bearing(SECRET).post("/api", content_type="application/json")
    assert found.status_code == 403
    assert found["Content-Type"] == "application/problem+json"
    assert found.json()["detail"] == (
        "token reader does not have the permission cacheapp_downloads.add_downloadjob"
    )
    assert 'error="insufficient_scope"' in found["WWW-Authenticate"]


@pytest.mark.parametrize("secret", ["", "wrong", SECRET[:-1], SECRET + "x", "\xff\u20ac"])
@pytest.mark.parametrize("demo", [False, True], ids=["demo off", "demo on"])
def test_a_wrong_bearer_is_refused_also_where_the_demo_would_let_it_in(
    secret: str, settings: Settings, caplog: pytest.LogCaptureFixture, *, demo: bool
) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, "DEMO": demo}
    found = bearing(secret).get("/api")
    assert found.status_code == 401
    assert 'error="invalid_token"' in found["WWW-Authenticate"]
    if secret:
        assert secret not in found.content.decode()
        assert secret not in caplog.text


def test_a_bearer_changes_without_a_csrf_token_though_a_session_is_there(
    settings: Settings, reader: User
) -> None:
    entry = _entry(SECRET, "cacheapp_downloads.add_downloadjob")
    settings.CACHEAPP = {**settings.CACHEAPP, "API_TOKENS": {"writer": entry}}
    client = signed_in(reader, HTTP_AUTHORIZATION=f"bearer {SECRET}")
    found = client.post("/api", content_type="application/json")
    assert (found.status_code, found.json()["caller"]) == (200, "token writer")


def _acting_for(username: str, *permissions: str) -> dict[str, Any]:
    return {"writer": {**_entry(SECRET, *permissions), "user": username}}


def test_a_bearer_of_a_user_may_do_what_both_may(settings: Settings, reader: User) -> None:
    tokens = _acting_for("reader", MAY, "cacheapp_downloads.add_downloadjob")
    settings.CACHEAPP = {**settings.CACHEAPP, "API_TOKENS": tokens}
    found = bearing(SECRET).get("/api")
    name = f"user {reader.pk} (reader), token writer"
    assert (found.status_code, found.json()["caller"]) == (200, name)
    refused = bearing(SECRET).post("/api", content_type="application/json")
    assert refused.status_code == 403
    assert refused.json()["detail"] == (
        f"{name} does not have the permission cacheapp_downloads.add_downloadjob"
    )


def test_a_bearer_of_a_superuser_is_limited_to_its_own_permissions(settings: Settings) -> None:
    User.objects.create_superuser("boss")
    settings.CACHEAPP = {**settings.CACHEAPP, "API_TOKENS": _acting_for("boss", MAY)}
    assert bearing(SECRET).get("/api").status_code == 200
    assert bearing(SECRET).post("/api", content_type="application/json").status_code == 403


@pytest.mark.parametrize("name", ["reader", "nobody"], ids=["not active", "unknown"])
def test_a_bearer_of_a_user_who_may_not_sign_in_is_refused(
    name: str, settings: Settings, reader: User
) -> None:
    User.objects.filter(pk=reader.pk).update(is_active=False)
    settings.CACHEAPP = {**settings.CACHEAPP, "API_TOKENS": _acting_for(name, MAY)}
    found = bearing(SECRET).get("/api")
    assert found.status_code == 403
    assert f"acts for user {name!r}, who does not exist or is not active" in found.json()["detail"]


def test_a_bearer_opens_no_page() -> None:
    assert bearing(SECRET).get("/page").status_code == 302


def test_an_unknown_one_is_told_401_and_how_to_become_known() -> None:
    found = from_here().get("/api")
    assert found.status_code == 401
    assert found["WWW-Authenticate"] == 'Bearer realm="cacheapp"'
    assert found.json()["title"] == "Unauthorized"
    assert found.json()["status"] == 401
    assert "Authorization: Bearer" in found.json()["detail"]


def test_a_user_with_the_permission_reads(reader: User) -> None:
    found = signed_in(reader).get("/api")
    name = f"user {reader.pk} (reader)"
    assert (found.status_code, found.json()["caller"]) == (200, name)
    assert signed_in(reader).get("/page").content.decode() == f"{name} False"


def test_a_user_without_it_is_told_403() -> None:
    other = User.objects.create_user("other")
    found = signed_in(other).get("/api")
    assert found.status_code == 403
    assert found.json()["error"] == f"user other does not have the permission {MAY}"
    assert signed_in(other).get("/page").status_code == 403


def test_a_user_who_was_locked_out_is_not_let_in(reader: User) -> None:
    client = signed_in(reader)
    User.objects.update(is_active=False)
    assert client.get("/api").status_code == 401


def test_a_session_changes_only_with_a_csrf_token() -> None:
    client = signed_in(User.objects.create_superuser("boss"))
    refused = client.post("/api", content_type="application/json")
    assert refused.status_code == 403
    assert refused.json()["error"].startswith("CSRF: CSRF cookie not set")
    token = "a" * 32
    client.cookies["csrftoken"] = token
    client.defaults["HTTP_X_CSRFTOKEN"] = "b" * 32
    assert client.post("/api", content_type="application/json").status_code == 403
    client.defaults["HTTP_X_CSRFTOKEN"] = token
    assert client.post("/api", content_type="application/json").status_code == 200


def test_a_session_changes_by_form_only_with_a_csrf_token(reader: User) -> None:
    client = signed_in(reader)
    assert client.post("/page", {"x": 1}).status_code == 403
    client.cookies["csrftoken"] = "a" * 32
    assert client.post("/page", {"csrfmiddlewaretoken": "a" * 32}).status_code == 200


def test_the_demo_lets_this_machine_in_without_either(settings: Settings) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, "DEMO": True}
    found = from_here().post("/api", content_type="application/json")
    assert (found.status_code, found.json()["caller"]) == (200, "this machine")
    assert from_here().get("/page").content == b"this machine True"


def test_the_demo_lets_nobody_else_in_but_those_who_may(settings: Settings, reader: User) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, "DEMO": True}
    elsewhere = {"HTTP_X_FORWARDED_FOR": "192.0.2.1"}
    assert from_here(**elsewhere).get("/api").status_code == 403
    assert from_here(**elsewhere).get("/page")["Location"] == "/login?next=/page"
    assert signed_in(reader, **elsewhere).get("/api").status_code == 200
    assert signed_in(reader, **elsewhere).get("/page").status_code == 200


def test_the_demos_pages_ask_this_machine_too_for_a_csrf_token(settings: Settings) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, "DEMO": True}
    client = from_here()
    assert client.post("/page", {"x": 1}).status_code == 403
    client.cookies["csrftoken"] = "a" * 32
    form = {"csrfmiddlewaretoken": "a" * 32}
    assert client.post("/page", form).status_code == 200
    assert client.post("/page", form, HTTP_ORIGIN="https://example.com").status_code == 403


def test_a_page_leads_to_the_login_and_back() -> None:
    found = from_here().get("/page?a=1")
    assert (found.status_code, found["Location"]) == (302, "/login?next=/page%3Fa%3D1")


def test_whoever_is_known_passes_where_no_permission_is_named() -> None:
    assert bearing("x" * 40).get("/whoever").status_code == 200
    refused = bearing(SECRET).get("/whoever")
    assert (refused.status_code, refused.json()["error"]) == (
        *(403, "token reader does not have the permission cacheapp.use_demo"),
    )


def test_a_project_without_users_has_tokens_all_the_same(settings: Settings) -> None:
    kept = [name for name in settings.MIDDLEWARE if "Authentication" not in name]
    with override_settings(MIDDLEWARE=kept):
        assert bearing(SECRET).get("/api").status_code == 200
        assert from_here().get("/api").status_code == 401


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["x"], "a dict: {name: {'sha256': …, 'permissions': […]}}"),
        ({"a b": _entry("x")}, "names of 1 to 40 letters, digits and . _ -"),
        ({"a": "hunter2"}, "'sha256' and 'permissions' for 'a', perhaps 'user', and nothing else"),
        ({"a": {**_entry("x"), "secret": "hunter2"}}, "and nothing else"),
        ({"a": {"sha256": "hunter2", "permissions": []}}, "the SHA-256 of the secret of 'a'"),
        (
            {"a": _entry("x", "everything")},
            "permissions such as ['cacheapp_downloads.view_downloadjob'] for 'a'",
        ),
        (
            {"a": {**_entry("x"), "permissions": MAY}},
            "permissions such as ['cacheapp_downloads.view_downloadjob'] for 'a'",
        ),
        ({"a": _entry("x"), "b": _entry("x")}, "each secret under one name"),
        ({"a": {**_entry("x"), "user": 7}}, "a user name, or None, as the 'user' of 'a'"),
    ],
)
def test_a_wrong_setting_is_named_and_never_shown(tokens: Any, expected: str) -> None:
    (mistake,) = read({"API_TOKENS": tokens})[1]
    assert mistake.startswith(
        f"CACHEAPP['API_TOKENS'] is of type {type(tokens).__name__}; expected "
    )
    assert expected in mistake
    assert "hunter2" not in mistake


def test_e005_a_permission_that_does_not_exist(settings: Settings) -> None:
    settings.ROOT_URLCONF = "project.urls"
    tokens = {"reader": _entry(SECRET, MAY, "cacheapp.fly", "cacheapp.use_demo")}
    settings.CACHEAPP = {**settings.CACHEAPP, "API_TOKENS": tokens}
    (found,) = [message for message in run_checks() if message.id == "cacheapp.E005"]
    assert found.msg == (
        "CACHEAPP['API_TOKENS']['reader'] has the permission 'cacheapp.fly', which does not exist."
    )
    assert "cacheapp_downloads.add_downloadjob" in str(found.hint)
