"""A download in a browser: created, watched, paused and cancelled, and adopted by another worker."""

import datetime as dt
import os
import re
import signal
import zipfile
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from cacheapp.processes.servers import GunicornServer
from cacheapp.processes.waiting import until
from tests.browser.watching import Watched
from tests.objects import Thing, Version
from tests.origin import Origin

PATIENCE_MS = 120_000


def _order(page: Page, urls: list[str], threads: int = 4) -> None:
    page.goto("/downloads/")
    page.get_by_text("New download").click()
    page.get_by_label("URLs, one per line").fill("\n".join(urls))
    page.get_by_label("Threads").fill(str(threads))
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("heading", name="Download")).to_be_visible()


def _state(page: Page) -> Any:
    return expect(page.locator("[data-state]"))


def test_a_download_is_watched_to_its_end(watched: Watched, origin: Origin) -> None:
    _order(
        watched.page,
        [f"{origin.url}/file/{n}.bin?n={n}&bytes=9000&delay_ms=100" for n in range(40)],
    )
    _state(watched.page).to_have_text("succeeded", timeout=PATIENCE_MS)
    expect(watched.page.locator("#job")).to_contain_text("40 of 40")
    expect(watched.page.locator(".files li", has_text="succeeded")).to_have_count(
        25
    )  # the first page
    watched.page.get_by_role("link", name="Next").click()
    expect(watched.page.locator(".files li", has_text="succeeded")).to_have_count(15)
    expect(watched.page.get_by_role("button", name="Cancel")).to_have_count(0)
    drawing = watched.page.get_by_role("img", name="The state of each file")
    expect(drawing.locator("path")).to_have_class(["succeeded"])
    with watched.page.expect_download() as saved:
        watched.page.get_by_role("link", name="Fetch 40 files as a zip").click()
    with zipfile.ZipFile(saved.value.path()) as archive:
        assert archive.testzip() is None
        assert len(archive.namelist()) == 40


def test_a_file_that_hangs_is_seen_moving_and_can_be_cancelled(
    watched: Watched, origin: Origin
) -> None:
    _order(watched.page, [f"{origin.url}/hang-in-body/a.bin?bytes=900000"])
    moving = watched.page.get_by_role("list", name="Moving now")
    bar = moving.get_by_role("progressbar", name="a.bin")
    expect(bar).to_have_attribute("max", "900000", timeout=PATIENCE_MS)
    watched.page.get_by_role("button", name="Cancel").click()
    _state(watched.page).to_have_text("cancelled", timeout=PATIENCE_MS)


def test_a_job_is_paused_and_resumed(watched: Watched, origin: Origin) -> None:
    page = watched.page
    _order(page, [f"{origin.url}/hang-in-body/p.bin?bytes=900000"])  # it does not end by itself
    _state(page).to_have_text("running", timeout=PATIENCE_MS)
    page.get_by_role("button", name="Pause").click()
    _state(page).to_have_text("paused", timeout=PATIENCE_MS)
    page.get_by_role("button", name="Resume").click()
    _state(page).to_have_text("running", timeout=PATIENCE_MS)
    page.get_by_role("button", name="Cancel").click()
    _state(page).to_have_text("cancelled", timeout=PATIENCE_MS)


PRESS = """() => { window.held = Promise.all([
    new Promise((done) => setTimeout(done, 120)),
    new Promise((done) => {
      document.addEventListener("htmx:afterSwap", done, { once: true });
      htmx.trigger("#job", "job-changed");
    }),
]); }"""


