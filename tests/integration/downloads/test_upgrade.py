"""A database from before the app of downloads keeps its rows and permissions, on each database."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.postgres import USER

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
    assert found["log"] == [label]
    cems = [f"{label}.add_downloadjob", f"{label}.fly_downloadjob"]
    assert found["permissions"] == {**_grants(label), "cem": cems}


def test_the_earlier_release_finds_everything_again(after: Any) -> None:
    found = after["back"]
    assert found["tables"] == _tables("cacheapp")
    assert found["labels"] == ["cacheapp"] * len(MODELS)
    assert found["log"] == ["cacheapp"]
    cems = ["cacheapp.add_downloadjob", "cacheapp.fly_downloadjob"]
    assert found["permissions"] == {**_grants("cacheapp"), "cem": cems}


def test_a_second_upgrade_finds_everything_once_more(after: Any) -> None:
    expected = {name: it for name, it in after["upgraded"].items() if name != "inserted"}
    assert after["upgraded again"] == expected


def test_all_tables_can_be_dropped_and_created_anew(after: Any) -> None:
    assert after["removed"]["tables"] == []
    assert after["new"]["tables"] == _tables("cacheapp_downloads")
    assert after["new"]["jobs"] == 0
