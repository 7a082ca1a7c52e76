"""A real browser in front of the real Gunicorn with 4 workers.

Playwright keeps an event loop running in this thread for as long as it is started, in which no other
test's coroutines could run: so it is stopped whenever tests of other packages come, unlike in
pytest-playwright, whose other fixtures (`new_context`, `context`, `page`) are used as they are.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    BrowserType,
    Playwright,
    expect,
    sync_playwright,
)

from cacheapp.processes.servers import GunicornServer, RedisServer
from tests.browser.deploying import deployed
from tests.browser.watching import Watched
from tests.ensure_programs import NO_CHROMIUM, find_chromium
from tests.origin import Origin
from tests.required import required
from tests.system.conftest import ROOT, patient
from tests.system.downloads.parts import SOON_LOST

ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    # It connects only to the site under test.
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
SiteEnv = Callable[..., dict[str, str]]
PATIENCE_MS = 120_000
"""For what a busy machine does; Playwright itself waits for 5 s, or 30."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a browser, skip with a warning; in CI the fixture fails instead."""
    if find_chromium() is None and not required():
        for item in items:
            if "tests/browser" in str(item.path):
                item.add_marker(pytest.mark.skip(reason=NO_CHROMIUM))


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of the browser; fails if it is missing and required."""
    found = find_chromium()
    assert found, NO_CHROMIUM
    return found


@pytest.fixture(scope="package")
def playwright() -> Iterator[Playwright]:
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="package")
def browser_type(playwright: Playwright) -> BrowserType:
    return playwright.chromium


@pytest.fixture(scope="package")
def browser(browser_type: BrowserType, chromium: str) -> Iterator[Browser]:
    launched = browser_type.launch(
        executable_path=chromium,
        args=ARGUMENTS,
        timeout=PATIENCE_MS,
    )
    yield launched
    launched.close()


@pytest.fixture(scope="package")
def browser_context_args() -> dict[str, Any]:
    return {}


@pytest.fixture(scope="session")
def site_env(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> SiteEnv:
    """Return a function that prepares a deployment as on a server: static files and database."""

    def make(**more: str) -> dict[str, str]:
        wanted = {
            "redis_url": patient(redis_server.url),
            "DJANGO_SETTINGS_MODULE": "tests.browser.patient_settings",
            "WEB_THREADS": "24",
            **SOON_LOST,
            **more,
        }
        return deployed(tmp_path_factory.mktemp("data"), **wanted)

    return make


@pytest.fixture(scope="session")
def origin() -> Iterator[Origin]:
    """The origin of the downloads."""
    with Origin() as server:
        yield server


@pytest.fixture(scope="session")
def shared_env(site_env: SiteEnv, origin: Origin) -> dict[str, str]:
    """The environment of the site that the browser tests share."""
    return site_env(DOWNLOAD_ORIGINS=origin.url)


@pytest.fixture(scope="session")
def site(shared_env: dict[str, str]) -> Iterator[GunicornServer]:
    """The site that the browser tests share; a worker that one of them kills is replaced."""
    with GunicornServer("project.wsgi:application", ROOT, shared_env) as server:
        yield server.start()


@pytest.fixture
def new_context(new_context: Any) -> Any:
    """pytest-playwright's own, with more patience."""

    def new(**options: Any) -> BrowserContext:
        context: BrowserContext = new_context(**options)
        context.set_default_timeout(PATIENCE_MS)
        return context

    return new


@pytest.fixture
def watched(new_context: Any, site: GunicornServer) -> Iterator[Watched]:
    """A tab at the site; any error that the browser reports fails the test."""
    tab = Watched(new_context(base_url=site.url).new_page())
    yield tab
    tab.assert_content()
