"""The project's settings, loaded by processes with various environments."""

import grp
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from project.checks import check_front

ROOT = Path(__file__).resolve().parents[3]
SECRET = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"  # noqa: S105
SECURE = {
    "SECRET_KEY": SECRET,
    "ALLOWED_HOSTS": "cache.example",
    "SECURE_HSTS_SECONDS": "31536000",
    "SECURE_HSTS_INCLUDE_SUBDOMAINS": "1",
    "SECURE_HSTS_PRELOAD": "1",
}


def _manage(tmp_path: Path, *args: str, **env: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, "manage.py", *args],
        cwd=ROOT,
        env={**kept, "DATA_DIR": str(tmp_path / "data"), **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


def test_a_deployment_that_sets_what_it_should_is_clean(tmp_path: Path) -> None:
    done = _manage(tmp_path, "check", "--deploy", "--fail-level", "WARNING", **SECURE)
    assert (done.returncode, done.stdout) == (
        0,
        "System check identified no issues (0 silenced).\n",
    ), done.stderr


@pytest.mark.parametrize(
    ("bind", "warned"),
    [
        ("0.0.0.0:8000", True),
        ("192.0.2.1:80", True),
        ("[::]:8000", True),
        (":8000", True),
        ("127.0.0.2:8000", False),
        ("[::1]:8000", False),
        ("localhost:8000", False),
        ("unix:/run/mysite/socket", False),
    ],
)
def test_an_address_that_other_machines_reach_needs_a_proxy(
    settings: Settings, bind: str, *, warned: bool
) -> None:
    settings.BIND, settings.BEHIND_TLS_PROXY = bind, False
    assert [it.msg.startswith(f"BIND is {bind!r}") for it in check_front()] == [True] * warned
    settings.BEHIND_TLS_PROXY = True
    assert check_front() == []


def test_the_address_and_the_proxy_are_those_of_the_environment(tmp_path: Path) -> None:
    done = _manage(tmp_path, "check", **SECURE, BIND="0.0.0.0:8000")
    assert "(project.W001) BIND is '0.0.0.0:8000'" in done.stderr
    behind = _manage(tmp_path, "check", **SECURE, BIND="0.0.0.0:8000", BEHIND_TLS_PROXY="1")
    assert "project.W001" not in behind.stderr


def test_without_a_secret_key_nothing_starts(tmp_path: Path) -> None:
    done = _manage(tmp_path, "check")
    assert done.returncode != 0
    assert "environment: SECRET_KEY is not set" in done.stderr


@pytest.mark.parametrize(
    "key",
    ["x" * 49, "x" * 60, "abcd" * 20, "django-insecure-" + SECRET],
    ids=["short", "one character", "four characters", "a default"],
)
def test_a_weak_secret_key_is_refused(tmp_path: Path, key: str) -> None:
    done = _manage(tmp_path, "check", **{**SECURE, "SECRET_KEY": key})
    assert done.returncode != 0
    assert f"environment: SECRET_KEY has {len(key)} characters" in done.stderr
    assert "expected at least 50" in done.stderr
    assert key not in done.stderr
    assert _manage(tmp_path, "check", **{**SECURE, "SECRET_KEY": key, "DEBUG": "1"}).returncode == 0


def test_every_wrong_variable_is_named_at_once(tmp_path: Path) -> None:
    wrong = {
        "DEBUG": "perhaps",
        "SECURE_HSTS_SECONDS": "-1",
        "REDIS_URL": "http://127.0.0.1",
        "LOG_LEVEL": "loud",
    }
    done = _manage(tmp_path, "check", **{**SECURE, **wrong})
    assert done.returncode != 0
    for name in wrong:
        assert name in done.stderr
    assert SECRET not in done.stderr


def test_a_data_dir_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    done = _manage(tmp_path, "check", **SECURE)
    assert done.returncode != 0
    assert "environment: DATA_DIR is" in done.stderr


@pytest.mark.parametrize("mode", [0o770, 0o777], ids=oct)
def test_a_data_dir_that_others_can_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(mode)
    done = _manage(tmp_path, "check", **SECURE)
    user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    if mode == 0o770 and os.getuid() != 0 and user == group:  # a group of this user alone
        assert done.returncode == 0, done.stderr
        return
    assert done.returncode != 0
    assert f"writable (mode {mode:04o}); run: chmod go-w {tmp_path / 'data'}" in done.stderr
    assert list((tmp_path / "data").iterdir()) == []


def test_the_database_is_for_its_owner_only_in_a_data_dir_that_all_can_read(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    (data / "db.sqlite3").touch(mode=0o644)  # of an older version
    hold = (
        "from django.db import connection as c; cursor = c.cursor();"
        "cursor.execute('CREATE TABLE t (x)');"
        "import pathlib, sys;"
        f"print(*(oct(it.stat().st_mode & 0o777) for it in pathlib.Path({str(data)!r}).glob('db*')))"
    )
    done = _manage(tmp_path, "shell", "--no-imports", "-c", hold, **SECURE)
    assert done.stdout.split() == ["0o600"] * 3, done.stderr


def test_all_workers_of_a_debug_checkout_get_one_secret_key(tmp_path: Path) -> None:
    show = "import project.settings as s; print(s.SECRET_KEY)"
    env = {**os.environ, "DEBUG": "1", "DATA_DIR": str(tmp_path)}
    env.pop("SECRET_KEY", None)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", show], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True
        )
        for _ in range(8)
    ]
    keys = {process.communicate(timeout=200)[0].strip() for process in processes}
    assert len(keys) == 1
    assert len(keys.pop()) > 80
    assert sorted(path.name for path in tmp_path.iterdir()) == ["db.sqlite3", "secret_key"]
    assert (tmp_path / "secret_key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["WEB_CONCURRENCY", "WEB_THREADS", "GRACEFUL_TIMEOUT"])
def test_gunicorn_refuses_a_wrong_variable_by_name(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gunicorn", "--check-config", "-c", "gunicorn.conf.py"],
        cwd=ROOT,
        env={**os.environ, **SECURE, "DATA_DIR": str(tmp_path), name: "none"},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode != 0
    assert name in done.stderr


def test_the_database_is_in_wal_mode_with_immediate_transactions(tmp_path: Path) -> None:
    ask = (
        "from django.db import connection as c; cursor = c.cursor();"
        "print(cursor.execute('PRAGMA journal_mode').fetchone()[0], c.transaction_mode)"
    )
    done = _manage(tmp_path, "shell", "--no-imports", "-c", ask, **SECURE)
    assert done.stdout.split() == ["wal", "IMMEDIATE"], done.stderr


_ASK = """
import django
django.setup()
from django.conf import settings
from django.core.cache import caches
from django.test import Client
from django.urls import path

def broken(request):
    url = settings.CACHES["redis"]["LOCATION"]
    raise RuntimeError(f"cannot reach {url}")

class Urls:
    urlpatterns = [path("broken", broken)]

settings.ROOT_URLCONF = Urls
client = Client(raise_request_exception=False)
foreign = client.get("/broken", headers={"Host": "evil.example"})
print(foreign.status_code, foreign["Content-Type"], foreign.content)
for accept in ("text/html", "text/plain"):
    shown = client.get("/broken", headers={"Host": "localhost", "Accept": accept})
    text = shown.content.decode()
    assert shown.status_code == 500 and "RuntimeError" in text and "redis://" in text, text
    print(*(secret in text for secret in ("p%40ssw0rd", "p@ssw0rd", "br0kerpass")))
"""


def test_debug_pages_go_to_this_machine_only_and_without_passwords(tmp_path: Path) -> None:
    env = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "project.settings",
        "DEBUG": "1",
        "DATA_DIR": str(tmp_path / "data"),
        "REDIS_URL": "redis://user:p%40ssw0rd@127.0.0.1:1/0",
        "CELERY_BROKER_URL": "redis://:br0kerpass@127.0.0.1:1/0",
        "LOG_LEVEL": "ERROR",
    }
    done = subprocess.run(
        [sys.executable, "-c", _ASK], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    refused = "400 text/plain b'The Host of the request is not allowed here.\\n'"
    assert done.stdout.splitlines() == [refused, *["False False False"] * 2], done.stderr
