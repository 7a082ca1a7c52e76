"""Without hooks, downloads start with the first request of a server and end with the process."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

PROGRAM = """
import atexit, io, sys
from pathlib import Path
from django.conf import settings
place = Path(sys.argv[1])
settings.configure(
    SECRET_KEY="x" * 50,
    INSTALLED_APPS=["cacheapp", "cacheapp.downloads"],
    ROOT_URLCONF="cacheapp.urls",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": place / "db.sqlite3"}},
    CACHEAPP={"STATE_DIR": place / "state", "DOWNLOAD_ROOT": place / "root"},
    ALLOWED_HOSTS=["*"],
    USE_TZ=True,
)
atexit.register(lambda: print("last:", coordinator.is_closed()))
import django
django.setup()
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.test import Client
from cacheapp.downloads.jobs.models import DownloadJob
from cacheapp.downloads.runners.coordinator import existing_coordinator
call_command("migrate", verbosity=0)

Client().get("/nothing")
print("after a client of tests:", existing_coordinator())

environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/nothing", "SERVER_NAME": "x", "SERVER_PORT": "1",
           "wsgi.input": io.BytesIO(), "wsgi.url_scheme": "http"}
application = get_wsgi_application()
list(application(environ, lambda status, headers: print("a request:", status)))
coordinator = existing_coordinator()
print("after it:", type(coordinator).__name__)

atexit.register(lambda: print("first:", coordinator.is_closed()))
"""


def test_downloads_start_with_the_first_request_and_end_with_the_process(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.splitlines() == [
        "after a client of tests: None",
        "a request: 404 Not Found",
        "after it: Coordinator",
        "first: False",
        "last: True",
    ], done.stderr
