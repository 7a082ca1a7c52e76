"""A download in a browser: created, watched, paused and cancelled, and adopted by another worker."""

import os
import signal
import zipfile
from typing import Any

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


def test_no_press_is_lost_although_the_figures_change_while_the_button_is_down(
    watched: Watched, origin: Origin, new_context: Any, site: GunicornServer
) -> None:
    """120 presses of 120 ms, in six tabs; during each one the region of the job is swapped."""
    urls = [f"{origin.url}/file/{n}.bin?n={n}&bytes=9&delay_ms=1000" for n in range(900)]
    _order(watched.page, urls, threads=1)  # it does not end by itself, and meets no timeout
    _state(watched.page).to_have_text("running", timeout=PATIENCE_MS)
    tabs: list[Page] = [new_context(base_url=site.url).new_page() for _ in range(6)]
    presses: list[str] = []

    def count(route: Any) -> None:
        presses.append(route.request.post_data)
        route.fulfill(status=204)

    for tab in tabs:
        tab.route("**/action", count)
        tab.goto(watched.page.url)
        tab.get_by_role("button", name="Pause").hover()
    for _ in range(20):
        for tab in tabs:
            tab.mouse.down()
            tab.evaluate(PRESS)
        for tab in tabs:
            tab.evaluate("window.held")
            with tab.expect_response("**/action"):
                tab.mouse.up()
            expect(tab.get_by_role("button", name="Pause")).to_be_enabled()
    assert len(presses) == 120
    assert all("do=pause" in press for press in presses)
    watched.page.get_by_role("button", name="Cancel").click()
    _state(watched.page).to_have_text("cancelled", timeout=PATIENCE_MS)
    watched.forgive("[object")  # a stream that ended in the meantime, and was opened again


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
