"""Processes with a small LMDBCache of their own, and small disks for it."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.integration.backends.lmdb.parts import MIB
from tests.required import skip_or_fail

ROOT = Path(__file__).parents[4]

CACHE = """
import os, sys
from django.conf import settings
location, state, size_limit = sys.argv[1], sys.argv[2], int(sys.argv[3])
settings.configure(CACHES={}, CACHEAPP={"STATE_DIR": state}, SECRET_KEY="x" * 50)
from cacheapp.backends import LMDBCache
from cacheapp.errors import CacheappError
cache = LMDBCache(location, {"OPTIONS": {"size_limit": size_limit}})
"""
_SERVE = (
    CACHE
    + """
for line in sys.stdin:
    try:
        print(repr(eval(line)), flush=True)
    except CacheappError as exc:
        print(f"{type(exc).__name__}: {exc}", flush=True)
"""
)


class CacheProcess:
    """A process with a cache of its own at a LOCATION: what it is sent, it evaluates."""

    def __init__(self, location: Path, size_limit: int, *prefix: str) -> None:
        self.process = subprocess.Popen(
            [
                *(*prefix, sys.executable, "-c", _SERVE),
                *(str(location), str(location.parent / "state"), str(size_limit)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def __call__(self, expression: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def end(self) -> str:
        """End the process; return what it logged."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
        return self.process.communicate(timeout=100)[1]


@contextmanager
def running(*workers: CacheProcess) -> Iterator[None]:
    """Kill the processes at the end."""
    try:
        yield
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.communicate()


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """Mount a tmpfs of this size."""
    path.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if os.geteuid() or mount is None or umount is None:
        skip_or_fail("needs root, mount and umount; run as root: make test")
    command = [str(mount), "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    if subprocess.run(command, check=False).returncode:
        skip_or_fail("needs the right to mount a tmpfs; run as root: make test")
    try:
        yield path
    finally:
        subprocess.run([str(umount), "-l", str(path)], check=True)


def run_with_cache(script: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a script that begins with `CACHE`, on a small cache below a directory, to its end."""
    places = [str(directory / "cache"), str(directory / "state"), str(4 * MIB)]
    return subprocess.run(
        [sys.executable, "-c", script, *places],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=200,
    )
