"""Every page: it fits a phone, causes no browser errors, and is accessible."""

import re
import urllib.request

import pytest
from playwright.sync_api import Page

from cacheapp.processes.servers import GunicornServer
from cacheapp.processes.workers import Workers
from tests.browser.watching import Watched, grave

PAGES = [
    "/",
    "/downloads/",
    "/downloads/?example=1",
    "a download",
    "/machines/",
    "/lab/",
    "/lab/waiting/",
    "/check/",
    "/stats/",
    "/login/",
]
NARROW = 360  # px: a small phone


@pytest.fixture(scope="session")
def a_download(site: GunicornServer) -> str:
    """The URL of a job with completed files and a failed one."""
    urls = [f"{site.url}/api/demo/file/{number}" for number in range(30)]
    order = {"urls": [*urls, f"{site.url}/api/nothing/here"], "threads": 4}
    with Workers(site.url, count=4) as workers:
        answer = workers.ask(workers.find()[0], "POST", "/api/downloads", order)
    assert answer.status == 202, answer.body
    return f"/downloads/{answer.body['id']}/"


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_quiet_fits_a_phone_and_can_be_used_by_everybody(
    watched: Watched, path: str, a_download: str
) -> None:
    """`watched` itself checks for browser errors at the end."""
    page = watched.page
    page.set_viewport_size({"width": NARROW, "height": 740})
    page.goto(a_download if path == "a download" else path)
    page.wait_for_load_state("load")
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= NARROW, f"{path} is {width} px wide"
    _assert_the_keyboard_reaches_the_content_first(page)
    for scheme in ("light", "dark"):
        # Without motion: during a transition, colours can have any contrast.
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        assert grave(page) == [], scheme


def _assert_the_keyboard_reaches_the_content_first(page: Page) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


@pytest.mark.parametrize("path", PAGES)
def test_no_page_has_script_or_style_of_its_own(
    site: GunicornServer, path: str, a_download: str
) -> None:
    """The policy, which every page has, forbids both, so they would not work."""
    address = site.url + (a_download if path == "a download" else path)
    asked = urllib.request.Request(address, headers={"Accept": "text/html"})  # noqa: S310 (http)
    with urllib.request.urlopen(asked, timeout=120) as answer:  # noqa: S310 (the same)
        policy, html = answer.headers["Content-Security-Policy"], answer.read().decode()
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert re.findall(r"<style|\sstyle=|<script(?![^>]*\ssrc=)|\son[a-z]+=", html) == []
    assert "<h1" in html
