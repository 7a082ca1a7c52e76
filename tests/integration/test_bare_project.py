"""A project with cacheapp only: no users, no sessions, no admin."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "--fail-level", "WARNING"],
        ["makemigrations", "--check"],
        ["migrate"],
        ["cachestats", "default"],
        ["cachecheck", "default", "--only", "registers", "--seconds", "0.2"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_command_works(tmp_path: Path, arguments: list[str]) -> None:
    env = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.integration.bare_settings",
        "BARE_PLACE": str(tmp_path),
    }
    command = [sys.executable, "-m", "django", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
