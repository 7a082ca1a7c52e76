"""A browser tab that records errors: console messages, failed requests, exceptions."""

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import ConsoleMessage, Page, Request, Response

GRAVE = {"serious", "critical"}
BAD = 400
# Leaving a page aborts its requests.
_LEFT = "net::ERR_ABORTED"


class Watched:
    """A page and the errors that its browser reported."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("requestfailed", self._failed)
        page.on("response", self._answered)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(f"console {message.type}: {message.text}")

    def _failed(self, request: Request) -> None:
        if request.failure != _LEFT:
            self.complaints.append(f"{request.url}: {request.failure}")

    def _answered(self, response: Response) -> None:
        if response.status >= BAD:
            self.complaints.append(f"{response.url}: {response.status}")

    def forgive(self, *signs: str) -> None:
        """Ignore errors that contain one of these texts, which the test caused on purpose."""
        self.complaints = [one for one in self.complaints if not any(sign in one for sign in signs)]

    def assert_content(self) -> None:
        """Fail if the browser reported an error."""
        assert not self.complaints, self.complaints


def grave(page: Page) -> list[str]:
    """Return the violations that axe-core rates serious or critical."""
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:120] for node in one['nodes'][:3]]}"
        for one in Axe().run(page).response["violations"]
        if one["impact"] in GRAVE
    ]
