"""The lab and the check in a browser: started, watched, stopped; what was found stays."""

from playwright.sync_api import expect

from tests.browser.watching import Watched

PATIENCE_MS = 120_000


def test_a_check_finds_locmem_broken_and_draws_why(watched: Watched) -> None:
    page = watched.page
    page.goto("/check/")
    for alias in ("disk", "redis"):
        page.get_by_role("checkbox", name=alias).uncheck()
    page.get_by_label("Seconds for each").select_option("0.5")
    page.get_by_role("button", name="Check").click()
    region = page.get_by_role("region", name="What runs")
    expect(region).to_be_visible(timeout=PATIENCE_MS)
    expect(region).to_have_count(0, timeout=PATIENCE_MS)
    order = page.get_by_role("row", name="one order")
    expect(order).to_contain_text("HOLDS", timeout=PATIENCE_MS)
    expect(order).to_contain_text("BROKEN")
    drawing = page.get_by_role("img", name="The calls of each process").first
    expect(drawing).to_be_visible()
    assert drawing.evaluate("image => image.naturalWidth") > 100
    page.get_by_text("The same as text").first.click()
    expect(page.get_by_label("Timeline as text").first).to_contain_text("p")


def test_an_experiment_is_started_seen_running_and_stopped(watched: Watched) -> None:
    page = watched.page
    page.goto("/lab/")
    page.get_by_role("button", name="Run Waiting").click()
    region = page.get_by_role("region", name="What runs")
    expect(region).to_contain_text("waiting", timeout=PATIENCE_MS)
    expect(region).not_to_contain_text("starting", timeout=PATIENCE_MS)
    expect(page.get_by_role("button", name="Run Waiting")).to_be_disabled()
    page.get_by_role("button", name="Stop").click()
    expect(region).to_have_count(0, timeout=PATIENCE_MS)
    expect(page.get_by_text("was stopped")).to_be_visible(timeout=PATIENCE_MS)
    expect(page.get_by_role("button", name="Run Waiting")).to_be_enabled()
