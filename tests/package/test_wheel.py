"""The wheel, installed into a fresh environment, serves the caches of a project from elsewhere.

Each run builds the wheel and fetches packages from the index, so it belongs to `make soak` and `make matrix`.
"""

import contextlib
import http.cookiejar
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cacheapp.processes.waiting import until
from tests.required import required

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]  # it installs four environments

ROOT = Path(__file__).resolve().parents[2]
FOREIGN = Path(__file__).parent / "foreign"
DJANGOS = ["5.2", *(["6"] if sys.version_info >= (3, 12) else [])]
PACKAGES = ("gunicorn", "djangorestframework", "django-ratelimit", "django-axes")
MAX_PACKAGES, MAX_BYTES = 5, 15_000_000
_NO_INDEX = re.compile(r"No matching distribution|Failed to establish|NewConnectionError|resolve")


def _own_env() -> dict[str, str]:
    """Return this environment without what points to this checkout."""
    ours = ("PYTHONPATH", "DJANGO_SETTINGS_MODULE", "CACHEAPP_TESTS", "DATA_DIR")
    return {name: value for name, value in os.environ.items() if name not in ours}


def run(command: Sequence[str], cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """Return the output of a command that must succeed, without this checkout on its path."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**_own_env(), **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode and "pip" in command and _NO_INDEX.search(done.stdout):
        if required():
            pytest.fail(f"no package index answers:\n{done.stdout[-2000:]}")
        pytest.skip("NO PACKAGE INDEX answers, so the wheel was not tested")
    assert done.returncode == 0, done.stdout[-5000:]
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel and sdist."""
    place = tmp_path_factory.mktemp("build")
    source = place / "source"
    tracked = run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], ROOT)
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    tools = place / "tools"
    run([sys.executable, "-m", "venv", str(tools)], place)
    python = str(tools / "bin" / "python")
    run([python, "-m", "pip", "install", "--quiet", "build", "twine"], place)
    run([python, "-m", "build", "--outdir", str(place / "dist"), str(source)], place)
    run([python, "-m", "build", "--wheel", "--outdir", str(place / "again"), str(source)], place)
    built = sorted(map(str, (place / "dist").iterdir()))
    run([python, "-m", "twine", "check", "--strict", *built], place)
    return place / "dist"


def test_the_wheel_and_the_sdist_have_every_file(dist: Path) -> None:
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    expected = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "cacheapp").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as found:
        names = set(found.namelist())
    assert expected <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"cacheapp"}
    with tarfile.open(sdist) as found_source:
        sources = {name.partition("/")[2] for name in found_source.getnames()}
    assert expected | {"LICENSE", "CHANGELOG.md", "pyproject.toml"} <= sources


def test_a_build_leaves_nothing_in_the_checkout_that_the_next_one_would_pack(dist: Path) -> None:
    left = {path.name for path in (dist.parent / "source").iterdir()}
    tracked = run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], ROOT)
    assert left == {name.partition("/")[0] for name in tracked.splitlines()}


class Foreign:
    """A copy of the foreign project with an environment of its own."""

    def __init__(self, place: Path, wheel: Path, django: str) -> None:
        self.place = place / "site"
        (place / "tmp").mkdir()
        self.env = {"TMPDIR": str(place / "tmp")}  # the default of STATE_DIR is below it
        shutil.copytree(FOREIGN, self.place)
        run([sys.executable, "-m", "venv", str(place / "venv")], place)
        self.python = str(place / "venv" / "bin" / "python")
        self.pip("install", f"Django=={django}.*")
        before = self.installed()
        self.pip("install", str(wheel))
        self.brought = self.installed() - before
        self.wheel = wheel
        self.pip("install", *PACKAGES)

    def pip(self, *arguments: str) -> str:
        """Run pip."""
        command = [self.python, "-m", "pip", "--disable-pip-version-check", *arguments]
        return run(command, self.place)

    def installed(self) -> set[str]:
        """Return the names of the installed packages."""
        return {
            it["name"] for it in json.loads(self.pip("list", "--format", "json").splitlines()[-1])
        }

    def bytes_of(self, package: str) -> int:
        """Return the size of a package's files, without the bytecode that pip compiles."""
        code = (
            "import importlib.metadata as m, sys, os\n"
            "files = m.files(sys.argv[1])\n"
            "print(sum(os.path.getsize(f.locate()) for f in files if f.suffix != '.pyc'))"
        )
        return int(run([self.python, "-c", code, package], self.place))

    def manage(self, *arguments: str, **env: str) -> str:
        """Run a command with cacheapp in INSTALLED_APPS."""
        command = [self.python, "manage.py", *arguments]
        return run(command, self.place, {"WITH_APP": "1", **self.env, **env})

    @contextlib.contextmanager
    def served(self) -> Iterator[str]:
        """Serve it by four workers, without cacheapp in INSTALLED_APPS."""
        with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
            number, port = listener.fileno(), listener.getsockname()[1]
            command = [self.python, "-m", "gunicorn", "mysite.wsgi", "--workers", "4"]
            command += ["--threads", "4", "--bind", f"fd://{number}", "--no-control-socket"]
            with (self.place / "gunicorn.log").open("wb") as log:
                process = subprocess.Popen(
                    command,
                    cwd=self.place,
                    env={**_own_env(), **self.env},
                    stdout=log,
                    stderr=log,
                    pass_fds=[number],
                )
            try:
                log_file = self.place / "gunicorn.log"
                until(lambda: b"Booting" in log_file.read_bytes(), "Gunicorn's workers", 60)
                yield f"http://127.0.0.1:{port}"
            finally:
                process.terminate()
                process.wait(120)


