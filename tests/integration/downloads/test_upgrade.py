"""A database from before the app of downloads keeps its rows and permissions, on each database."""

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import Permission, User
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.state import ProjectState
from django.utils import timezone
from pytest_django.fixtures import Settings

from cacheapp.downloads.jobs.models import DownloadJob
from tests.postgres import USER

MIGRATION = import_module("cacheapp.downloads.migrations.0002_content_types").Migration

ROOT = Path(__file__).resolve().parents[3]
MODELS = ("auditentry", "downloadfile", "downloadjob", "downloadnotification", "jobcreator")
ROWS = {
    "job": ["11111111-2222-3333-4444-555555555555", 3, 4, "user:1"],
    "files": ["file 0", "file 1"],
    "notifications": 1,
    "creators": [["user:1", 5]],
    "audit": ["11111111-2222-3333-4444-555555555555"],
}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def after(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run all steps of the upgrade; return what there was after each."""
    data = tmp_path_factory.mktemp("upgrade")
    env = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.race_settings",
        "CACHEAPP_TESTS": str(data),
        "DATA_DIR": str(data),
    }
    if request.param == "postgresql":
        socket = str(request.getfixturevalue("postgres").directory)
        with psycopg.connect(host=socket, user=USER, dbname="postgres", autocommit=True) as server:
            server.execute("CREATE DATABASE upgrade")
        env |= {"POSTGRES_SOCKET": socket, "POSTGRES_NAME": "upgrade"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.downloads.upgrade_steps"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _tables(label: str) -> list[str]:
    return [f"{label}_{name}" for name in MODELS]


def _grants(label: str) -> dict[str, list[str]]:
    return {"ann": [f"{label}.add_downloadjob"], "ben": [f"{label}.manage_all_downloads"]}


def test_without_the_new_app_everything_stays_as_it_was(after: Any) -> None:
    assert after["earlier"]["tables"] == _tables("cacheapp")
    assert after["earlier"]["permissions"] == _grants("cacheapp")
    assert after["without downloads"] == after["earlier"]


def test_the_new_app_finds_all_rows_in_tables_of_its_own(after: Any) -> None:
    found = after["upgraded"]
    assert found["tables"] == _tables("cacheapp_downloads")
    assert (found["rows"], found["inserted"]) == (ROWS, True)


def test_users_and_groups_keep_their_permissions(after: Any) -> None:
    label = "cacheapp_downloads"
    found = after["upgraded"]
    assert found["labels"] == [label] * len(MODELS)
    assert found["log"] == [label] * 2  # also that of the content type that was merged
    cems = [f"{label}.add_downloadjob", f"{label}.fly_downloadjob"]
    assert found["permissions"] == {**_grants(label), "cem": cems}


def test_the_earlier_release_finds_everything_again(after: Any) -> None:
    found = after["back"]
    assert found["tables"] == _tables("cacheapp")
    assert found["labels"] == ["cacheapp"] * len(MODELS)
    assert found["log"] == ["cacheapp"] * 2
    cems = ["cacheapp.add_downloadjob", "cacheapp.fly_downloadjob"]
    assert found["permissions"] == {**_grants("cacheapp"), "cem": cems}


def test_a_second_upgrade_finds_everything_once_more(after: Any) -> None:
    expected = {name: it for name, it in after["upgraded"].items() if name != "inserted"}
    assert after["upgraded again"] == expected


def test_all_tables_can_be_dropped_and_created_anew(after: Any) -> None:
    assert after["removed"]["tables"] == []
    assert after["new"]["tables"] == _tables("cacheapp_downloads")
    assert after["new"]["jobs"] == 0


@pytest.mark.django_db
def test_a_release_without_titles_still_creates_jobs() -> None:
    """While workers are replaced, both releases use the migrated database."""
    state = MigrationLoader(connection).project_state(("cacheapp_downloads", "0002_content_types"))
    earlier: Any = state.apps.get_model("cacheapp_downloads", "DownloadJob")
    assert not hasattr(earlier, "title")
    now = timezone.now()
    made = earlier.objects.create(heartbeat_at=now, created_at=now, files_total=0, threads=1)
    assert DownloadJob.objects.get(id=made.id).title == ""


class DownloadsElsewhere:
    """A router that gives downloads a database of their own."""

    def allow_migrate(self, db: str, app_label: str, **_hints: Any) -> bool | None:
        """Keep downloads out of the default database."""
        return db != "default" if app_label == "cacheapp_downloads" else None


def _apply() -> None:
    """Run the migration of the content types on the database of the test."""
    editor = connection.SchemaEditorClass(connection)
    MIGRATION("0002_content_types", "cacheapp_downloads").apply(ProjectState(), editor)


@pytest.mark.django_db
def test_permissions_move_where_a_router_keeps_downloads_in_another_database(
    settings: Settings,
) -> None:
    settings.DATABASE_ROUTERS = [f"{__name__}.DownloadsElsewhere"]
    ContentType.objects.filter(app_label="cacheapp_downloads").update(app_label="cacheapp")
    dee = User.objects.create_user("dee")
    dee.user_permissions.add(Permission.objects.get(codename="add_downloadjob"))
    _apply()
    assert dee.get_all_permissions() == {"cacheapp_downloads.add_downloadjob"}
    assert not ContentType.objects.filter(app_label="cacheapp", model__in=MODELS).exists()


@pytest.mark.django_db
def test_rows_that_may_not_move_keep_their_content_type(settings: Settings) -> None:
    kind = ContentType.objects.get(app_label="cacheapp_downloads", model="downloadjob")
    earlier = ContentType.objects.create(app_label="cacheapp", model="downloadjob")
    granted = Permission.objects.create(content_type=earlier, codename="add_downloadjob")
    dee = User.objects.create_user("dee")
    dee.user_permissions.add(granted)
    LogEntry.objects.create(user=dee, content_type=kind, action_flag=CHANGE)
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TRIGGER fixed BEFORE UPDATE ON django_admin_log "
            "BEGIN SELECT RAISE(ABORT, 'rows are fixed'); END"
        )
    _apply()
    assert [it.content_type for it in LogEntry.objects.all()] == [kind]
    assert "cacheapp_downloads.add_downloadjob" in dee.get_all_permissions()
