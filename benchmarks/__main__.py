"""Run benchmarks one after another: all of them, or the named ones."""

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


def main() -> int:
    """Run each in its own process; return the number of failures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NAMES)}")
    names = parser.parse_args().names
    if unknown := sorted(set(names) - set(NAMES)):
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(NAMES)}")
    failed = 0
    for name in names or NAMES:
        print(f"\n== {name}", flush=True)
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False)
        failed += done.returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
