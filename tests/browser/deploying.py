"""A deployment as on a server: its database migrated, its static files collected."""

import os
import subprocess
import sys
from pathlib import Path

from tests.system.conftest import ROOT, WORKERS


def deployed(directory: Path, redis_url: str, **more: str) -> dict[str, str]:
    """Return the environment of a deployment with its data in this directory, made ready."""
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
