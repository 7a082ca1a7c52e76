"""Two releases side by side on one store: neither crashes, and nothing is lost.

The older one is the commit before the last change of the backends. A second case gives the newer one
another format of LMDBCache's files: then the two share no entries, and must leave each other alone.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from cacheapp.processes.servers import RedisServer

pytestmark = pytest.mark.soak

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 300
PROGRAM = """
import json, sys
import django
from django.conf import settings

entry, place, name, rounds = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
settings.configure(CACHES={"default": entry}, SECRET_KEY="two releases", INSTALLED_APPS=["cacheapp"],
                   CACHEAPP={"STATE_DIR": place})
django.setup()
from django.core.cache import cache
import cacheapp

assert cacheapp.__file__.startswith(sys.argv[5]), cacheapp.__file__
print("ready", flush=True)
sys.stdin.readline()
for number in range(rounds):
    cache.add("counter", 0, None)
    cache.incr("counter")
    cache.set_many({f"{name}:{number}": [name, number], "both": {"by": name}}, None)
    assert cache.get(f"{name}:{number}") == [name, number]
    assert cache.get("both")["by"] in ("old", "new")
    cache.get_or_set(f"computed:{number % 7}", lambda: "x" * 5000, 0.02, stale=0.02)
    with cache.lock("lock", timeout=30):
        cache.set("unsafe", cache.get("unsafe", 0) + 1, None)
    cache.touch("both", 60)
    cache.delete(f"computed:{number % 5}")
print(json.dumps({"counter": cache.get("counter"), "unsafe": cache.get("unsafe")}), flush=True)
sys.stdin.readline()
seen = {other: [cache.get(f"{other}:{n}") == [other, n] for n in range(rounds)].count(True)
        for other in ("old", "new")}
print(json.dumps(seen | {"counter": cache.get("counter"), "unsafe": cache.get("unsafe")}), flush=True)
"""


def _git(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, check=False, capture_output=True, text=True
    )


@pytest.fixture
def previous(tmp_path: Path) -> Path:
    """The package before the last change of the backends, as its wheel has it."""
    archive = tmp_path / "previous.tar"
    last = _git("rev-list", "-1", "HEAD", "--", "cacheapp/backends").stdout.strip()
    made = _git("archive", "--output", str(archive), f"{last}~1", "cacheapp")
    if made.returncode:
        pytest.skip(f"THE CHECKOUT HAS NO EARLIER COMMIT: {made.stderr.strip()}")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "previous", filter="data")
    return tmp_path / "previous"


def _start(package: Path, name: str, entry: dict[str, Any], state: Path) -> subprocess.Popen[str]:
    state.mkdir(mode=0o700, exist_ok=True)
    env = {key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"}
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            PROGRAM,
            json.dumps(entry),
            str(state),
            name,
            str(ROUNDS),
            str(package),
        ],
        env=env | {"PYTHONPATH": str(package)},
        cwd=state,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def _go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def _run_both(
    old: Path, new: Path, entry: dict[str, Any], state: Path
) -> dict[str, dict[str, int]]:
    """Return what each release found at the end; fail if one of them raised."""
    both = {
        "old": _start(old, "old", entry, state),
        "new": _start(new, "new", entry, state),
    }
    found: dict[str, dict[str, int]] = {}
    try:
        for process in both.values():
            assert _line(process) == "ready\n"
        for step in ("work", "read"):
            for process in both.values():
                _go_on(process)
            for name, process in both.items():
                line = _line(process)
                assert line, f"the {name} release failed ({step})"
                found[name] = json.loads(line)
        assert [process.wait(60) for process in both.values()] == [0, 0]
    finally:
        for process in both.values():
            process.kill()
            process.communicate()
    return found


@pytest.mark.parametrize("kind", ["lmdb", "disk", "redis", "near"])
def test_two_releases_share_every_entry(
    previous: Path, tmp_path: Path, redis_server: RedisServer, kind: str
) -> None:
    backends = {
        "lmdb": "LMDBCache",
        "disk": "DiskCache",
        "redis": "RedisCache",
        "near": "NearCache",
    }
    local = kind in ("lmdb", "disk")
    entry: dict[str, Any] = {
        "BACKEND": f"cacheapp.backends.{backends[kind]}",
        "LOCATION": str(tmp_path / "cache") if local else redis_server.url,
        "KEY_PREFIX": f"two-releases-{kind}",
        "OPTIONS": {"copy": str(tmp_path / "copy")} if kind == "near" else {},
    }
    found = _run_both(previous, ROOT, entry, tmp_path / "state")
    expected = {"old": ROUNDS, "new": ROUNDS, "counter": 2 * ROUNDS, "unsafe": 2 * ROUNDS}
    assert found == {"old": expected, "new": expected}


def test_releases_of_different_formats_leave_each_other_alone(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "cacheapp", tmp_path / "next" / "cacheapp")
    for part, now, then in (
        ("directory.py", 'FORMAT = "v1"\n', 'FORMAT = "v2"\n'),
        ("records.py", "FORMAT = 1\n", "FORMAT = 2\n"),
    ):
        path = tmp_path / "next" / "cacheapp/backends/lmdb" / part
        text = path.read_text()
        assert now in text
        path.write_text(text.replace(now, then))
    entry = {"BACKEND": "cacheapp.backends.LMDBCache", "LOCATION": str(tmp_path / "cache")}
    found = _run_both(ROOT, tmp_path / "next", entry, tmp_path / "state")
    for name, other in (("old", "new"), ("new", "old")):
        own = {name: ROUNDS, other: 0, "counter": ROUNDS, "unsafe": ROUNDS}
        assert found[name] == own
