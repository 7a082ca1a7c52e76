"""Django's own tests of caches and cache middleware pass with ours, or differ as documented."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import django
import pytest

from cacheapp.processes.servers import RedisServer
from tests.system.conftest import ROOT


@pytest.mark.soak
@pytest.mark.parametrize("backend", ["LMDBCache", "DiskCache", "RedisCache"])
def test_djangos_own_tests_pass(backend: str, tmp_path: Path) -> None:
    source = os.environ.get("DJANGO_SOURCE")
    if source is None:
        version = django.get_version()
        pytest.skip(
            "needs DJANGO_SOURCE, the unpacked source of Django: "
            f"pip download --no-deps --no-binary :all: django=={version}"
        )
    with contextlib.ExitStack() as stack:
        location = str(tmp_path / "cache")
        if backend == "RedisCache":
            location = stack.enter_context(RedisServer()).start().url
        done = subprocess.run(
            [sys.executable, "-m", "tests.django_suite", source, backend, location],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "unexpected: []" in done.stdout
