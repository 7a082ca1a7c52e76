"""The description of the API against the server that it describes, with requests that schemathesis makes up."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from cacheapp.processes.servers import GunicornServer
from tests.system.conftest import QUICK_START, NewEnv, StartGunicorn
from tests.system.downloads.parts import migrate

SECRET = "only-for-tests"  # noqa: S105 (it says so)
PERMISSIONS = [
    *("cacheapp.use_demo", "cacheapp.view_stats"),
    *(
        f"cacheapp_downloads.{name}"
        for name in (
            *("view_downloadjob", "add_downloadjob", "change_downloadjob"),
            *("delete_downloadjob", "manage_all_downloads"),
        )
    ),
]


@pytest.fixture(scope="module")
def server(new_env: NewEnv, start_gunicorn: StartGunicorn) -> GunicornServer:
    token = {"sha256": hashlib.sha256(SECRET.encode()).hexdigest(), "permissions": PERMISSIONS}
    env = {
        **new_env(),
        **QUICK_START,
        "DEMO": "0",
        "WEB_CONCURRENCY": "2",
        "API_TOKENS": json.dumps({"tester": token}),
    }
    migrate(env)
    return start_gunicorn(env)


@pytest.mark.parametrize(
    "phases", ["examples,coverage", pytest.param("examples,fuzzing", marks=pytest.mark.soak)]
)
def test_no_request_gets_a_response_that_the_description_does_not_have(
    server: GunicornServer, tmp_path: Path, phases: str
) -> None:
    run = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run"),
            f"{server.url}/api/openapi.json",
            *("--header", f"Authorization: Bearer {SECRET}"),
            *("--max-examples", "5", "--seed", "20", "--phases", phases),
            # Valid in form only: a cursor of no page, a URL of an origin that is not allowed.
            *("--exclude-checks", "positive_data_acceptance"),
            *("--request-timeout", "100", "--generation-database", "none", "--no-color"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
