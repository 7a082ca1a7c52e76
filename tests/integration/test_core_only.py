"""A project with none of the packages of the extras: the core works, and each error names its extra."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cacheapp.extras import OPTIONAL

ROOT = Path(__file__).resolve().parent.parent.parent

SETTINGS = """
import os
from pathlib import Path
PLACE = Path(__file__).parent
SECRET_KEY = "only-for-tests-" + "x" * 50
INSTALLED_APPS = os.environ["APPS"].split()
ROOT_URLCONF = os.environ.get("URLS", "urls")
WSGI_APPLICATION = os.environ.get("WSGI", "core_only.application")
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True,
    "OPTIONS": {"context_processors": ["django.contrib.auth.context_processors.auth",
        "django.template.context_processors.request",
        "django.contrib.messages.context_processors.messages"]}}]
MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": PLACE / "db.sqlite3"}}
CACHES = {
    "default": {"BACKEND": "cacheapp.backends.LMDBCache", "LOCATION": PLACE / "cache", "KEY_PREFIX": "a"},
}
for alias, name in (("disk", "DiskCache"), ("redis", "RedisCache")):
    if alias in os.environ.get("ALIASES", ""):
        place = "redis://127.0.0.1:1/0" if alias == "redis" else str(PLACE / "disk")
        CACHES[alias] = {"BACKEND": f"cacheapp.backends.{name}", "LOCATION": place, "KEY_PREFIX": "a"}
if "CACHEAPP" in os.environ:
    CACHEAPP = {"STATE_DIR": PLACE / "state", "DOWNLOAD_ROOT": PLACE / "root", "DOWNLOAD_RUNNER": "celery",
        "DOWNLOAD_BUCKETS": {"s3://bucket/": {"region": "eu-central-1"}}}
