"""Each benchmark runs for real, only much too short to measure anything."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import NAMES
from tests.system.conftest import ROOT

SMALL = {
    "consistency.search": "--rounds 1 --operations 500 --keys 5 --registers 500",
    "backends.cluster": "--rounds 1 --calls 2",
    "backends.cluster_listener": "--rounds 1 --nodes 3",
    "backends.disk": "--rounds 1 --calls 2",
    "downloads.engine": "--runs 1 --smaller 50 --only 50",
    "downloads.many_files": "--files 50",
    "downloads.slow_line": "--smaller 100",
    "downloads.waiting": "--runs 1 --files 4 --delay-ms 1 --workers 2",
    "downloads.hosting": "--runs 1 --smaller 50",
    "backends.hit_ratio": "--keys 200 --requests 1000 --alphas 1.0",
    "backends.lmdb": "--caches locmem our-lmdb --rounds 1 --calls 2 --windows 1 "
    "--seconds 0.02 --processes 2 --connections 3 --entries 300 --sizes 50 500",
    "backends.observing": "--rounds 1 --calls 2",
    "backends.near": "--rounds 1 --calls 2 --windows 1 --seconds 0.1 --entries 300 --processes 2 --lags 2",
    "backends.redis": "--rounds 1 --calls 2",
    "backends.signing": "--rounds 1 --calls 2",
    "backends.single_flight": "--processes 2 --threads 2 --rounds 1 --factory-ms 5 --waiters 2 --window 0.05",
}


def test_every_benchmark_is_found() -> None:
    assert set(NAMES) == set(SMALL)


_ALWAYS = ("consistency.search", "backends.lmdb", "downloads.engine")
"""One of each package; `make soak` runs the others too."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in _ALWAYS else pytest.mark.soak) for name in NAMES],
)
def test_a_benchmark_runs_and_keeps_what_it_measured(name: str, tmp_path: Path) -> None:
    kept = tmp_path / "results" / "found.json"
    command = [
        sys.executable,
        "-m",
        f"benchmarks.{name}",
        *SMALL[name].split(),
        "--json",
        str(kept),
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path), "PRELOAD": "1"},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(kept.read_text())
    assert found["benchmark"] == name
    assert found["command"].startswith(f"python -m benchmarks.{name} {SMALL[name][:8]}")
    assert len(found["commit"].removesuffix("-dirty")) in {40, len("unknown")}
    assert list(tmp_path.iterdir()) == [kept.parent], "it left something behind"
    # Each goal's row was measured, by the name that the goal has for it.
    assert [goal["measure"] for goal in found.get("goals", []) if goal["ours"] is None] == []