@pytest.mark.parametrize(
    ("tab_count", "presses_each"), [(2, 8), pytest.param(6, 20, marks=pytest.mark.soak)]
)
def test_no_press_is_lost_although_the_figures_change_while_the_button_is_down(
    watched: Watched,
    origin: Origin,
    new_context: Any,
    site: GunicornServer,
    tab_count: int,
    presses_each: int,
) -> None:
    """Presses of 120 ms in each tab; during each one the region of the job is swapped."""
    urls = [f"{origin.url}/file/{n}.bin?n={n}&bytes=9&delay_ms=1000" for n in range(900)]
    _order(watched.page, urls, threads=1)  # it does not end by itself, and meets no timeout
    _state(watched.page).to_have_text("running", timeout=PATIENCE_MS)
    tabs: list[Page] = [new_context(base_url=site.url).new_page() for _ in range(tab_count)]
    presses: list[str] = []

    def count(route: Any) -> None:
        presses.append(route.request.post_data)
        route.fulfill(status=204)

    for tab in tabs:
        tab.route("**/action", count)
        tab.goto(watched.page.url)
        tab.get_by_role("button", name="Pause").hover()
    for _ in range(presses_each):
        for tab in tabs:
            tab.mouse.down()
            tab.evaluate(PRESS)
        for tab in tabs:
            tab.evaluate("window.held")
            with tab.expect_response("**/action"):
                tab.mouse.up()
            expect(tab.get_by_role("button", name="Pause")).to_be_enabled()
    assert len(presses) == presses_each * tab_count
    assert all("do=pause" in press for press in presses)
    watched.page.get_by_role("button", name="Cancel").click()
    _state(watched.page).to_have_text("cancelled", timeout=PATIENCE_MS)
    watched.forgive("[object")  # a stream that ended in the meantime, and was opened again


def test_a_failed_file_is_named_with_its_reason_and_retried_alone(
    watched: Watched, origin: Origin
) -> None:
    page = watched.page
    gone = ["404 Not Found"]
    for name in ("first.bin", "second.bin"):
        origin.things[name] = Thing([Version(b"x" * 900, '"v"')], refusals=list(gone))
    _order(page, [f"{origin.url}/thing/{name}" for name in ("first.bin", "second.bin")])
    _state(page).to_have_text("failed")
    failed = page.get_by_role("list", name="Failed")
    expect(failed.get_by_role("listitem")).to_have_count(2)
    expect(failed.get_by_role("listitem").first).to_contain_text("responded with 404 Not Found")
    expect(page.get_by_role("link", name="failed 2")).to_be_visible()
    page.get_by_role("button", name="Retry second.bin").click()
    expect(page.locator("#job")).to_contain_text("1 of 2")
    expect(failed.get_by_role("listitem")).to_have_count(1)
    expect(failed).to_contain_text("first.bin")
    expect(page.locator("#map .legend")).to_contain_text("failed")
    expect(page.get_by_role("button", name="Retry", exact=True)).to_be_visible()


def test_open_details_and_selections_survive_a_swap(watched: Watched, origin: Origin) -> None:
    page = watched.page
    _order(page, [f"{origin.url}/file/kept.bin?bytes=9"])
    _state(page).to_have_text("succeeded")
    page.locator("#history summary").click()
    _swap(page, "#job", "job-changed")
    expect(page.locator("#history")).to_have_attribute("open", "")
    page.goto("/downloads/")
    chosen = page.locator(".jobs input[type=checkbox]").first
    chosen.check()
    _swap(page, "#jobs", "jobs-changed")
    expect(chosen).to_be_checked()


SWAP = """([region, name]) => new Promise((done) => {
  document.addEventListener("htmx:afterSettle", done, { once: true });
  htmx.trigger(region, name);
})"""


def _swap(page: Page, region: str, name: str) -> None:
    page.evaluate(SWAP, [region, name])


def test_a_server_that_does_not_answer_is_said_and_so_is_its_return(
    watched: Watched, origin: Origin
) -> None:
    page = watched.page
    _order(page, [f"{origin.url}/hang-in-body/p.bin?bytes=900000"])
    bar = page.get_by_text("Not connected since")
    expect(bar).to_be_hidden()
    page.context.set_offline(offline=True)
    expect(bar).to_be_visible(timeout=PATIENCE_MS)
    expect(bar).to_contain_text("these figures are old")
    page.context.set_offline(offline=False)
    expect(bar).to_be_hidden(timeout=PATIENCE_MS)
    page.get_by_role("button", name="Cancel").click()
    _state(page).to_have_text("cancelled", timeout=PATIENCE_MS)
    watched.forgive("net::ERR_", "[object", "htmx:")  # of the requests that could not be sent