@pytest.fixture(scope="module", params=DJANGOS)
def foreign(
    request: pytest.FixtureRequest, dist: Path, tmp_path_factory: pytest.TempPathFactory
) -> Foreign:
    (wheel,) = dist.glob("*.whl")
    return Foreign(tmp_path_factory.mktemp("foreign"), wheel, request.param)


@pytest.fixture(scope="module")
def url(foreign: Foreign) -> Iterator[str]:
    foreign.manage("migrate", "--verbosity", "0")
    with foreign.served() as url:
        yield url


def fetch(url: str, opener: Any = None, data: bytes | None = None) -> tuple[int, str]:
    """Return status and body, on a connection of its own."""
    try:
        with (opener or urllib.request.build_opener()).open(url, data, timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as exc:
        with exc:  # Python 3.14 warns of one that is left to its finaliser
            return exc.code, exc.read().decode()


def at_once(url: str, number: int) -> list[tuple[int, str]]:
    """Return the responses to this many requests, sixteen at a time."""
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(fetch, [url] * number))


def test_the_core_brings_few_packages_and_little(foreign: Foreign) -> None:
    sizes = {name: foreign.bytes_of(name) for name in foreign.brought}
    assert {"cacheapp", "lmdb", "msgpack"} == sizes.keys()
    assert len(sizes) <= MAX_PACKAGES
    assert sum(sizes.values()) < MAX_BYTES, sizes


def test_the_system_checks_find_nothing(foreign: Foreign) -> None:
    assert "no issues" in foreign.manage("check", "--fail-level", "WARNING")


def test_cachecheck_finds_every_property_to_hold(foreign: Foreign) -> None:
    printed = foreign.manage("cachecheck", "default", "--seconds", "0.5")
    assert "BROKEN" not in printed
    assert printed.count("│ HOLDS") >= 34


def test_all_workers_count_together(url: str) -> None:
    found: list[Any] = []

    def several_responded() -> bool:
        found.extend(json.loads(body) for _status, body in at_once(f"{url}/hit", 100))
        return len({it["worker"] for it in found}) > 1

    until(
        several_responded, "more than one worker to respond"
    )  # one may take all that come at once
    hits = sorted(it["hits"] for it in found)
    assert hits == list(range(hits[0], hits[0] + len(found)))  # other tests may have been first


def test_django_ratelimit_admits_exactly_its_rate(url: str) -> None:
    statuses = [status for status, _body in at_once(f"{url}/ratelimited", 60)]
    assert (statuses.count(200), statuses.count(403)) == (10, 50)


def test_a_throttle_of_rest_framework_is_shared(url: str) -> None:
    # One after the other: it reads and then writes, so at once it admits more, on any shared cache.
    statuses = [fetch(f"{url}/throttled")[0] for _ in range(30)]
    assert (statuses.count(200), statuses.count(429)) == (10, 20)


def test_axes_locks_a_name_out_over_all_workers(url: str) -> None:
    statuses = []
    for _ in range(6):
        jar = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        )
        token = re.search(r'csrfmiddlewaretoken" value="(\w+)"', fetch(f"{url}/login", jar)[1])
        assert token
        form = {"csrfmiddlewaretoken": token[1], "username": "ada", "password": "wrong"}
        statuses.append(fetch(f"{url}/login", jar, urllib.parse.urlencode(form).encode())[0])
    assert statuses[:2] == [200, 200]
    assert set(statuses[2:]) == {429}


def test_every_worker_reads_a_session(url: str) -> None:
    jar = urllib.request.build_opener(
        urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
    )
    assert fetch(f"{url}/remember", jar)[0] == 200
    found = [json.loads(fetch(f"{url}/recall", jar)[1]) for _ in range(40)]
    assert {it["name"] for it in found} == {"Ada"}


@pytest.mark.parametrize("path", ["page", "fragment"])
def test_every_worker_shows_the_cached_page(url: str, path: str) -> None:
    first = fetch(f"{url}/{path}")
    assert first[0] == 200
    assert set(at_once(f"{url}/{path}", 40)) == {first}


def test_downloads_are_an_app_to_add(foreign: Foreign, url: str, tmp_path: Path) -> None:
    assert "cacheapp_" not in foreign.manage("inspectdb")  # no tables for a cache
    foreign.pip("install", f"{foreign.wheel}[downloads]")
    both = {"WITH_DOWNLOADS": "1"}
    foreign.manage("migrate", "--verbosity", "0", **both)
    assert "cacheapp_downloads_downloadjob" in foreign.manage("inspectdb", **both)
    assert "no issues" in foreign.manage("check", "--fail-level", "WARNING", **both)
    places = ["--allow", "127.0.0.0/8", "--to", str(tmp_path)]
    foreign.manage("download", f"{url}/hit", *places, **both)
    assert json.loads((tmp_path / "hit").read_text()).keys() == {"hits", "worker"}


def test_the_server_reported_no_error(foreign: Foreign, url: str) -> None:
    assert fetch(f"{url}/hit")[0] == 200
    log = (foreign.place / "gunicorn.log").read_text()
    assert "Traceback" not in log
    assert "Internal Server Error" not in log
