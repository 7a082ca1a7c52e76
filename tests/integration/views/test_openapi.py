"""The description of the API against the URLs, the permissions and the responses of a real job."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import get_resolver
from pytest_django.fixtures import Settings

from cacheapp.openapi.document import document

pytestmark = pytest.mark.django_db
METHODS = ("get", "put", "post", "delete", "patch")
URL = "https://files.example.com/a"


@pytest.fixture(autouse=True)
def _site(settings: Settings, tmp_path: Path) -> None:
    settings.SECURE_SSL_REDIRECT = False
    settings.STATIC_ROOT = tmp_path
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    settings.CACHEAPP = {
        **settings.CACHEAPP,
        "DOWNLOAD_ROOT": tmp_path,
        "DOWNLOAD_RUNNER": "celery",  # nothing runs the job
        "DOWNLOAD_ORIGINS": ["https://files.example.com"],
    }


def _operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document()["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def test_it_describes_each_url_of_the_api_and_no_other() -> None:
    urls = {
        re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", str(pattern.pattern))
        for resolver in get_resolver().url_patterns
        for pattern in getattr(resolver, "url_patterns", [])
        if str(pattern.pattern).startswith("api/")
    }
    described = {path.removeprefix("/") for path in document()["paths"]}
    assert described == urls - {"api/{rest}", "api/docs/"}


def test_each_operation_has_an_id_of_its_own_and_the_methods_that_the_view_allows() -> None:
    ids = [operation["operationId"] for _, _, operation in _operations()]
    assert len(set(ids)) == len(ids)
    user = User.objects.create_superuser("root")
    client = Client(headers={"host": "localhost"})
    client.force_login(user)
    for path, item in document()["paths"].items():
        if path.startswith("/api/demo/"):
            continue  # while the demo is off, 404
        url = path.format(alias="default", key="k", job_id="0" * 32, number=1)
        url = url.replace("0" * 32, "00000000-0000-0000-0000-000000000000")
        allowed = set(client.patch(url).headers["Allow"].lower().split(", "))
        assert allowed - {"head"} == {method for method in METHODS if method in item}, path


def test_the_permission_that_an_operation_names_is_the_one_that_it_requires() -> None:
    user = User.objects.create_user("ann")
    client = Client(headers={"host": "localhost"})
    client.force_login(user)
    for path, method, operation in _operations():
        if path.startswith("/api/demo/"):
            continue
        url = path.format(alias="none", key="k", job_id="00000000-0000-0000-0000-000000000000")
        named = re.search(r"Requires `([\w.]+)`", operation["description"])
        answer = getattr(client, method)(url)
        if named is None:
            assert answer.status_code == 200, path
            continue
        assert answer.status_code == 403, path
        assert named[1] in answer.json()["detail"], path


def _validate(name: str, response: Any) -> None:
    schema = {"$ref": f"#/components/schemas/{name}", "components": document()["components"]}
    jsonschema_rs.validator_for(schema).validate(response)


def test_the_responses_of_a_real_job_have_exactly_the_fields_that_are_described() -> None:
    user = User.objects.create_user("ann")
    names = [f"{what}_downloadjob" for what in ("view", "add", "change", "delete")]
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    client = Client(headers={"host": "localhost"})
    client.force_login(user)
    order = {"urls": [URL], "threads": 2, "parts": 3, "limit_rate": "1MiB/s", "title": "Isos"}
    _validate("Order", order)
    made = client.post("/api/downloads", json.dumps(order), content_type="application/json")
    assert made.status_code == 202, made.content
    _validate("Job", made.json())
    assert made.json()["title"] == "Isos"
    url = f"/api/downloads/{made.json()['id']}"
    _validate("JobDetail", client.get(url).json())
    (listed,) = client.get("/api/downloads").json()["jobs"]
    _validate("ListedJob", listed)
    (file,) = client.get(f"{url}/files").json()["files"]
    _validate("File", file)
    _validate("Job", client.post(f"{url}/pause").json())
    _validate("Job", client.post(f"{url}/cancel").json())
    refused = client.post(f"{url}/pause")
    assert refused.status_code == 409
    _validate("Problem", refused.json())


def test_the_page_shows_it_without_anything_from_elsewhere() -> None:
    user = User.objects.create_user("ann")
    client = Client(headers={"host": "localhost"})
    assert client.get("/api/docs/").status_code == 302
    client.force_login(user)
    answer = client.get("/api/docs/")
    assert answer.status_code == 200
    assert "unsafe" not in answer["Content-Security-Policy"]
    sources = re.findall(r'(?:src|href)="([^"]+)"', answer.content.decode())
    assert len(sources) == 5
    assert all(source.startswith("/static/cacheapp/") for source in sources)
