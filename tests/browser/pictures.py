"""Make every picture and chart of README and docs: `make pictures`.

The charts are drawn from data in the repository: docs/lab/results.json, docs/grafana/observed.json and
benchmarks/results. The pictures of pages are taken from a real run of a site with four workers;
`picture_sources` records what they show, so that a test fails when they are older.
"""

import contextlib
import dataclasses
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from benchmarks import speed_chart
from cacheapp.lab.charts import alone
from cacheapp.lab.results import Result
from cacheapp.processes.servers import GunicornServer, RedisServer
from tests.browser import picture_sources
from tests.browser.conftest import ARGUMENTS
from tests.browser.deploying import deployed
from tests.dashboard import kept as observed
from tests.ensure_programs import NO_CHROMIUM, find_chromium
from tests.objects import Thing, Version
from tests.origin import Origin
from tests.system.conftest import ROOT

PICTURES = ROOT / "docs" / "pictures"
LAB = ROOT / "docs" / "lab"
MOST_BYTES = 300_000
_PANELS = 2  # of the lab's eight: README does not show all
_FRAMES_MS = [1500, 5000]
_MOVING = 8  # files at the same time
_HALF_DONE = """(count) => {
  const bars = [...document.querySelectorAll(".moving progress[max]")];
  return bars.length === count && Math.max(...bars.map((bar) => bar.value / bar.max)) > 0.7;
}"""
_COLOURS = 128  # the pages have few colours, so the difference is invisible


def main() -> int:
    """Draw all charts and take all pictures; return 0, or print what is missing."""
    for path, drawing in charts().items():
        _write(path, drawing.encode())
    chromium = find_chromium()
    if chromium is None:
        print(NO_CHROMIUM, file=sys.stderr)
        return 1
    with contextlib.ExitStack() as stack:
        origin = stack.enter_context(Origin())
        redis = stack.enter_context(RedisServer()).start()
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cacheapp-")))
        env = deployed(directory, redis.url, DOWNLOAD_ORIGINS=origin.url)
        site = stack.enter_context(GunicornServer("project.wsgi:application", ROOT, env)).start()
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        front = _tab(browser, site.url)
        _keep("show-me.gif", _show_me(front))
        _keep("caches.png", _small(_locmem(front)))
        _keep("download.png", _small(_download(_tab(browser, site.url), origin)))
        browser.close()
    picture_sources.MANIFEST.write_text(json.dumps(picture_sources.digests(), indent=1) + "\n")
    return 0


def charts() -> dict[Path, str]:
    """Return every chart of README and docs, by its file."""
    raw = json.loads((LAB / "results.json").read_text())
    results = [Result.from_json(json.dumps(one)) for one in raw]
    found = {LAB / f"{one.name}.svg": alone(one) for one in results if one.panels}
    for one in results:
        if one.name == "what-breaks":
            some = dataclasses.replace(one, panels=one.panels[:_PANELS])
            found[PICTURES / "what-breaks.svg"] = alone(some)
    return {
        **found,
        speed_chart.PICTURE: speed_chart.draw(),
        observed.PICTURE: observed.picture(),
    }


def _tab(browser: Browser, url: str) -> Page:
    size: Any = {"width": 1080, "height": 860}
    return browser.new_context(base_url=url, viewport=size, color_scheme="light").new_page()


def _show_me(page: Page) -> bytes:
    """Return the front page before and after a press of Show me, as an animation of two pictures."""
    page.goto("/")
    expect(page.locator(".tiles li")).to_have_count(4)
    expect(page.get_by_role("heading", name="Not shown yet")).to_be_visible()
    before = page.screenshot()
    page.get_by_role("button", name="Show me").click()
    expect(page.get_by_role("heading", name="the shared caches lost 0")).to_be_visible(
        timeout=60_000
    )
    expect(page.get_by_role("button", name="Show me")).to_be_enabled()
    page.mouse.move(0, 0)
    after = page.screenshot()
    first, second = (
        Image.open(io.BytesIO(one)).convert("RGB").quantize(_COLOURS) for one in (before, after)
    )
    out = io.BytesIO()
    first.save(out, "GIF", save_all=True, append_images=[second], duration=_FRAMES_MS, loop=0)
    return out.getvalue()


def _locmem(page: Page) -> bytes:
    """Return the timeline of the broken cache and of a shared one."""
    rows = [page.locator(f"#row-{alias}") for alias in ("disk", "locmem")]
    crosses = rows[1].locator(".lane").first.locator("use[href='#mark-missed']")
    expect(crosses.nth(5)).to_be_attached(timeout=60_000)
    first, last = rows[0].bounding_box(), rows[1].bounding_box()
    assert first is not None
    assert last is not None
    bottom = last["y"] + last["height"]
    clip: Any = {"x": 16, "width": 1048, "y": first["y"] - 16, "height": bottom - first["y"] + 32}
    return page.screenshot(full_page=True, clip=clip)


def _download(page: Page, origin: Origin) -> bytes:
    """Return the page of a job of many files: most are done, two have failed, and eight are half done."""
    size: Any = {"width": 900, "height": 900}
    page.set_viewport_size(size)
    page.goto("/downloads/")
    page.get_by_text("New download").click()
    page.get_by_label("Title").fill("Satellite tiles, November")
    page.get_by_label("URLs, one per line").fill("\n".join(_tiles(origin)))
    page.get_by_label("Threads").fill(str(_MOVING))
    page.get_by_role("button", name="Start").click()
    moving = page.locator(".moving progress[max]:not([value='0'])")
    expect(moving).to_have_count(_MOVING, timeout=60_000)
    page.wait_for_function(_HALF_DONE, arg=_MOVING, timeout=60_000)
    last = page.locator("#map").bounding_box()
    assert last is not None
    clip: Any = {"x": 0, "y": 0, "width": size["width"], "height": last["y"] + last["height"] + 16}
    return page.screenshot(full_page=True, clip=clip)


def _tiles(origin: Origin) -> list[str]:
    """Return the URLs of 500 files: those at first are small, then come slow ones."""
    quick = [
        f"{origin.url}/file/tile-{n:03}.tif?n={n}&bytes={90_000 + n * 700}&delay_ms=250"
        for n in range(330)
    ]
    for n in (77, 214):
        quick[n] = f"{origin.url}/status/tile-{n:03}.tif?say=404+Not+Found"
    slow = []
    for n in range(330, 500):
        body = bytes(4_000_000 + n * 3000)
        takes_s = 20.0 + 7 * (n % _MOVING)
        origin.things[f"tile-{n}.tif"] = Thing([Version(body)], takes_s=takes_s)
        slow.append(f"{origin.url}/thing/tile-{n}.tif")
    return quick + slow


def _small(picture: bytes) -> bytes:
    """Return a picture with few colours."""
    out = io.BytesIO()
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(_COLOURS).save(
        out, "PNG", optimize=True
    )
    return out.getvalue()


def _keep(name: str, picture: bytes) -> None:
    assert len(picture) < MOST_BYTES, f"{name} has {len(picture)} bytes; at most {MOST_BYTES}"
    _write(PICTURES / name, picture)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    print(f"{path.relative_to(ROOT)}: {len(content)} bytes")


if __name__ == "__main__":
    sys.exit(main())
