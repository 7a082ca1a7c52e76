"""What holds for every page: it fits a phone, is quiet, and can be used by everybody."""

import re
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from cacheapp.lab.servers import GunicornServer
from cacheapp.lab.workers import Workers
from tests.browser.watching import Watched

PAGES = ["/", "/downloads/", "/downloads/?example=1", "a download", "/stats/", "/login/"]
NARROW = 360  # px: a small phone
GRAVE = {"serious", "critical"}


@pytest.fixture(scope="session")
def a_download(site: GunicornServer) -> str:
    """The address of a job that has files which are whole and one that failed."""
    urls = [f"{site.url}/api/demo/file/{number}" for number in range(30)]
    order = {"urls": [*urls, f"{site.url}/api/nothing/here"], "threads": 4}
    with Workers(site.url, count=4) as workers:
        answer = workers.ask(workers.find()[0], "POST", "/api/downloads", order)
    assert answer.status == 202, answer.body
    return f"/downloads/{answer.body['id']}/"


def _open(page: Page, path: str, a_download: str) -> None:
    page.goto(a_download if path == "a download" else path)
    page.wait_for_load_state("load")


@pytest.mark.parametrize("path", PAGES)
def test_no_page_scrolls_sideways_on_a_phone(watched: Watched, path: str, a_download: str) -> None:
    page = watched.page
    page.set_viewport_size({"width": NARROW, "height": 740})
    _open(page, path, a_download)
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= NARROW, f"{path} is {width} px wide"


@pytest.mark.parametrize("path", PAGES)
def test_axe_finds_nothing_serious(watched: Watched, path: str, a_download: str) -> None:
    page = watched.page
    _open(page, path, a_download)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page).response["violations"]
        grave = [
            f"{one['id']}: {one['help']}: {[node['html'][:120] for node in one['nodes'][:3]]}"
            for one in found
            if one["impact"] in GRAVE
        ]
        assert grave == [], scheme


@pytest.mark.parametrize("path", PAGES)
def test_no_page_has_script_or_style_of_its_own(
    new_context: Any, site: GunicornServer, path: str, a_download: str
) -> None:
    """The policy forbids both, so whatever there were would be dead; and it is on every page."""
    page = new_context(base_url=site.url, java_script_enabled=False).new_page()
    answer = page.goto(a_download if path == "a download" else path)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    html = answer.text()
    assert re.findall(r"<style|\sstyle=|<script(?![^>]*\ssrc=)|\son[a-z]+=", html) == []
    assert "<h1" in html


@pytest.mark.parametrize("path", PAGES)
def test_the_keyboard_reaches_the_content_first(
    watched: Watched, path: str, a_download: str
) -> None:
    page = watched.page
    _open(page, path, a_download)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
