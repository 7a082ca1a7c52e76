"""Django's admin under the policy of the pages: no violation of it, and readable on a phone."""

import os
import subprocess
import sys

import pytest
from playwright.sync_api import Page

from cacheapp.processes.servers import GunicornServer
from tests.browser.test_every_page import NARROW
from tests.browser.watching import Watched
from tests.system.conftest import ROOT

NAME = "an.operator.with.a.long.name@department.example.com"
PASSWORD = "long enough to be one"  # noqa: S105 (made up)
WIDE = 1280
SHOTS = os.environ.get("SHOTS", "")


@pytest.fixture
def admin(watched: Watched, site: GunicornServer, shared_env: dict[str, str]) -> Page:
    """A tab in which a superuser has signed in at the admin."""
    env = {**os.environ, **shared_env, "DJANGO_SUPERUSER_PASSWORD": PASSWORD}
    command = [sys.executable, "manage.py", "createsuperuser", "--noinput"]
    command += ["--username", NAME, "--email", "operator@example.com"]
    subprocess.run(command, env=env, cwd=ROOT, check=True, capture_output=True)
    page = watched.page
    page.goto("/admin/")
    page.fill("#id_username", NAME)
    page.fill("#id_password", PASSWORD)
    page.click("input[type=submit]")
    page.wait_for_selector("#user-tools")
    return page


def _order_a_job(page: Page, url: str) -> str:
    """Create a job by the form of the pages, wait for its end, and return its id."""
    page.goto("/downloads/")
    page.click("summary")
    page.fill("#urls", url)
    page.click("#new button")
    page.wait_for_selector("[data-state]:has-text('succeeded')")
    return page.url.strip("/").rpartition("/")[2]


def test_the_admin_and_the_trail_of_a_job_work_under_the_policy(
    admin: Page, site: GunicornServer
) -> None:
    """`watched` fails the test for each violation of the policy that the browser reports."""
    job = _order_a_job(admin, f"{site.url}/api/demo/file/1")
    lists = [
        f"/admin/cacheapp_downloads/{it}/" for it in ("downloadjob", "downloadfile", "auditentry")
    ]
    places = ["/admin/", *lists, f"{lists[0]}{job}/change/", "/admin/auth/user/add/"]
    for width in (NARROW, WIDE):
        admin.set_viewport_size({"width": width, "height": 740})
        for place in [f"/downloads/{job}/", "/downloads/", *places]:
            found = admin.goto(place)
            assert found is not None
            assert "default-src 'none'" in found.headers["content-security-policy"]
            if not place.startswith("/admin/"):  # Django's header breaks no long name
                assert admin.evaluate("document.documentElement.scrollWidth") <= width, place
            if SHOTS:
                for scheme in ("light", "dark"):
                    admin.emulate_media(color_scheme=scheme, reduced_motion="reduce")
                    name = place.strip("/").replace("/", "-").replace(job, "job")
                    admin.screenshot(path=f"{SHOTS}/{name}-{width}-{scheme}.png", full_page=True)
    admin.goto(f"{lists[0]}{job}/change/")
    admin.click("text=audit entries of the job")
    begun, created = admin.locator("#result_list tbody tr").all_inner_texts()
    assert "begin" in begun
    assert job in created
    assert "create" in created
    assert NAME in created
