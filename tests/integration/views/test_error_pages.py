"""The pages of errors: each has its reason and advice, and depends on nothing that may be broken."""

import base64
import hashlib
import json
import re
from typing import Any
from urllib.parse import urlencode

import pytest
from django.core.exceptions import RequestDataTooBig
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import include, path

from cacheapp.views.pages import page
from project.urls import (  # noqa: F401 (of this URLconf)
    handler400,
    handler403,
    handler404,
    handler500,
)

HTML = {"Accept": "text/html"}


def _breaks(_request: HttpRequest) -> HttpResponse:
    raise RuntimeError("a password")


def _too_big(_request: HttpRequest) -> HttpResponse:
    raise RequestDataTooBig("more than allowed")


@page("cacheapp.use_demo", "GET", "POST")
def _no_database(_request: HttpRequest) -> HttpResponse:
    raise OperationalError("host=secret")


urlpatterns = [
    path("breaks", _breaks),
    path("too-big", _too_big),
    path("no-database", _no_database),
    path("", include("project.urls")),
]


@pytest.fixture
def client(settings: Any, idle_site: None) -> Client:
    settings.ROOT_URLCONF = __name__
    settings.DEBUG = False
    settings.CACHEAPP = {**settings.CACHEAPP, "DEMO": True}
    return Client(
        enforce_csrf_checks=True,
        raise_request_exception=False,
        headers={"Host": "localhost", **HTML},
    )


def _get(client: Client, url: str, **headers: str) -> Any:
    return client.get(url, headers=headers, SERVER_PROTOCOL="HTTP/1.1")


def test_the_page_of_a_500_needs_neither_database_nor_static_files(
    client: Client, settings: Any
) -> None:
    """No fixture of this test opens the database, and the manifest of static files is missing."""
    staticfiles = {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"}
    settings.STORAGES = {**settings.STORAGES, "staticfiles": staticfiles}
    response = _get(client, "/breaks")
    said = response.content.decode()
    assert response.status_code == 500
    assert "Load the page again" in said
    assert "a password" not in said
    assert '<a href="/">' in said
    (style,) = re.findall(r"<style>(.*?)</style>", said, re.DOTALL)
    assert _sha256(style) in response["Content-Security-Policy"]


def test_a_program_gets_a_500_as_json(client: Client) -> None:
    response = _get(client, "/breaks", Accept="*/*")
    assert json.loads(response.content)["status"] == 500


@pytest.mark.django_db
def test_a_form_that_is_too_large_is_a_413_with_advice(client: Client) -> None:
    token = str(_get(client, "/downloads/").context["csrf_token"])
    form = urlencode({"urls": "x" * 100, "csrfmiddlewaretoken": token})
    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=10):
        of_a_page = client.post(
            "/downloads/", form, "application/x-www-form-urlencoded", SERVER_PROTOCOL="HTTP/1.1"
        )
    for response in (of_a_page, _get(client, "/too-big")):
        assert response.status_code == 413
        assert "Send less at once" in response.content.decode()
    assert "larger than this site accepts, which is 10\xa0bytes" in of_a_page.content.decode()


@pytest.mark.django_db
def test_an_unknown_address_is_a_404_without_the_patterns_of_the_project(client: Client) -> None:
    response = _get(client, "/nowhere/")
    said = response.content.decode()
    assert response.status_code == 404
    assert "There is no page at /nowhere/." in said
    assert "uuid" not in said
    assert 'aria-label="Pages"' in said


@pytest.mark.django_db
def test_a_form_of_the_project_without_a_token_names_the_remedy(client: Client) -> None:
    response = client.post("/logout/", SERVER_PROTOCOL="HTTP/1.1")
    assert response.status_code == 403
    assert "Allow cookies" in response.content.decode()


def test_the_page_of_a_503_does_not_read_the_session(client: Client) -> None:
    response = _get(client, "/no-database")
    said = response.content.decode()
    assert response.status_code == 503
    assert "try again in a minute" in said
    assert "secret" not in said


@pytest.mark.django_db
def test_a_foreign_host_is_a_400(client: Client, settings: Any) -> None:
    """In a project without the middleware of this one, which responds first."""
    own = "project.middleware."
    settings.MIDDLEWARE = [one for one in settings.MIDDLEWARE if not one.startswith(own)]
    referer = {"Host": "foreign.example", "Referer": "http://foreign.example/", **HTML}
    for method in (client.get, client.post):
        response = method("/downloads/", headers=referer, SERVER_PROTOCOL="HTTP/1.1")
        assert response.status_code == 400
        assert response["Content-Type"].startswith("text/html")


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
