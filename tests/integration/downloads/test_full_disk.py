"""A disk that is really full: a small tmpfs in the test's own mount namespace."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.origin import Origin, body

ROOT = Path(__file__).resolve().parents[3]
MIB = 2**20
SETTINGS = """
import os
from project.settings import *
CACHEAPP["DOWNLOAD_MIN_FREE_BYTES"] = int(os.environ["MIN_FREE"])
"""
SCRIPT = """
import os, sys
import django
django.setup()
from django.core.management import CommandError, call_command
call_command("migrate", verbosity=0)
try:
    call_command("download", *sys.argv[1:], "--threads", "1", "--json")
except CommandError as exc:
    print(exc.returncode, exc, file=sys.stderr)
print(sorted((e.name, e.stat().st_size) for e in os.scandir(os.environ["DISK"])), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture
def download(tmp_path: Path, origin: Origin) -> Callable[..., tuple[dict[str, Any], list[str]]]:
    """Return a function that runs the command on a small disk.

    It returns the JSON and the other output of the command.
    """
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rm", "true"], check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs; run as root: make test")
    disk = tmp_path / "disk"
    disk.mkdir()
    (tmp_path / "small_disk.py").write_text(SETTINGS)
    (tmp_path / "script.py").write_text(SCRIPT)

    def run(size: int, min_free: int, *paths: str) -> tuple[dict[str, Any], list[str]]:
        mount = f"mount -t tmpfs -o size={size} tmpfs {disk}"
        command = f'{mount} && exec {sys.executable} {tmp_path / "script.py"} "$@"'
        done = subprocess.run(
            [unshare, "-rm", "sh", "-c", command, "sh"]
            + [origin.url + path for path in paths]
            + ["--to", str(disk)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={
                **os.environ,
                "PYTHONPATH": f"{ROOT}:{tmp_path}",
                "DJANGO_SETTINGS_MODULE": "small_disk",
                "DATA_DIR": str(tmp_path / "data"),
                "DEBUG": "1",
                "DOWNLOAD_NETWORKS": "127.0.0.0/8",
                "MIN_FREE": str(min_free),
                "DISK": str(disk),
            },
        )
        assert done.stdout, done.stderr
        return json.loads(done.stdout), done.stderr.splitlines()

    return run


Download = Callable[..., tuple[dict[str, Any], list[str]]]


def test_a_disk_that_fills_up_ends_the_file_with_the_reason_and_harms_no_other(
    download: Download,
) -> None:
    whole = len(body({}))
    long, chunked = f"/file/long?bytes={2 * MIB}", f"/chunked/unknown?bytes={3 * MIB}"
    found, said = download(MIB, 1, "/file/before", long, chunked, "/file/after")
    errors = {error["name"]: error["error"] for error in found["errors"]}
    # One has an announced length and does not begin; the length of the other is unknown.
    assert errors.pop("long").startswith(f"needs {2 * MIB} bytes; the disk has ")
    assert errors == {"unknown": "the disk is full"}
    # a retry does not help against a full disk
    assert [error["tries"] for error in found["errors"]] == [1, 1]
    assert (found["state"], found["files_done"], found["files_failed"]) == ("failed", 2, 2)
    assert said[-2:] == ["1 2 of 4 files failed", f"[('after', {whole}), ('before', {whole})]"]


def test_a_file_that_would_leave_too_little_free_is_ended_on_its_way(download: Download) -> None:
    kept = 40 * MIB
    found, said = download(100 * MIB, kept, f"/chunked/big?bytes={90 * MIB}")
    (error,) = found["errors"]
    assert error["error"].startswith("needs 0 bytes; the disk has ")
    assert error["error"].endswith(f", of which {kept} must stay free")
    assert said[-1] == "[]"
