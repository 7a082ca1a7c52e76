"""The local backends where `/proc`, `/dev/shm` and calls of Linux are missing, as on macOS.

`make matrix` runs the whole contract in this way. Nothing here is a test on macOS.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

PROGRAM = """
import os, sys, time
from pathlib import Path
assert not hasattr(os, "posix_fallocate") and not hasattr(time, "CLOCK_BOOTTIME")
assert not os.path.exists("/proc/self") and not os.path.exists("/dev/shm")
import django
from django.conf import settings
place = Path(sys.argv[2])
settings.configure(
    SECRET_KEY="x" * 50,
    CACHEAPP={"STATE_DIR": place / "state"},
    CACHES={"default": {"BACKEND": f"cacheapp.backends.{sys.argv[1]}", "LOCATION": place / "cache",
                        "KEY_PREFIX": "p"}},
)
django.setup()
from django.core.cache import cache
cache.set("n", 0, 60)
children = []
for _ in range(3):
    if not (pid := os.fork()):
        for _ in range(50):
            cache.incr("n")
        with cache.lock("lock", timeout=10):
            cache.set("from a child", True, 60)
        os._exit(0)
    children.append(pid)
assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
large = os.urandom(100_000)
cache.set("large", large, 60)
assert cache.get("large") == large
print(cache.get("n"), cache.get("from a child"), cache.get_or_set("c", lambda: 7, 60), 0 < cache.ttl("n") <= 60)
"""


@pytest.mark.parametrize("backend", ["LMDBCache", "DiskCache"])
def test_a_local_backend_works_without_what_only_linux_has(tmp_path: Path, backend: str) -> None:
    bare_posix = ROOT / "tests" / "package" / "bare_posix"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, backend, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": f"{bare_posix}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "150 True 7 True\n"), done.stderr
