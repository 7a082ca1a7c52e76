"""The page of the API's description, in a real browser under the policy of all pages."""

from typing import Any

import pytest
from playwright.sync_api import expect

from cacheapp.processes.servers import GunicornServer
from tests.browser.watching import Watched


def test_the_page_of_the_api_shows_and_sends_requests(watched: Watched) -> None:
    """`watched` itself checks for browser errors, refused styles among them, at the end."""
    page = watched.page
    page.goto("/api/docs/")
    row = page.locator("#operations-default-worker")
    expect(row).to_contain_text("The worker that responds", timeout=60_000)
    expect(page.locator(".opblock").nth(15)).to_be_attached()
    row.locator("button").first.click()
    row.get_by_role("button", name="Try it out").click()
    row.get_by_role("button", name="Execute").click()
    expect(row.locator(".live-responses-table .response-col_status:not(.col_header)")).to_have_text(
        "200", timeout=60_000
    )


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_of_the_api_fits_and_is_dark_where_the_reader_is(
    new_context: Any, site: GunicornServer, width: int
) -> None:
    size = {"width": width, "height": 900}
    tab = Watched(new_context(base_url=site.url, viewport=size, color_scheme="dark").new_page())
    tab.page.goto("/api/docs/")
    row = tab.page.locator("#operations-default-storeKey")
    row.locator("button").first.click(timeout=60_000)
    expect(row.locator(".responses-table").first).to_be_visible()
    assert tab.page.evaluate("document.documentElement.scrollWidth") == width
    background = tab.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert max(map(int, background.strip("rgb()").split(", "))) < 60
    outside = """() => {
      const row = document.querySelector("#operations-default-storeKey");
      const right = row.getBoundingClientRect().right;
      return [...row.querySelectorAll("td, th, input, select, button")]
        .filter(each => each.getBoundingClientRect().right > right + 1)
        .map(each => each.outerHTML.slice(0, 80));
    }"""
    assert tab.page.evaluate(outside) == []
    tab.assert_content()
