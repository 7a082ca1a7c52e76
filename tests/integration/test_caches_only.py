"""A project with `cacheapp` but without `cacheapp.downloads`: no tables, models or commands of downloads."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import CheckMessage, run_checks
from django.db import connection
from pytest_django.fixtures import Settings

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import json, sys, types
from pathlib import Path
from django.conf import settings
place = Path(sys.argv[1])
settings.configure(
    SECRET_KEY="x" * 50,
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.staticfiles",
                    "django_htmx", "cacheapp"],
    ROOT_URLCONF="__main__",
    STATIC_URL="static/", ALLOWED_HOSTS=["localhost"], LOGIN_URL="/",
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": place / "db.sqlite3"}},
    CACHES={"default": {"BACKEND": "cacheapp.backends.LMDBCache", "LOCATION": place / "cache",
                        "KEY_PREFIX": "a"}},
    CACHEAPP={"STATE_DIR": place / "state", "DEMO": True},
    USE_TZ=True,
)
import django
django.setup()
from django.apps import apps
from django.core.management import call_command, get_commands
from django.db import connection
from django.test import Client
from django.urls import include, path
urlpatterns = [path("", include("cacheapp.urls"))]
call_command("check", fail_level="WARNING", verbosity=0)
call_command("migrate", verbosity=0)
call_command("makemigrations", check=True, dry_run=True, verbosity=0)
from cacheapp import gunicorn_hooks
gunicorn_hooks.post_worker_init(types.SimpleNamespace(alive=True))
client = Client(HTTP_HOST="localhost", SERVER_PROTOCOL="HTTP/1.1", headers={"accept": "text/html"})
pages = {path: client.get(path) for path in sys.argv[2:]}
index = client.get("/api/").json()
stats = client.get("/api/stats").json()
gunicorn_hooks.worker_exit(None, None)
with connection.cursor() as cursor:
    tables = connection.introspection.table_names(cursor)
print(json.dumps({
    "tables": [table for table in tables if not table.startswith(("auth_", "django_"))],
    "commands": [name for name, app in get_commands().items() if app.startswith("cacheapp")],
    "models": [model.__name__ for model in apps.get_app_config("cacheapp").get_models()],
    "modules": [name for name in sys.modules if name.startswith("cacheapp.downloads.jobs")],
    "packages": [name for name in ("urllib3", "rich", "botocore", "celery") if name in sys.modules],
    "pages": {path: response.status_code for path, response in pages.items()},
    "linked": [path for path, response in pages.items() if b"downloads/" in response.content],
    "endpoints": [it for it in index["endpoints"] if "downloads" in it],
    "stats": sorted(stats),
}))
"""
PATHS = ("/", "/lab/", "/check/", "/stats/", "/metrics", "/readyz", "/downloads/")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    place = tmp_path_factory.mktemp("caches_only")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(place), *PATHS],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(place)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_it_has_no_tables_models_and_commands_of_downloads(found: Any) -> None:
    assert found["tables"] == []
    assert found["models"] == ["Demo"]
    assert sorted(found["commands"]) == ["cachecheck", "cachestats", "demo", "lab"]


def test_it_imports_no_models_and_packages_of_downloads(found: Any) -> None:
    assert (found["modules"], found["packages"]) == ([], [])


def test_its_pages_lead_to_no_downloads(found: Any) -> None:
    assert found["pages"] == {**dict.fromkeys(PATHS, 200), "/downloads/": 404}
    assert found["linked"] == []


def test_its_api_names_no_downloads(found: Any) -> None:
    assert found["endpoints"] == []
    assert found["stats"] == ["aliases", "pid"]


def _without(settings: Settings, app: str) -> None:
    settings.INSTALLED_APPS = [it for it in settings.INSTALLED_APPS if it != app]


def _message(check_id: str, **options: Any) -> CheckMessage:
    (message,) = [it for it in run_checks(**options) if it.id == check_id]
    return message


def test_e009_settings_of_downloads_without_the_app(settings: Settings) -> None:
    _without(settings, "cacheapp.downloads")
    message = _message("cacheapp.E009", tags=["caches"])  # no URLs: they are imported once
    assert message.msg == (
        "CACHEAPP['DOWNLOAD_ROOT'] is set, but 'cacheapp.downloads' is not in INSTALLED_APPS: there are "
        "no downloads."
    )
    assert "Add 'cacheapp.downloads' to INSTALLED_APPS below 'cacheapp'" in str(message.hint)


@pytest.mark.django_db  # Django 6.1's own checks use the database
def test_e010_downloads_without_cacheapp(settings: Settings) -> None:
    _without(settings, "cacheapp")
    assert "but 'cacheapp' is not" in _message("cacheapp.E010", tags=["models"]).msg


@pytest.mark.django_db
def test_e005_names_the_present_form_of_a_permission(settings: Settings) -> None:
    token = {"sha256": "0" * 64, "permissions": ["cacheapp.add_downloadjob"]}
    settings.CACHEAPP = {**settings.CACHEAPP, "API_TOKENS": {"old": token}}
    assert _message("cacheapp.E005").hint == "It is now 'cacheapp_downloads.add_downloadjob'."


@pytest.mark.django_db
def test_w017_tables_that_are_left_without_the_app(settings: Settings) -> None:
    assert run_checks(databases=["default"], tags=["database"]) == []
    _without(settings, "cacheapp.downloads")
    assert "cacheapp_downloads_downloadjob" in connection.introspection.table_names()
    message = _message("cacheapp.W017", databases=["default"], tags=["database"])
    assert message.msg == (
        "The database 'default' has the table cacheapp_downloads_downloadjob and others of downloads, but "
        "'cacheapp.downloads' is not in INSTALLED_APPS. They are kept, and nothing uses them."
    )


@pytest.mark.django_db
def test_w017_a_table_of_an_earlier_release_that_was_not_renamed() -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE cacheapp_downloadjob (id integer)")
    message = _message("cacheapp.W017", databases=["default"], tags=["database"])
    assert "'default' has the table cacheapp_downloadjob of an earlier release" in message.msg
    assert "let the router treat 'cacheapp_downloads' as 'cacheapp'" in str(message.hint)


def test_the_urls_of_downloads_name_the_app_that_they_require() -> None:
    code = (
        "from django.conf import settings; settings.configure(INSTALLED_APPS=['cacheapp'])\n"
        "import django; django.setup()\n"
        "import cacheapp.downloads.urls\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stderr.splitlines()[-1].startswith(
        "django.core.exceptions.ImproperlyConfigured: cacheapp.downloads.urls requires "
        "'cacheapp.downloads' in INSTALLED_APPS."
    )
