"""The way of a URL from `POST /api/downloads` to its file, as docs/architecture.md lists it.

A run is traced. Wherever the job is passed on (rows inserted, coordinator woken, job marked as running,
thread started, file renamed), the stack shows the functions that led there. The walk is those
functions in order, each where it is first on the stack.
"""

import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from django.test import Client
from pytest_django.fixtures import Settings

from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.runners import coordinator
from cacheapp.processes.waiting import until
from tests.origin import Origin

pytestmark = pytest.mark.django_db(transaction=True)

PAGE = Path(__file__).parents[3] / "docs" / "architecture.md"
TITLE = "## From POST /api/downloads to a file"
MOST_MODULES, MOST_RETURNS = 10, 4
Step = tuple[str, str]


@pytest.fixture(autouse=True)
def _own_coordinator() -> Iterator[None]:
    """Give the test a coordinator whose thread starts under the trace."""
    coordinator._forget()  # noqa: SLF001 (as a fork does)
    yield
    coordinator.coordinator().close(60)
    coordinator._forget()  # noqa: SLF001


@pytest.fixture
def origin(settings: Settings, tmp_path: Path) -> Iterator[Origin]:
    static = tmp_path / "static"
    static.mkdir()
    settings.ALLOWED_HOSTS = ["localhost"]
    settings.SECURE_SSL_REDIRECT = False
    settings.STATIC_ROOT = static  # WhiteNoise warns of a missing directory
    with Origin() as server:
        settings.CACHEAPP = {
            **settings.CACHEAPP,
            "DEMO": True,
            "DOWNLOAD_ROOT": tmp_path / "downloads",
            "DOWNLOAD_ORIGINS": [server.url],
            "STATE_DIR": tmp_path / "state",
        }
        yield server


class Walk:
    """The functions of a run, up to each place where the job is passed on."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._last: list[Step] = []

    def on_event(self, frame: FrameType, event: str, _arg: object) -> None:
        """For `sys.setprofile`."""
        if event == "call" and _passes_the_job_on(frame):
            self._add(_stack(frame))

    def _add(self, stack: list[Step]) -> None:
        same = 0
        while same < min(len(stack), len(self._last)) and stack[same] == self._last[same]:
            same += 1
        self.steps += stack[same:]
        self._last = stack


def _passes_the_job_on(frame: FrameType) -> bool:
    name, caller = frame.f_code.co_qualname, frame.f_back
    match frame.f_globals.get("__name__"):
        case "django.db.backends.sqlite3.base" if name == "SQLiteCursorWrapper.execute":
            sql = str(frame.f_locals["query"])
            created = sql.startswith("INSERT INTO") and "cacheapp_downloads_download" in sql
            return created or (
                "cacheapp_downloads_downloadjob" in sql
                and 'SET "state"' in sql
                and _is_start(frame)
            )
        case "threading" if caller is not None:
            waker = caller.f_code.co_qualname
            return (name, waker) in {
                ("Event.set", "Coordinator.wake"),
                ("Thread.start", "ThreadPool._start"),
            }
        case "cacheapp.downloads.storage.partial":
            return name == "rename_new"
    return False


def _is_start(frame: FrameType) -> bool:
    return _stack(frame)[-1] == ("downloads.jobs.repository", "start")


def _stack(frame: FrameType | None) -> list[Step]:
    """Return the functions of cacheapp on the stack, outermost first, without the view's decorators."""
    found: list[Step] = []
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith("cacheapp."):
            found.append((module.removeprefix("cacheapp."), frame.f_code.co_qualname))
        frame = frame.f_back
    found.reverse()
    view = ("views.downloads", "downloads")
    return found[found.index(view) :] if view in found else found


def _listed() -> list[Step]:
    """Return the walk that the page lists: lines such as "- `views.downloads` `downloads`, `_create`"."""
    section = PAGE.read_text().split(TITLE, 1)[1].split("\n## ", 1)[0]
    steps: list[Step] = []
    for line in section.splitlines():
        if match := re.match(r"- `([a-z_.]+)`: (.+)", line):
            steps += [(match[1], name) for name in re.findall(r"`([A-Za-z_.]+)`", match[2])]
    return steps


def _visits(steps: list[Step]) -> list[str]:
    """Return the modules in the order of the walk, each as often as it is entered."""
    modules = [module for module, _ in steps]
    return [it for at, it in enumerate(modules) if at == 0 or it != modules[at - 1]]


def test_the_page_lists_the_functions_that_a_download_passes(origin: Origin) -> None:
    walk = Walk()
    client = Client(HTTP_HOST="localhost:8000", REMOTE_ADDR="127.0.0.1")
    client.get("/api/downloads")  # what is made at the first request is no step
    threading.setprofile(walk.on_event)
    sys.setprofile(walk.on_event)
    try:
        body = {"urls": [f"{origin.url}/file/a"]}
        answer = client.post("/api/downloads", body, content_type="application/json")
    finally:
        sys.setprofile(None)
    try:
        assert answer.status_code == 202, answer.content
        until(lambda: DownloadJob.objects.get().state == "succeeded", "the job to succeed", 100)
    finally:
        threading.setprofile(None)
    assert walk.steps == _listed()


def test_the_walk_is_short() -> None:
    visits = _visits(_listed())
    modules = set(visits)
    assert len(modules) <= MOST_MODULES, sorted(modules)
    assert len(visits) - len(modules) <= MOST_RETURNS, visits
