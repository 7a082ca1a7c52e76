"""`manage.py cachecheck`: check the consistency of caches across processes."""

import contextlib
import itertools
import os
import platform
import sys
from argparse import SUPPRESS
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from cacheapp import clock
from cacheapp.cachecheck import run_record
from cacheapp.cachecheck.examine import NAMES, CheckPlan, Examination
from cacheapp.cachecheck.over_http import HttpExamination
from cacheapp.cachecheck.private import NotPrivate, Stores, private_stores
from cacheapp.cachecheck.report import (
    Expected,
    as_json,
    differences,
    print_report,
    read_expected,
    write_drawings,
)
from cacheapp.cachecheck.run import StoreFailed
from cacheapp.cachecheck.run_record import CheckRecorder
from cacheapp.cachecheck.verdicts import AliasReport, PropertyVerdict
from cacheapp.demo.deployment import private_deployment
from cacheapp.demo.namespace import aliases as all_aliases
from cacheapp.processes.exclusive_run import exclusive_run
from cacheapp.processes.run_record import RunState
from cacheapp.processes.servers import ServerFailed
from cacheapp.processes.stopping import Stopped, stopping
from cacheapp.processes.workers import AnswerLost, NotReached

HOLDS, BROKEN, COULD_NOT_RUN = 0, 1, 2


class Command(BaseCommand):
    """Run clients against aliases, judge their histories, and print the findings."""

    help = (
        "Run real processes against cache aliases, record what each saw, and give a verdict for "
        "each property, with a counterexample for each that is broken. Touches only keys of its "
        "own, which it removes. Exit status: 0 if all hold; 1 if one is broken, or differs from "
        "--expect; 2 if the check could not run, or one remains unknown."
    )
    requires_system_checks = ()  # this process must not open the caches

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        add = parser.add_argument
        add("aliases", nargs="*", metavar="ALIAS", help="default: all of CACHES")
        add("--processes", type=_at_least(2), default=4, help="client processes (default 4)")
        add("--threads", type=_at_least(1), default=2, help="threads of each process (default 2)")
        add(
            "--fork",
            action="store_true",
            help="fork the clients from a process that used the cache",
        )
        add(
            "--gunicorn",
            action="store_true",
            help="check the workers of a private Gunicorn, over HTTP",
        )
        add("--seconds", type=_seconds, default=5.0, help="duration of each workload (default 5)")
        add("--seed", type=int, default=0, help="seed of the random calls (default 0)")
        add(
            "--max-bytes",
            type=_at_least(64 * 1024),
            default=8 * 1024 * 1024,
            help="limit of the data stored at a time (default 8 MiB)",
        )
        add(
            "--may-evict",
            action="store_true",
            help="accept every miss, because the cache may evict",
        )
        add(
            "--private",
            action="store_true",
            help="use private stores: a temporary directory, a Redis",
        )
        add("--only", action="append", choices=NAMES, metavar="WORKLOAD", help=", ".join(NAMES))
        add("--json", type=Path, metavar="FILE", help="write all findings to this file, as JSON")
        add(
            "--svg",
            type=Path,
            metavar="DIR",
            help="write an SVG of each counterexample to this directory",
        )
        add(
            "--expect",
            type=Path,
            metavar="FILE",
            help="compare the verdicts with those of this file, for CI",
        )
        add("--lock-fd", type=int, help=SUPPRESS)

    def handle(self, *_args: Any, **options: Any) -> None:
        """Examine the aliases, print the findings, and exit with the status that follows."""
        chosen = options["aliases"] or all_aliases()
        if unknown := [alias for alias in chosen if alias not in settings.CACHES]:
            raise _cannot(f"no alias {', '.join(unknown)}; CACHES has {', '.join(settings.CACHES)}")
        if options["gunicorn"] and (options["private"] or options["fork"]):
            raise _cannot(
                "--gunicorn checks the workers of a server; it excludes --private and --fork"
            )
        expected = _expected(options["expect"])
        if options["lock_fd"] is None:
            self._check(chosen, options, expected, None)
            return
        with exclusive_run(run_record.NAME, options["lock_fd"]):
            recorder = CheckRecorder(chosen, _about(options))
            with _told(recorder):
                self._check(chosen, options, expected, recorder)

    def _check(
        self,
        chosen: list[str],
        options: dict[str, Any],
        expected: Expected | None,
        recorder: CheckRecorder | None,
    ) -> None:
        examinations: list[Examination] = []
        stopped: Stopped | StoreFailed | None = None
        try:
            with stopping(), _stores(chosen, options) as make:
                self._examine(chosen, make, examinations, recorder)
        except (Stopped, StoreFailed) as exc:
            stopped = exc
        except (NotReached, AnswerLost, ServerFailed, NotPrivate) as exc:
            raise _cannot(str(exc)) from exc
        reports = [one.report for one in examinations if one.findings]
        if recorder is not None:
            recorder.record(reports)
        if reports or not isinstance(stopped, StoreFailed):
            self._show(reports, options)
        if isinstance(stopped, StoreFailed):
            raise _cannot(str(stopped))
        if stopped:
            said = f"stopped by {stopped}; the findings above are incomplete"
            raise CommandError(said, returncode=128 + stopped.number)
        if recorder is not None:
            recorder.end(RunState.DONE)
        _judge(reports, expected)

    def _examine(
        self,
        chosen: list[str],
        make: Callable[[str], Examination],
        examinations: list[Examination],
        recorder: CheckRecorder | None,
    ) -> None:
        progress = _progress()
        for number, alias in enumerate(chosen):
            one = make(alias)
            examinations.append(one)
            told = itertools.count(number * len(one.chosen()))

            def began(name: str, told: Iterator[int] = told) -> None:
                progress(f"{alias}: {name}")  # noqa: B023 (called in this turn)
                if recorder is not None:
                    recorder.record([each.report for each in examinations if each.findings])
                    total = len(chosen) * len(one.chosen())  # noqa: B023 (the same)
                    recorder.update(alias=alias, doing=name, done=next(told), total=total)  # noqa: B023 (the same)

            one.run(began)
            progress("")
            said = f"{len(one.findings)} properties in {one.report.seconds:.0f} s"
            self.stderr.write(f"{alias}: {said}")

    def _show(self, reports: list[AliasReport], options: dict[str, Any]) -> None:
        print_report(reports, sys.stdout)
        if options["json"]:
            options["json"].write_text(as_json(reports, _about(options)))
        if options["svg"]:
            written = write_drawings(reports, options["svg"])
            self.stderr.write(f"{len(written)} drawings in {options['svg']}")


