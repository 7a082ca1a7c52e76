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
    done = run(tmp_path, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def test_cachecheck_ends_at_once_with_one_line_if_the_store_cannot_be_opened(
    tmp_path: Path,
) -> None:
    (tmp_path / "cache").touch()
    done = run(tmp_path, "cachecheck", "default", "--processes", "2")  # all workloads, of 5 s each
    assert (done.returncode, done.stdout) == (2, ""), done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        "CommandError: alias default was not checked, because its store cannot be used: "
        f"StoreUnavailable: {tmp_path}/cache "
    )
    assert line.endswith(". To check the backend on a private store, add --private")


def run(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "django", *arguments],
        cwd=ROOT,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.integration.bare_settings",
            "BARE_PLACE": str(place),
        },
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