def test_exact_times_are_in_the_time_zone_of_the_reader(
    new_context: Any, site: GunicornServer, origin: Origin
) -> None:
    page: Page = new_context(
        base_url=site.url, timezone_id="Asia/Kolkata", locale="en-GB"
    ).new_page()
    _order(page, [f"{origin.url}/file/t.bin?bytes=9"])
    _state(page).to_have_text("succeeded")
    page.locator("#history summary").click()
    first = page.locator("#history time").first
    expect(first).to_contain_text("GMT+5:30")
    moment = dt.datetime.fromisoformat(first.get_attribute("datetime") or "")
    local = moment.astimezone(dt.timezone(dt.timedelta(hours=5, minutes=30)))
    expect(first).to_contain_text(f"{local:%H:%M:%S}")
    plain: Page = new_context(base_url=site.url, java_script_enabled=False).new_page()
    plain.goto(page.url)
    plain.locator("#history summary").click()
    expect(plain.locator("#history time").first).to_have_text(f"{moment:%Y-%m-%d %H:%M:%S} UTC")
    created = page.locator("#job dd time").first
    expect(created).to_contain_text(re.compile("ago|now"))
    expect(created).to_have_attribute("title", re.compile(r"GMT\+5:30"))


def test_a_title_and_a_report_are_there_without_javascript(
    new_context: Any, site: GunicornServer, origin: Origin
) -> None:
    page: Page = new_context(base_url=site.url, java_script_enabled=False).new_page()
    page.goto("/downloads/")
    page.get_by_text("New download").click()
    page.get_by_label("URLs, one per line").fill(f"{origin.url}/hang-in-body/c.bin?bytes=100")
    page.get_by_label("Title").fill("A <title> of mine")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("heading", name="Download: A <title> of mine")).to_be_visible()
    page.goto("/downloads/?q=<title>")
    page.get_by_role("checkbox").check()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("Cancelled 1 of 1 jobs.")).to_be_visible()
    assert page.url.startswith(f"{site.url}/downloads/?q=")  # its links work, and so does reloading


def test_what_is_wrong_with_an_order_is_said_beside_the_form(
    new_context: Any, site: GunicornServer
) -> None:
    page: Page = new_context(base_url=site.url).new_page()
    page.goto("/downloads/")
    page.get_by_text("New download").click()
    page.get_by_label("URLs, one per line").fill("https://elsewhere.example/a\nnot an address")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("alert")).to_contain_text("Nothing was started")
    expect(page.get_by_role("alert").get_by_role("listitem")).to_have_count(2)
    expect(page.get_by_label("URLs, one per line")).to_have_value(
        "https://elsewhere.example/a\nnot an address"
    )


def test_an_order_works_without_javascript(
    new_context: Any, site: GunicornServer, origin: Origin
) -> None:
    page: Page = new_context(base_url=site.url, java_script_enabled=False).new_page()
    _order(page, [f"{origin.url}/hang-in-body/b.bin?bytes=100"])
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("heading", name="Download")).to_be_visible()

    def cancelled() -> bool:
        page.reload()
        return page.locator("[data-state]").inner_text() == "cancelled"

    until(cancelled, "the job to be cancelled", 60)


def test_a_download_goes_on_under_the_eyes_of_its_watcher_when_its_worker_is_killed(
    watched: Watched, origin: Origin
) -> None:
    page = watched.page
    # A request holds until that worker ends, so the job does not finish before.
    origin.things["waits"] = Thing([Version(b"x" * 900, '"v"')], cuts=[500], hang=True)
    files = [f"{origin.url}/file/{n}.bin?n={n}&bytes=900&delay_ms=500" for n in range(19)]
    _order(page, [f"{origin.url}/thing/waits", *files], threads=2)
    expect(page.locator(".files li", has_text="succeeded").first).to_be_visible(timeout=PATIENCE_MS)
    owner = int(page.locator("[data-owner]").inner_text())
    os.kill(owner, signal.SIGKILL)
    adopted = page.locator("[data-adopted]")
    expect(adopted).to_contain_text("The first worker ended", timeout=PATIENCE_MS)
    adopter = page.locator("[data-owner]").inner_text()
    assert adopter != str(owner)
    history = page.locator("#history")
    expect(history).to_contain_text(f"began by worker {owner}")
    expect(history).to_contain_text(f"taken over by worker {adopter}")
    _state(page).to_have_text("succeeded", timeout=PATIENCE_MS)
    expect(page.locator("#job")).to_contain_text("20 of 20")
    watched.forgive("net::ERR_", "[object Event]")  # responses that the killed worker was sending