@contextlib.contextmanager
def _told(recorder: CheckRecorder) -> Iterator[None]:
    """Record the end of a check that did not complete."""
    try:
        yield
    except CommandError as exc:
        recorder.end(
            RunState.STOPPED if exc.returncode > COULD_NOT_RUN else RunState.FAILED, str(exc)
        )
        raise
    except BaseException as exc:
        recorder.end(RunState.FAILED, f"{type(exc).__name__}: {exc}")
        raise


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


def _cannot(why: str) -> CommandError:
    return CommandError(why, returncode=COULD_NOT_RUN)


def _expected(path: Path | None) -> Expected | None:
    if path is None:
        return None
    try:
        return read_expected(path)
    except (OSError, ValueError) as exc:
        raise _cannot(f"--expect {path}: {exc}") from exc


@contextlib.contextmanager
def _stores(chosen: list[str], options: dict[str, Any]) -> Iterator[Callable[[str], Examination]]:
    """Yield the factory of examinations: on the project's store, a private one, or over HTTP."""
    plan = _plan(options)
    if options["gunicorn"]:
        with private_deployment(options["processes"]) as server:
            yield lambda alias: HttpExamination(alias, _backend(alias), plan, server.url)
        return
    if not options["private"]:
        yield lambda alias: Examination(alias, _backend(alias), plan)
        return
    with private_stores(chosen) as stores:
        yield lambda alias: Examination(
            alias, _backend(alias), plan, stores.overrides, _server_of(alias, stores)
        )


def _server_of(alias: str, stores: Stores) -> Any:
    return stores.server if alias in stores.on_redis else None


def _plan(options: dict[str, Any]) -> CheckPlan:
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


def _backend(alias: str) -> str:
    return str(settings.CACHES[alias]["BACKEND"])


def _progress() -> Callable[[str], None]:
    """Return a function that replaces the line on stderr, if that is a terminal."""
    if not sys.stderr.isatty():
        return lambda _line: None

    def show(line: str) -> None:
        sys.stderr.write(f"\r\x1b[2K{line}")
        sys.stderr.flush()

    return show


def _about(options: dict[str, Any]) -> dict[str, Any]:
    """Return what is needed to repeat the check."""
    named = ("processes", "threads", "fork", "gunicorn", "seconds", "seed", "may_evict", "private")
    return {
        "date": datetime.fromtimestamp(clock.wall_s(), UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": _versions(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.system()}",
        "options": {name: options[name] for name in named},
    }


def _versions() -> dict[str, str]:
    found = {"django": django.get_version()}
    for package in ("django-redis", "redis", "diskcache", "lmdb", "pymemcache", "pylibmc"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _judge(reports: list[AliasReport], expected: Expected | None) -> None:
    """Raise `CommandError` with the exit status unless all properties hold."""
    if expected is not None:
        if wrong := differences(reports, expected):
            raise CommandError("\n".join(wrong), returncode=BROKEN)
        return
    found = [(report.alias, one) for report in reports for one in report.findings]
    broken = [
        f"{alias}: {one.property}" for alias, one in found if one.verdict is PropertyVerdict.BROKEN
    ]
    if broken:
        raise CommandError(f"{len(broken)} broken: {'; '.join(broken)}", returncode=BROKEN)
    unknown = [
        f"{alias}: {one.property}" for alias, one in found if one.verdict is PropertyVerdict.UNKNOWN
    ]
    if unknown or not found:
        raise _cannot(f"unknown: {'; '.join(unknown) or 'no workload ran'}")
