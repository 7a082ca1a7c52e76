"""What `manage.py cachecheck` and `python -m cacheapp.cachecheck` share: options, output, exit status."""

import contextlib
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import django

from cacheapp import clock
from cacheapp.cachecheck.ci import write_annotations, write_junit
from cacheapp.cachecheck.examine import NAMES, CheckPlan
from cacheapp.cachecheck.report import Expected, as_json, differences, print_report, write_drawings
from cacheapp.cachecheck.verdicts import AliasReport, PropertyVerdict

HOLDS, BROKEN, COULD_NOT_RUN = 0, 1, 2


class Parser(Protocol):
    """A parser of `argparse`."""

    def add_argument(self, *names: str, **how: Any) -> Any:
        """Declare an option."""


def add_options(parser: Parser) -> None:
    """Declare the options of both commands."""
    add = parser.add_argument
    add("--processes", type=_at_least(2), default=4, help="client processes (default 4)")
    add("--threads", type=_at_least(1), default=2, help="threads of each process (default 2)")
    add(
        "--fork",
        action="store_true",
        help="fork the clients from a process that used the cache",
    )
    add("--seconds", type=_seconds, default=5.0, help="duration of each workload (default 5)")
    add("--seed", type=int, default=0, help="seed of the random calls (default 0)")
    add(
        "--max-bytes",
        type=_at_least(64 * 1024),
        default=8 * 1024 * 1024,
        help="limit of the data stored at a time (default 8 MiB)",
    )
    add("--may-evict", action="store_true", help="accept every miss, because the cache may evict")
    add("--only", action="append", choices=NAMES, metavar="WORKLOAD", help=", ".join(NAMES))
    add_outputs(parser)


def add_outputs(parser: Parser) -> None:
    """Declare where the findings are written to, and what they are compared with."""
    add = parser.add_argument
    add("--json", type=Path, metavar="FILE", help="write all findings to this file, as JSON")
    add(
        "--svg",
        type=Path,
        metavar="DIR",
        help="write an SVG of each counterexample to this directory",
    )
    add("--junit", type=Path, metavar="FILE", help="write the verdicts to this file, as JUnit XML")
    add(
        "--github",
        action="store_true",
        help="print annotations that GitHub Actions shows at the run",
    )
    add(
        "--expect",
        type=Path,
        metavar="FILE",
        help="compare the verdicts with those of this file, for CI",
    )


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if (found := int(text)) < least:
            raise ValueError
        return found

    number.__name__ = f"number of at least {least}"  # argparse: invalid … value
    return number


def _seconds(text: str) -> float:
    found = float(text)
    if not 0 < found <= 600:  # noqa: PLR2004 (ten minutes for one workload)
        raise ValueError
    return found


_seconds.__name__ = "number of seconds above 0, at most 600,"


def plan(options: Mapping[str, Any]) -> CheckPlan:
    """Return the plan that the options describe."""
    return CheckPlan(
        processes=options["processes"],
        threads=options["threads"],
        fork=options["fork"],
        seconds=options["seconds"],
        seed=options["seed"],
        evicts=options["may_evict"],
        max_bytes=options["max_bytes"],
        private=options["private"],
        only=tuple(options["only"] or NAMES),
    )


def about(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is needed to repeat the check."""
    named = ("processes", "threads", "fork", "gunicorn", "seconds", "seed", "may_evict", "private")
    return {
        "date": datetime.fromtimestamp(clock.wall_s(), UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": _versions(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.system()}",
        "options": {name: options.get(name, False) for name in named},
    }


def _versions() -> dict[str, str]:
    found = {"django": django.get_version()}
    for package in ("django-redis", "redis", "diskcache", "lmdb", "pymemcache", "pylibmc"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def show(
    reports: Sequence[AliasReport], options: Mapping[str, Any], expected: Expected | None
) -> str:
    """Print the findings and write the files; return a sentence about the drawings, or nothing."""
    print_report(reports, sys.stdout)
    if options["github"]:
        write_annotations(reports, sys.stdout, expected)
    if options["json"]:
        _write(options["json"], as_json(reports, about(options)))
    if options["junit"]:
        _write(options["junit"], write_junit(reports, expected))
    if not options["svg"]:
        return ""
    return f"{len(write_drawings(reports, options['svg']))} drawings in {options['svg']}"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)  # after minutes of checks it must not fail
    path.write_text(text)


def status(reports: Sequence[AliasReport], expected: Expected | None) -> tuple[int, str]:
    """Return the exit status and, unless all properties hold or are as expected, the reason."""
    if expected is not None:
        wrong = differences(reports, expected)
        return (BROKEN, "\n".join(wrong)) if wrong else (HOLDS, "")
    found = [(report.alias, one) for report in reports for one in report.findings]
    broken = [
        f"{alias}: {one.property}" for alias, one in found if one.verdict is PropertyVerdict.BROKEN
    ]
    if broken:
        return BROKEN, f"{len(broken)} broken: {'; '.join(broken)}"
    unknown = [
        f"{alias}: {one.property}" for alias, one in found if one.verdict is PropertyVerdict.UNKNOWN
    ]
    if unknown or not found:
        return COULD_NOT_RUN, f"unknown: {'; '.join(unknown) or 'no workload ran'}"
    return HOLDS, ""


def progress() -> Callable[[str], None]:
    """Return a function that replaces the line on stderr, if that is a terminal."""
    if not sys.stderr.isatty():
        return lambda _line: None

    def show_line(line: str) -> None:
        sys.stderr.write(f"\r\x1b[2K{line}")
        sys.stderr.flush()

    return show_line
