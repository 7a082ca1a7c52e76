"""Prepare a deployment as on a server: migrated database and collected static files."""

import os
import subprocess
import sys
from pathlib import Path

from tests.system.conftest import ROOT, WORKERS


def deployed(directory: Path, redis_url: str, **more: str) -> dict[str, str]:
    """Prepare a deployment with its data in this directory; return its environment."""
    env = {
        "DJANGO_SETTINGS_MODULE": "project.settings",
        "DATA_DIR": str(directory),
        "REDIS_URL": redis_url,
        "DEMO": "1",
        "DEBUG": "0",
        "SECURE_SSL_REDIRECT": "0",
        "SECRET_KEY": "only-for-tests-" + "x" * 50,
        "WEB_CONCURRENCY": str(WORKERS),
        "PRELOAD": "1",
        **more,
    }
    for command in (["migrate"], ["collectstatic", "--no-input"]):
        subprocess.run(
            [sys.executable, "manage.py", *command, "--verbosity", "0"],
            cwd=ROOT,
            env={**os.environ, **env},
            check=True,
        )
    return env
