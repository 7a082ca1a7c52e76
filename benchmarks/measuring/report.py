"""What a figure depends on, kept with it; and the command line that benchmarks have in common."""

import argparse
import datetime as dt
import functools
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import django

from cacheapp import clock

ROOT = Path(__file__).resolve().parent.parent.parent
_began_s = clock.monotonic_s()
_began_load = os.getloadavg()[0]


def command_line(description: str) -> argparse.ArgumentParser:
    """Return a parser with `--json`; the description is a module's docstring."""
    _commit()  # what runs is what was there as it began, whatever is committed meanwhile
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep all samples in this file")
    return parser


def read_amount(
    parser: argparse.ArgumentParser, *, calls: int, quick_calls: int
) -> argparse.Namespace:
    """Add the options that say how many calls are compared, and parse the command line."""
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--calls", type=int, default=calls, help="per variant and round")
    parser.add_argument("--quick", action="store_true", help="a tenth of the calls")
    if parser.parse_known_args()[0].quick:
        parser.set_defaults(rounds=10, calls=quick_calls)
    return parser.parse_args()


def set_up_django(settings_module: str = "tests.settings") -> None:
    """Let Django load the settings: of the tests, which take nothing from the environment."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", settings_module)
    django.setup()


def progress(done: str) -> None:
    """Say on stderr what is done, and how long it has taken until now."""
    print(f"[{clock.monotonic_s() - _began_s:6.1f} s] {done}", file=sys.stderr, flush=True)


def write_report(
    path: Path | None, benchmark: str, packages: Sequence[str], figures: dict[str, Any]
) -> None:
    """Write the figures after the circumstances, if a path was asked for."""
    if path is None:
        return
    report = {**_circumstances(benchmark, packages), **figures}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_rounded(report), separators=(",", ":")) + "\n")
    progress(f"wrote {path}")


def _rounded(value: Any) -> Any:
    """Return the same with floats to four decimals: a tenth of a nanosecond, of microseconds."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(found) for key, found in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(found) for found in value]
    return value


def _circumstances(benchmark: str, packages: Sequence[str]) -> dict[str, Any]:
    kernel = platform.release().partition("-")[0]
    return {
        "benchmark": benchmark,
        "date": dt.datetime.fromtimestamp(clock.wall_s(), dt.UTC).date().isoformat(),
        "commit": _commit(),
        "command": shlex.join(["python", "-m", f"benchmarks.{benchmark}", *sys.argv[1:]]),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in packages},
        "machine": f"{platform.system()} {kernel} {platform.machine()}",
        "processors": os.cpu_count(),
        "load_before": round(_began_load, 2),
        "load_after": round(os.getloadavg()[0], 2),
    }


@functools.cache
def _commit() -> str:
    git = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    found = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
