"""`manage.py cachecheck`: check the consistency of caches across processes."""

import contextlib
import itertools
from argparse import SUPPRESS
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from cacheapp.cachecheck import run_record
from cacheapp.cachecheck.examine import Examination
from cacheapp.cachecheck.options import (
    COULD_NOT_RUN,
    about,
    add_options,
    plan,
    progress,
    show,
    status,
)
from cacheapp.cachecheck.over_http import HttpExamination
from cacheapp.cachecheck.private import NotPrivate, Stores, private_stores
from cacheapp.cachecheck.report import Expected, read_expected
from cacheapp.cachecheck.run import StoreFailed
from cacheapp.cachecheck.run_record import CheckRecorder
from cacheapp.cachecheck.verdicts import AliasReport
from cacheapp.demo.deployment import private_deployment
from cacheapp.demo.namespace import aliases as all_aliases
from cacheapp.processes.exclusive_run import exclusive_run
from cacheapp.processes.run_record import RunState
from cacheapp.processes.servers import ServerFailed
from cacheapp.processes.stopping import Stopped, stopping
from cacheapp.processes.workers import AnswerLost, NotReached


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
        add(
            "--gunicorn",
            action="store_true",
            help="check the workers of a private Gunicorn, over HTTP",
        )
        add(
            "--private",
            action="store_true",
            help="use private stores: a temporary directory, a Redis",
        )
        add_options(parser)
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
            recorder = CheckRecorder(chosen, about(options))
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
            self._show(reports, options, expected)
        if isinstance(stopped, StoreFailed):
            is_own = not (options["private"] or options["gunicorn"])
            advice = ". To check the backend on a private store, add --private" if is_own else ""
            raise _cannot(f"{stopped}{advice}")
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
        said_progress = progress()
        for number, alias in enumerate(chosen):
            one = make(alias)
            examinations.append(one)
            told = itertools.count(number * len(one.chosen()))

            def began(name: str, told: Iterator[int] = told) -> None:
                said_progress(f"{alias}: {name}")  # noqa: B023 (called in this turn)
                if recorder is not None:
                    recorder.record([each.report for each in examinations if each.findings])
                    total = len(chosen) * len(one.chosen())  # noqa: B023 (the same)
                    recorder.update(alias=alias, doing=name, done=next(told), total=total)  # noqa: B023 (the same)

            one.run(began)
            said_progress("")
            number_of = len(one.findings)
            said = f"{number_of} {'property' if number_of == 1 else 'properties'}"
            self.stderr.write(f"{alias}: {said} in {one.report.seconds:.0f} s")

    def _show(
        self, reports: list[AliasReport], options: dict[str, Any], expected: Expected | None
    ) -> None:
        if written := show(reports, options, expected):
            self.stderr.write(written)


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
    planned = plan(options)
    if options["gunicorn"]:
        with private_deployment(options["processes"]) as server:
            yield lambda alias: HttpExamination(alias, _backend(alias), planned, server.url)
        return
    if not options["private"]:
        yield lambda alias: Examination(alias, _backend(alias), planned)
        return
    with private_stores(chosen) as stores:
        yield lambda alias: Examination(
            alias, _backend(alias), planned, stores.overrides, _server_of(alias, stores)
        )


def _server_of(alias: str, stores: Stores) -> Any:
    return stores.servers.get(alias)


def _backend(alias: str) -> str:
    return str(settings.CACHES[alias]["BACKEND"])


def _judge(reports: list[AliasReport], expected: Expected | None) -> None:
    """Raise `CommandError` with the exit status unless all properties hold."""
    code, why = status(reports, expected)
    if code:
        raise CommandError(why, returncode=code)
