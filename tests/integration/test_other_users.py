"""Attacks by another user of this machine: planted directories, and directories that are exchanged."""

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.core.cache import caches
from django.test import Client
from pytest_django.fixtures import Settings

from cacheapp.conf import state_dir
from cacheapp.demo import worker_rpc
from cacheapp.downloads.jobs import wakeup
from cacheapp.errors import StoreUnavailable
from cacheapp.processes import background, exclusive_run
from tests.other_user import (
    UID,
    as_other_user,
    fork_as_other_user,
    reachable_directory,
    require_root,
)

ROOT = Path(__file__).resolve().parent.parent.parent
_EXCHANGE = 2  # RENAME_EXCHANGE
_AT_FDCWD = -100
_OPENINGS = 300


@pytest.fixture
def reachable() -> Iterator[Path]:
    require_root()
    with reachable_directory() as path:
        yield path


@pytest.fixture
def temporary(settings: Settings, reachable: Path) -> Path:
    """A directory like `/tmp`, in which `STATE_DIR` is not created yet."""
    path = reachable / "tmp"
    path.mkdir()
    path.chmod(0o1777)
    settings.CACHEAPP = {
        **settings.CACHEAPP,
        "DEMO": True,
        "STATE_DIR": path / "cacheapp-0-guessed",
    }
    return path


def _plant(victim_file: Path, pid: int) -> None:
    """Make `STATE_DIR` first, with what the other user wants this user to read, signal and overwrite."""
    lab = state_dir() / "lab"
    lab.mkdir(parents=True)
    born = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[19]
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    holder = {"pid": pid, "born": f"{boot}:{born}", "name": "waiting", "stoppable": True}
    (lab / "lock").write_text(json.dumps(holder))
    (lab / "waiting.svg").write_text("<svg><script>alert(1)</script></svg>")
    (lab / "log").symlink_to(victim_file)
    (state_dir() / "workers").mkdir()
    os.mkfifo(state_dir() / "downloads.wakeup")
    for path in (state_dir(), lab):
        path.chmod(0o777)


@pytest.mark.django_db(transaction=True)
def test_a_state_dir_that_another_user_made_first_is_not_used(
    temporary: Path, tmp_path: Path, settings: Settings
) -> None:
    settings.SECURE_SSL_REDIRECT = False
    settings.STATIC_ROOT = str(tmp_path)
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    precious = tmp_path / "precious"
    precious.write_text("ours")
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    try:
        as_other_user(lambda: _plant(precious, child))
        refused = f"{state_dir()} .*belongs to user {UID}, expected 0 or root"
        for use in (exclusive_run.acquire, background.stop, worker_rpc.workers):
            with pytest.raises(StoreUnavailable, match=refused):
                use()
        wakeup.notify()
        assert wakeup.Listener().was_notified() is False  # and did not wait for the planted pipe
        page = Client(headers={"Host": "localhost", "Accept": "text/html"}).get("/lab/")
        assert page.status_code == 503
        assert f"belongs to user {UID}" in page.content.decode()
        assert "alert(1)" not in page.content.decode()
        assert precious.read_text() == "ours"
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_another_user_cannot_enter_the_state_dir(temporary: Path) -> None:
    os.close(exclusive_run.acquire())

    def attack() -> None:
        for path in (state_dir(), state_dir() / "lab", state_dir() / "lab" / "lock"):
            with pytest.raises(PermissionError):
                list(path.iterdir()) if path.name != "lock" else path.read_bytes()
        with pytest.raises(PermissionError):
            state_dir().rename(temporary / "elsewhere")

    as_other_user(attack)


