"""Run benchmarks one after another: all of them, or the named ones.

`--usual` is what `make bench` runs in about 15 minutes on two idle cores: fewer rounds where they take
long. It keeps the results of which README and docs have tables, and writes these anew.
"""

import argparse
import pkgutil
import subprocess
import sys

import benchmarks

# The public modules of these packages are benchmarks; their sub-packages and settings are not.
PACKAGES = ("backends", "consistency", "downloads")
NAMES = [
    f"{package}.{found.name}"
    for package in PACKAGES
    for found in pkgutil.iter_modules([f"{benchmarks.__path__[0]}/{package}"])
    if found.name[0] != "_" and not found.ispkg and not found.name.endswith("_settings")
]
USUAL = {
    "backends.cluster": "--rounds 10",
    "backends.cluster_listener": "--rounds 10",
    "backends.disk": "",
    "backends.hit_ratio": "",
    "backends.lmdb": "--rounds 10 --windows 3 --seconds 0.5",
    "backends.near": "--rounds 10",
    "backends.observing": "--rounds 100",
    "backends.redis": "",
    "backends.signing": "--rounds 30",
    "backends.single_flight": "--rounds 10",
    "consistency.search": "--rounds 2",
    "downloads.engine": "--runs 1 --smaller 2",
    "downloads.hosting": "--runs 1 --smaller 2",
    "downloads.many_files": "--files 20000",
    "downloads.slow_line": "",
    "downloads.waiting": "--runs 3",
}
"""The options of each benchmark in `--usual`."""

KEPT = {
    "backends.disk": "disk_cache",
    "backends.hit_ratio": "hit_ratio",
    "backends.lmdb": "lmdb_cache",
    "backends.observing": "observing",
    "backends.near": "near_cache",
    "backends.redis": "redis_cache",
    "backends.signing": "signing",
    "downloads.slow_line": "slow_line",
}
"""The results that pages show: the file in benchmarks/results."""


def main() -> int:
    """Run each in its own process; return the number of failures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--usual", action="store_true", help="shorter, and write README and docs")
    asked = parser.parse_args()
    names = asked.names
    if unknown := sorted(set(names) - set(NAMES)):
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(NAMES)}")
    failed = 0
    for name in names or NAMES:
        print(f"\n== {name}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}"]
        if asked.usual:
            command += USUAL[name].split()
            if name in KEPT:
                command += ["--json", f"benchmarks/results/{KEPT[name]}.json"]
        done = subprocess.run(command, check=False)
        failed += done.returncode != 0
    if asked.usual:
        failed += subprocess.run([sys.executable, "-m", "benchmarks.pages"], check=False).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
