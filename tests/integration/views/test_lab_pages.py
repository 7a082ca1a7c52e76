"""The pages of the lab, and the data of every page as JSON."""

import hashlib
import html
import os
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils.html import strip_tags
from pytest_django.fixtures import Settings

from cacheapp.demo import worker_agent
from cacheapp.lab.registry import EXPERIMENTS
from cacheapp.lab.results import About, ClaimFinding, ClaimVerdict, Measure, Panel, Result
from cacheapp.processes import exclusive_run
from cacheapp.processes.run_record import replace
from cacheapp.views.pages import CONTENT_SECURITY_POLICY, DRAWING_POLICY

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("idle_site")]


@pytest.fixture
def demo(settings: Settings) -> Iterator[None]:
    settings.CACHEAPP = {**settings.CACHEAPP, "DEMO": True}
    yield
    worker_agent.stop()


@pytest.fixture
def visitor() -> Client:
    """A browser on this machine, which sends CSRF tokens."""
    return Client(enforce_csrf_checks=True, headers={"Host": "localhost", "Accept": "text/html"})


def _get(client: Client, path: str) -> Any:
    return client.get(path, SERVER_PROTOCOL="HTTP/1.1")


def _post(client: Client, path: str, data: dict[str, Any]) -> Any:
    return client.post(path, data, SERVER_PROTOCOL="HTTP/1.1")


@pytest.fixture
def kept_result() -> Result:
    """A result of the lab, as a run leaves it."""
    bars = Panel("<script>alert(1)</script>", "s", (Measure("a", (2.0,)), Measure("b", (1.0,))))
    zeros = Panel("lost", "", (Measure("c", (0.0,)),), expected=0.0)
    waiting = EXPERIMENTS["waiting"]
    held, unknown = waiting.claims
    found = Result(
        *("waiting", waiting.title, waiting.claim, waiting.code, "usual"),
        findings=(
            ClaimFinding(held, ClaimVerdict.HOLDS, "took 5 s", "5.01 s by threads"),
            ClaimFinding(unknown, ClaimVerdict.UNKNOWN, "no S3", "moto is not installed"),
        ),
        panels=(bars, zeros),
        notes=(),
        seconds=12.0,
        about=About("2026-11-30T01:00:00+00:00", "2 cores", "3.11", "Linux", 0.0, {}, 2, 0.1),
    )
    replace("waiting.json", found.to_json())
    return found


def test_the_lab_says_which_claims_hold_which_are_unknown_and_why(
    demo: None, visitor: Client, kept_result: Result
) -> None:
    text = " ".join(strip_tags(_get(visitor, "/lab/").content.decode()).split())
    assert "✓1 hold here ?1 unknown: moto is not installed (1)" in text
    assert "5.01 s by threads" in text
    open_claims = sum(len(one.claims) for one in EXPERIMENTS.values()) - 2
    assert f"{open_claims} not measured here yet" in text


