"""Take the pictures in docs/pictures from a real run: `make pictures`.

Two pages of a site with four workers, as a browser shows them, and two charts: what breaks (the
lab's experiment, conducted now) and speed (from the figures in benchmarks/results).
"""

import contextlib
import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from benchmarks import speed_chart
from cacheapp.processes.servers import GunicornServer, RedisServer
from tests.browser.conftest import ARGUMENTS
from tests.browser.deploying import deployed
from tests.ensure_programs import NO_CHROMIUM, find_chromium
from tests.origin import Origin
from tests.system.conftest import ROOT

PICTURES = ROOT / "docs" / "pictures"
MOST_BYTES = 300_000
_PANELS = 2  # of the lab's eight: README does not show all
_FRAMES_MS = [1500, 5000]
_COLOURS = 128  # the pages have few colours, so the difference is invisible


def main() -> int:
    """Take all pictures; return 0, or print what is missing."""
    chromium = find_chromium()
    if chromium is None:
        print(NO_CHROMIUM, file=sys.stderr)
        return 1
    PICTURES.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        origin = stack.enter_context(Origin())
        redis = stack.enter_context(RedisServer()).start()
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cacheapp-")))
        env = deployed(directory, redis.url, DOWNLOAD_ORIGINS=origin.url)
        site = stack.enter_context(GunicornServer("project.wsgi:application", ROOT, env)).start()
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        front = _tab(browser, site.url)
        _keep("show-me", _show_me(front), "gif")
        _keep("caches", _locmem(front))
        _keep("download", _download(_tab(browser, site.url), origin.url))
        browser.close()
        broken = json.loads(_lab(directory, "what-breaks"))[0]
        _write("what-breaks", {**broken, "panels": broken["panels"][:_PANELS]})
    _keep("speed", speed_chart.draw().encode(), "svg")
    return 0


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


def _download(page: Page, origin: str) -> bytes:
    page.goto("/downloads/")
    page.get_by_text("New download").click()
    urls = [
        f"{origin}/file/part-{n:02}.bin?n={n}&bytes={700_000 + n * 60_000}&delay_ms=2500"
        for n in range(24)
    ]
    page.get_by_label("URLs, one per line").fill("\n".join(urls))
    page.get_by_label("Threads").fill("4")
    page.get_by_role("button", name="Start").click()
    succeeded = page.locator(".files li", has_text="succeeded")
    expect(succeeded.nth(7)).to_be_visible(timeout=60_000)
    return page.screenshot()


def _lab(directory: Path, name: str) -> str:
    """Run an experiment of the lab; return its results."""
    results = directory / "lab.json"
    command = [sys.executable, "manage.py", "lab", name, "--json", str(results)]
    env = {"DEBUG": "1", "DATA_DIR": str(directory / "lab"), "PATH": "/usr/bin:/bin"}
    subprocess.run(command, cwd=ROOT, env=env, check=True)
    return results.read_text()


def _write(name: str, raw: dict[str, Any]) -> None:
    _keep(name, speed_chart.render(raw).encode(), "svg")


def _keep(name: str, picture: bytes, kind: str = "png") -> None:
    if kind == "png":
        small = Image.open(io.BytesIO(picture)).convert("RGB").quantize(_COLOURS)
        out = io.BytesIO()
        small.save(out, "PNG", optimize=True)
        picture = out.getvalue()
    assert len(picture) < MOST_BYTES, f"{name} has {len(picture)} bytes; at most {MOST_BYTES}"
    path = PICTURES / f"{name}.{kind}"
    path.write_bytes(picture)
    print(f"{path.relative_to(ROOT)}: {len(picture)} bytes")


if __name__ == "__main__":
    sys.exit(main())