USE_TZ = True
"""
URLS = """
from django.contrib import admin
from django.urls import path
urlpatterns = [path("admin/", admin.site.urls)]
"""
PAGES = """
from django.contrib import admin
from django.urls import include, path
urlpatterns = [path("admin/", admin.site.urls), path("", include("cacheapp.urls"))]
"""
ADMIN = (
    "django.contrib.admin django.contrib.auth django.contrib.contenttypes django.contrib.sessions "
    "django.contrib.messages cacheapp"
)
WITH_DOWNLOADS = f"{ADMIN} cacheapp.downloads"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    blocked = sorted(OPTIONAL | {"diskcache_community"})
    (tmp_path / "sitecustomize.py").write_text(
        f"import sys\nsys.modules.update(dict.fromkeys({blocked}))\n"
    )
    (tmp_path / "core_only.py").write_text(SETTINGS)
    (tmp_path / "urls.py").write_text(URLS)
    return tmp_path


def run(project: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "CACHEAPP_TESTS"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=project,
        env={
            **kept,
            "PYTHONPATH": f"{project}:{ROOT}",
            "DJANGO_SETTINGS_MODULE": "core_only",
            "TMPDIR": str(project),  # the default of STATE_DIR is below it
            "APPS": ADMIN,
            **env,
        },
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )


def test_the_four_lines_work_without_the_app(project: Path) -> None:
    code = (
        "import django; django.setup()\n"
        "from django.core.cache import cache\n"
        "cache.set('a', {'b': 1}, 60)\n"
        "print(cache.get('a'), cache.incr_version('a'), cache.get_or_set('c', lambda: 7, 60))\n"
        "import cacheapp.cached, cacheapp.throttle, cacheapp.gunicorn_hooks\n"
    )
    done = run(project, "-c", code, APPS="")
    assert (done.returncode, done.stdout) == (0, "{'b': 1} 2 7\n"), done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "--fail-level", "WARNING"],
        ["migrate", "--verbosity", "0"],
        ["cachestats", "default"],
        ["cachecheck", "default", "--only", "add", "--seconds", "0.2", "--processes", "2"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_command_of_the_core_works(project: Path, arguments: list[str]) -> None:
    done = run(project, "-m", "django", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_worker_starts_and_ends_by_the_hooks(project: Path) -> None:
    code = (
        "import django, types; django.setup()\n"
        "from cacheapp import gunicorn_hooks\n"
        "gunicorn_hooks.post_worker_init(types.SimpleNamespace(alive=True))\n"
        "gunicorn_hooks.worker_exit(None, None)\n"
    )
    done = run(project, "-c", code)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("command", "extra"),
    [("lab", "lab"), ("demo", "lab"), ("download", "downloads"), ("downloads", "downloads")],
)
def test_a_command_without_its_packages_names_the_extra(
    project: Path, command: str, extra: str
) -> None:
    done = run(project, "-m", "django", command, "--list", "x", APPS=WITH_DOWNLOADS)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"CommandError: manage.py {command} requires the package ")
    assert line.endswith(f"Run: pip install 'cacheapp[{extra}]'")


def test_a_run_that_a_page_started_without_its_packages_names_the_extra(project: Path) -> None:
    code = (
        "import django; django.setup()\n"
        "from cacheapp.lab import run_record\n"
        "from cacheapp.processes import exclusive_run\n"
        "from cacheapp.processes.waiting import until\n"
        "run_record.start('starting')\n"
        "until(lambda: exclusive_run.holder() is None, 'the end', 120)\n"
        "print(run_record.status().state, run_record.status().error)\n"
    )
    done = run(project, "-c", code)
    assert done.stdout == (
        "failed CommandError: manage.py lab requires the package gunicorn, which is not installed. "
        "Run: pip install 'cacheapp[lab]'\n"
    ), done.stderr


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (["default", "--gunicorn"], "A private Gunicorn requires the package gunicorn"),
        (["redis", "--private"], "A private Redis server requires the package redis"),
    ],
    ids=["--gunicorn", "--private"],
)
def test_cachecheck_names_the_extra_of_an_option(
    project: Path, arguments: list[str], missing: str
) -> None:
    extra = "redis" if "--private" in arguments else "lab"
    done = run(project, "-m", "django", "cachecheck", *arguments, ALIASES="redis")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line == (
        f"CommandError: {missing}, which is not installed. Run: pip install 'cacheapp[{extra}]'"
    )


def test_a_project_without_a_wsgi_application_cannot_be_served(project: Path) -> None:
    done = run(project, "-m", "django", "cachecheck", "default", "--gunicorn", WSGI="")
    assert done.returncode == 2
    assert done.stderr.startswith("CommandError: WSGI_APPLICATION is not set")


@pytest.mark.parametrize("command", ["lab", "demo"])
def test_only_gunicorn_is_missing(project: Path, command: str) -> None:
    (project / "sitecustomize.py").write_text("import sys; sys.modules['gunicorn'] = None\n")
    done = run(project, "-m", "django", command)
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert line.endswith(
        "requires the package gunicorn, which is not installed. Run: pip install 'cacheapp[lab]'"
    )


def test_the_check_names_the_extra_of_each_backend_and_setting(project: Path) -> None:
    arguments = ("-m", "django", "check")
    done = run(project, *arguments, ALIASES="disk redis", CACHEAPP="1", APPS=WITH_DOWNLOADS)
    assert done.returncode == 1
    for line in (
        "(cacheapp.E002) CACHES['disk']: DiskCache requires the package diskcache",
        "Run: pip install 'cacheapp[disk]'",
        "(cacheapp.E002) CACHES['redis']: RedisCache requires the package redis",
        "Run: pip install 'cacheapp[redis]'",
        "(cacheapp.E006) 'cacheapp.downloads' in INSTALLED_APPS requires the package urllib3",
        "Run: pip install 'cacheapp[downloads]'",
        "(cacheapp.E006) CACHEAPP['DOWNLOAD_BUCKETS'] requires the package botocore",
        "Run: pip install 'cacheapp[s3]'",
        "(cacheapp.E006) CACHEAPP['DOWNLOAD_RUNNER'] = 'celery' requires the package celery",
        "Run: pip install 'cacheapp[celery]'",
    ):
        assert line in done.stderr


@pytest.mark.parametrize(
    ("blocked", "reason"),
    [
        ("hiredis", "the package hiredis, which is not installed"),
        (
            "redis.exceptions",  # any module that an older release did not have
            "another release of the package redis than the installed one (import of",
        ),
    ],
    ids=["without hiredis", "an old redis"],
)
def test_a_redis_of_other_programs_does_not_stop_the_check(
    project: Path, blocked: str, reason: str
) -> None:
    (project / "sitecustomize.py").write_text(f"import sys; sys.modules[{blocked!r}] = None\n")
    plain = run(project, "-m", "django", "check", "--fail-level", "WARNING")
    assert plain.returncode == 0, plain.stderr
    used = run(project, "-m", "django", "check", ALIASES="redis")
    assert used.returncode == 1
    assert f"(cacheapp.E002) CACHES['redis']: RedisCache requires {reason}" in used.stderr
    assert "HINT: Then run the check again" in used.stderr
    assert "Run: pip install 'cacheapp[redis]'" in used.stderr


def test_a_use_of_such_a_backend_names_the_extra(project: Path) -> None:
    code = (
        "import django; django.setup()\n"
        "from django.core.cache import caches\n"
        "caches['disk'].get('a')\n"
    )
    done = run(project, "-c", code, ALIASES="disk")
    assert done.stderr.splitlines()[-1] == (
        "cacheapp.errors.OptionsRefused: CACHES['disk']: DiskCache requires the package diskcache, "
        "which is not installed. Run: pip install 'cacheapp[disk]'"
    )


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("cacheapp.drf", "rest_framework", "drf"),
        ("cacheapp.telemetry.otel", "opentelemetry", "opentelemetry"),
    ],
)
def test_a_module_names_its_extra(project: Path, module: str, package: str, extra: str) -> None:
    done = run(project, "-c", f"import {module}")
    assert done.stderr.splitlines()[-1] == (
        f"cacheapp.errors.ExtraMissing: {module} requires the package {package}, "
        f"which is not installed. Run: pip install 'cacheapp[{extra}]'"
    )


def test_the_urls_name_the_extra_of_downloads(project: Path) -> None:
    done = run(project, "-m", "django", "check", URLS="cacheapp.urls", APPS=WITH_DOWNLOADS)
    assert done.returncode == 1
    assert "cacheapp.downloads.urls requires the package urllib3" in done.stderr.splitlines()[-1]
    assert "pip install 'cacheapp[downloads]'" in done.stderr.splitlines()[-1]


def test_urls_whose_import_failed_can_be_imported_again(project: Path) -> None:
    code = (
        "import django, importlib; django.setup()\n"
        "for _ in range(2):\n"
        "    try: importlib.import_module('cacheapp.urls')\n"
        "    except Exception as exc: print(type(exc).__name__)\n"
    )
    done = run(project, "-c", code, APPS=WITH_DOWNLOADS)
    assert done.stdout == "ExtraMissing\nExtraMissing\n", done.stderr


def test_the_check_names_the_extra_of_the_pages(project: Path) -> None:
    (project / "pages.py").write_text(PAGES)
    done = run(project, "-m", "django", "check", "--fail-level", "WARNING", URLS="pages")
    assert done.returncode == 1
    assert "(cacheapp.W010)" in done.stderr
    assert "pip install 'cacheapp[pages]'" in done.stderr


@pytest.mark.parametrize(
    ("fake", "message"),
    [
        ("sys.platform = 'win32'", "cacheapp does not run on Windows"),
        ("sys.abiflags = 't'", "cacheapp does not run on this free-threaded Python"),
    ],
    ids=["Windows", "free-threaded"],
)
def test_an_unsupported_python_is_refused(project: Path, fake: str, message: str) -> None:
    done = run(project, "-c", f"import sys; {fake}; import cacheapp")
    assert done.stderr.splitlines()[-1].startswith(f"ImportError: {message}")
