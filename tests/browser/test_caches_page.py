"""The front page in a browser: it finds one cache broken and the others shared."""

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from cacheapp.processes.servers import GunicornServer
from cacheapp.processes.waiting import until
from tests.browser.conftest import SiteEnv
from tests.browser.watching import Watched
from tests.system.conftest import ROOT, WORKERS

SHARED = ("lmdb", "disk", "redis")
PATIENCE_MS = 120_000


def _verdict(page: Page, alias: str) -> Any:
    return expect(page.locator(f"[data-verdict={alias}]"))


def _row(page: Page, alias: str) -> Any:
    return page.get_by_role("article", name=alias)


def _press(page: Page, name: str) -> None:
    with page.expect_response(lambda response: response.request.method == "POST"):
        page.get_by_role("button", name=name).click()


def test_locmem_turns_broken_and_the_others_shared(watched: Watched) -> None:
    page = watched.page
    page.goto("/")
    expect(page.locator(".tiles li")).to_have_count(WORKERS, timeout=PATIENCE_MS)
    _press(page, "Clear the demo")
    for alias in (*SHARED, "locmem"):
        _verdict(page, alias).to_contain_text("NOTHING YET", timeout=PATIENCE_MS)
    _press(page, "Show me")
    for alias in SHARED:
        _verdict(page, alias).to_contain_text("SHARED", timeout=PATIENCE_MS)
        counts = _row(page, alias).locator("li")
        expect(counts).to_have_count(WORKERS)
        for cell in counts.all():
            expect(cell).to_contain_text("100")
    _verdict(page, "locmem").to_contain_text("BROKEN", timeout=PATIENCE_MS)
    expect(_row(page, "locmem")).to_contain_text("100 acknowledged increments")
    expect(_row(page, "locmem").locator("li", has_text="nothing")).to_have_count(WORKERS - 1)
    _assert_the_headline_and_the_timeline_show_it(page)
    page.goto("/")  # the last result is there without a press
    expect(page.get_by_role("heading", name="the shared caches lost 0")).to_be_visible()
    expect(page.get_by_text("Counted on this server").locator("time")).to_contain_text("ago")


def _assert_the_headline_and_the_timeline_show_it(page: Page) -> None:
    headline = page.get_by_role("heading", name="lost")
    expect(headline).to_have_text(
        re.compile(r"locmem lost [1-9]\d* of 100 increments; the shared caches lost 0\s*$")
    )
    outcome = page.get_by_role("region", name="What it means for a site")
    expect(outcome.get_by_role("row", name="locmem")).to_contain_text(f"{5 * WORKERS} of")
    expect(outcome.get_by_role("row", name="locmem")).to_contain_text(f"{WORKERS} times")
    for alias in SHARED:
        expect(outcome.get_by_role("row", name=alias)).to_contain_text("5 of")
        expect(_row(page, alias).locator("use[href='#mark-missed']")).to_have_count(0)
    for lane in _row(page, "locmem").locator(".lane").all():  # each misses the others' increments
        expect(lane.locator("use[href='#mark-missed']")).not_to_have_count(0, timeout=PATIENCE_MS)


def _value(page: Page) -> Any:
    """Return the place of what the workers read of lmdb; the page shows it for each."""
    return _row(page, "lmdb").locator(".value b").first


@pytest.mark.parametrize("lost", ["polls", "events"])
def test_an_open_page_shows_what_another_one_did_by_events_and_by_polls_without_them(
    new_context: Any, site: GunicornServer, lost: str
) -> None:
    writer, watcher = (new_context(base_url=site.url).new_page() for _ in range(2))
    writer.goto("/")
    _press(writer, "Write a value")
    if lost == "events":
        watcher.route("**/events", lambda route: route.abort())
    watcher.goto("/")
    if lost == "polls":
        watcher.route("**/", lambda route: route.abort())
    for _ in range(2):
        before = _value(watcher).inner_text()
        _press(writer, "Write a value")
        expect(_value(watcher)).not_to_have_text(before)
        until(
            lambda: _value(watcher).inner_text() == _value(writer).inner_text(),
            "both pages to show the same value",
            120,
        )


def test_the_buttons_work_without_javascript(new_context: Any, site: GunicornServer) -> None:
    page: Page = new_context(base_url=site.url, java_script_enabled=False).new_page()
    page.goto("/")
    page.get_by_role("button", name="Write a value").click()
    expect(page).to_have_url(f"{site.url}/")
    expected = {**dict.fromkeys(SHARED, "SHARED"), "locmem": "BROKEN"}

    def is_seen() -> bool:
        page.reload()  # without JavaScript, it shows once which workers respond in time
        return all(
            verdict in page.locator(f"[data-verdict={alias}]").inner_text()
            for alias, verdict in expected.items()
        )

    until(is_seen, "all workers to respond in time", 120)


@pytest.fixture
def without_redis(site_env: SiteEnv, tmp_path: Any) -> Any:
    env = site_env(redis_url=f"unix://{tmp_path}/nobody.sock?db=0", WEB_CONCURRENCY="2")
    with GunicornServer("project.wsgi:application", ROOT, env) as server:
        yield server.start()


def test_a_store_that_is_down_says_so_and_how_to_start_it(
    new_context: Any, without_redis: GunicornServer
) -> None:
    page: Page = new_context(base_url=without_redis.url).new_page()
    page.goto("/")
    page.get_by_role("button", name="Write a value").click()
    _verdict(page, "redis").to_contain_text("DOWN", timeout=PATIENCE_MS)
    expect(page.get_by_role("heading", name="Not shown yet")).to_be_visible()
    expect(_row(page, "redis")).to_contain_text("apt install redis-server")
    _verdict(page, "lmdb").to_contain_text("SHARED", timeout=PATIENCE_MS)
    bar = page.get_by_text("Not connected since")
    expect(bar).to_be_hidden()
    without_redis.stop()  # the stream ends, and nothing answers
    expect(bar).to_be_visible()
    expect(bar).to_contain_text("these figures are old")


def test_the_stats_tell_each_worker_apart(watched: Watched) -> None:
    page = watched.page

    def have_all_read() -> bool:  # but one that does not respond in time
        page.goto("/")
        _press(page, "Increment 100 times at once")
        page.goto("/stats/")
        rows = page.get_by_role("region", name="worker for lmdb").get_by_role("row")
        expect(rows).to_have_count(1 + WORKERS, timeout=PATIENCE_MS)
        hits = [row.get_by_role("cell").nth(1).inner_text() for row in rows.all()[1:]]
        return all(int(hit) > 0 for hit in hits)

    until(have_all_read, "every worker to have read", 120)
