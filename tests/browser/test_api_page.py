"""The page of the API's description, in a real browser under the policy of all pages."""

from playwright.sync_api import expect

from tests.browser.watching import Watched


def test_the_page_of_the_api_shows_and_sends_requests(watched: Watched) -> None:
    """`watched` itself checks for browser errors, refused styles among them, at the end."""
    page = watched.page
    page.goto("/api/docs/")
    row = page.locator("#operations-default-worker")
    expect(row).to_contain_text("The worker that responds", timeout=60_000)
    assert page.locator(".opblock").count() > 15
    row.locator("button").first.click()
    row.get_by_role("button", name="Try it out").click()
    row.get_by_role("button", name="Execute").click()
    expect(row.locator(".live-responses-table .response-col_status:not(.col_header)")).to_have_text(
        "200", timeout=60_000
    )