def test_an_experiment_has_a_page_with_its_charts_as_part_of_it(
    demo: None, visitor: Client, kept_result: Result
) -> None:
    page = _get(visitor, "/lab/waiting/")
    said = page.content.decode()
    assert page["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert said.count('class="chart"') == 1  # no chart of zeros
    assert "0 for each: c" in said
    assert "<script>alert" not in said
    assert "def download(" in said
    assert _get(visitor, "/lab/nothing/").status_code == 404
    assert "not run yet" in _get(visitor, "/lab/starting/").content.decode()


def test_the_charts_of_an_experiment_are_a_file_that_can_do_nothing(
    demo: None, visitor: Client, kept_result: Result
) -> None:
    response = _get(visitor, "/lab/drawing/waiting")
    assert response["Content-Type"] == "image/svg+xml"
    assert response["Content-Security-Policy"] == DRAWING_POLICY
    assert response["X-Content-Type-Options"] == "nosniff"
    assert b"<script" not in response.content
    for missing in ("starting", "nothing", "..%2Fpage"):
        assert _get(visitor, f"/lab/drawing/{missing}").status_code == 404


def test_a_refused_run_of_the_lab_keeps_what_was_selected(demo: None, visitor: Client) -> None:
    token = str(_get(visitor, "/lab/").context["csrf_token"])
    form: dict[str, Any] = {"do": "selected", "csrfmiddlewaretoken": token}
    nothing = _post(visitor, "/lab/start", form)
    assert nothing.status_code == 422
    assert "No experiment is selected" in nothing.content.decode()
    descriptor = exclusive_run.acquire()
    try:
        refused = _post(visitor, "/lab/start", {**form, "name": ["starting", "waiting"]})
        from_page = _post(visitor, "/lab/start", {**form, "name": ["waiting"], "page": "waiting"})
    finally:
        os.close(descriptor)
    assert refused.status_code == from_page.status_code == 409
    assert refused.context["selected"] == ["starting", "waiting"]
    assert "only one experiment or check runs" in refused.content.decode()
    assert "def download(" in from_page.content.decode()


@pytest.mark.parametrize(
    ("form", "found"),
    [
        ({}, "the form has neither do nor name; expected do=all; or do=selected"),
        ({"do": "everything"}, "do is 'everything'; expected do=all"),
        ({"do": "", "name": "waiting"}, "do is ''; expected do=all"),
        ({"name": "nothing"}, "no experiment 'nothing'; expected one of"),
    ],
    ids=str,
)
def test_a_run_of_the_lab_that_names_nothing_to_run_is_a_400(
    demo: None, visitor: Client, form: dict[str, Any], found: str
) -> None:
    token = str(_get(visitor, "/lab/").context["csrf_token"])
    response = _post(visitor, "/lab/start", {**form, "csrfmiddlewaretoken": token})
    assert (response.status_code, exclusive_run.holder()) == (400, None)
    assert found in html.unescape(response.content.decode())


SAME = {
    "/": "/api/overview",
    "/lab/": "/api/lab",
    "/lab/waiting/": "/api/lab?name=waiting",
    "/check/": "/api/check",
    "/downloads/": "/api/downloads",
    "/downloads/?state=failed&q=x": "/api/downloads?state=failed",
    "/stats/": "/api/stats",
}


@pytest.mark.parametrize(("path", "data"), SAME.items(), ids=SAME)
def test_a_page_leads_to_its_own_data_by_link_and_by_curl(
    demo: None, visitor: Client, path: str, data: str
) -> None:
    same = _get(visitor, path).context["same"]
    assert same.url == data
    assert shlex.split(same.curl) == ["curl", f"http://localhost{data}"]
    response = Client(headers={"Host": "localhost"}).get(same.url, SERVER_PROTOCOL="HTTP/1.1")
    assert (response.status_code, response["Content-Type"]) == (200, "application/json")


def test_curl_has_a_token_where_the_page_has_a_session(
    visitor: Client, settings: Settings, kept_result: Result
) -> None:
    user = User.objects.create_user("ada")
    settings.CACHEAPP = {
        **settings.CACHEAPP,
        "API_TOKENS": {
            "reader": {
                "sha256": hashlib.sha256(b"secret").hexdigest(),
                "permissions": ["cacheapp.run_lab"],
            }
        },
    }
    user.user_permissions.add(Permission.objects.get(codename="run_lab"))
    visitor.force_login(user)
    page = _get(visitor, "/lab/waiting/")
    curl, option, header, address = shlex.split(page.context["same"].curl)
    assert (curl, option, header) == ("curl", "-H", "Authorization: Bearer $TOKEN")
    assert "TOKEN stands for an API token" in page.content.decode()
    headers = {"Host": "localhost", "Authorization": header.rpartition(": ")[2]}
    headers["Authorization"] = headers["Authorization"].replace("$TOKEN", "secret")
    path = address.removeprefix("http://localhost")
    (one,) = Client(headers=headers).get(path).json()["experiments"]
    assert one["result"]["findings"][0]["figure"] == "5.01 s by threads"
    assert visitor.get(path).json()["experiments"] == [one]
    assert visitor.get("/api/lab?name=nothing").status_code == 400
    assert visitor.get("/api/check").status_code == 403