class _Payload:
    """Unpickling it creates a file: code execution."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, int]]:
        return os.open, (str(self._marker), os.O_CREAT)


def _exchange_for_ever(first: Path, second: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(first), os.fsencode(second)
    while True:
        assert libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _EXCHANGE) == 0


@pytest.mark.parametrize("backend", ["LMDBCache", "DiskCache"])
@pytest.mark.parametrize("mode", [0o770, 0o2775], ids=oct)
def test_a_directory_that_another_user_exchanges_is_never_read(
    settings: Settings, reachable: Path, tmp_path: Path, backend: str, mode: int
) -> None:
    shared, marker = reachable / "shared", tmp_path / "code-ran"

    def cache_in(location: Path) -> None:
        settings.CACHES = {
            "default": {
                "BACKEND": f"cacheapp.backends.{backend}",
                "LOCATION": str(location),
                "OPTIONS": {"size_limit": 2**22},
            }
        }

    cache_in(shared / "evil")
    caches["default"].set("key", _Payload(marker))
    caches["default"].close()
    for path in [shared, shared / "evil", *(shared / "evil").rglob("*")]:
        os.chown(path, 0 if path == shared else UID, UID, follow_symlinks=False)
    (shared / "cache").mkdir(mode=0o700)
    shared.chmod(mode)
    attacker = fork_as_other_user(lambda: _exchange_for_ever(shared / "cache", shared / "evil"))
    try:
        _fails_every_time(shared / "cache", cache_in)
    finally:
        os.kill(attacker, signal.SIGKILL)
        _, status = os.waitpid(attacker, 0)
    assert os.WIFSIGNALED(status), "the attack itself failed"
    assert not marker.exists()


def _fails_every_time(location: Path, cache_in: Callable[[Path], None]) -> None:
    for _ in range(_OPENINGS):
        cache_in(location)
        with pytest.raises(StoreUnavailable, match=r"is group-writable|belongs to user"):
            caches["default"].get("key")
        caches["default"].close()


@pytest.mark.parametrize("backend", ["LMDBCache", "DiskCache"])
def test_workers_of_another_user_than_the_master_are_told_the_owner(
    settings: Settings, reachable: Path, backend: str
) -> None:
    settings.CACHES = {
        "default": {
            "BACKEND": f"cacheapp.backends.{backend}",
            "LOCATION": str(reachable / "cache"),
            "OPTIONS": {"size_limit": 2**22},
        }
    }
    caches["default"].set("key", 1)  # as a master of root does that imports the application

    def serve() -> None:
        expected = rf"{reachable}/cache belongs to user 0, .*runs as user {UID}.*chown -R {UID} "
        for use in (lambda: caches["default"].get("key"), lambda: caches["default"].set("key", 2)):
            with pytest.raises(StoreUnavailable, match=expected):
                use()

    as_other_user(serve)
    assert caches["default"].get("key") == 1


_SITE = """
import os
import pathlib
import django
from django.conf import settings
here = pathlib.Path(__file__).parent
settings.configure(
    SECRET_KEY="x" * 50,
    INSTALLED_APPS=["cacheapp"],
    CACHES={"default": {"BACKEND": "cacheapp.backends.LMDBCache", "LOCATION": here / "cache",
                        "OPTIONS": {"size_limit": 2**22}}},
    CACHEAPP={"STATE_DIR": here / "state"},
)
django.setup()
from django.core.cache import cache
from django.core.handlers.wsgi import WSGIHandler
from cacheapp import gunicorn_hooks
from cacheapp.checks import gunicorn
from cacheapp.demo import stats_ring, worker_agent
cache.set("key", 1)  # in the master, which root runs
application = WSGIHandler()

def post_worker_init(worker):
    gunicorn_hooks.post_worker_init(worker)
    print("the worker started", flush=True)
"""


def test_a_worker_of_another_user_than_its_master_logs_what_it_cannot_use(reachable: Path) -> None:
    (reachable / "site_of_root.py").write_text(_SITE)
    gunicorn = subprocess.Popen(
        [
            *(sys.executable, "-m", "gunicorn", "--preload", "--bind", f"unix:{reachable}/socket"),
            *("--user", str(UID), "--group", str(UID), "--no-control-socket"),
            *("--config", "python:site_of_root", "site_of_root"),
        ],
        env={**os.environ, "PYTHONPATH": f"{reachable}:{ROOT}", "GUNICORN_CMD_ARGS": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    printed = []
    try:
        assert gunicorn.stdout is not None
        for line in gunicorn.stdout:
            printed.append(line)
            if "the worker started" in line:
                break
    finally:
        gunicorn.terminate()
        printed.append(gunicorn.communicate(timeout=60)[0])
    for name, path in (("CACHES['default']", "cache"), ("CACHEAPP['STATE_DIR']", "state")):
        expected = (
            f"{name}: {reachable}/{path} belongs to user 0, but this worker runs as user {UID}"
        )
        assert expected in "".join(printed)
