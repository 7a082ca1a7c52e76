"""`manage.py lab`: run the claims of the article as experiments, with figures and verdicts."""

import contextlib
import sys
from argparse import SUPPRESS
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cacheapp.lab.bench import ExperimentProgress, Scale
from cacheapp.lab.charts import alone
from cacheapp.lab.claims import claims_page
from cacheapp.lab.registry import EXPERIMENTS
from cacheapp.lab.report import as_json, print_list, print_result, print_summary
from cacheapp.lab.results import ClaimVerdict, Result
from cacheapp.lab.run import conduct
from cacheapp.lab.run_record import ExperimentRecorder
from cacheapp.processes.exclusive_run import Busy, exclusive_run
from cacheapp.processes.run_record import RunState
from cacheapp.processes.stopping import Stopped, stopping

UNDECIDED = 2


class Command(BaseCommand):
    """Run experiments one after the other; print and record the results."""

    help = (
        "Measure what an article claims about threads, processes and caches. "
        "Prints, for each experiment, the claim, the figures and whether it holds here. Exit "
        "status: 0 if every claim was decided, whatever the verdicts; 2 if one is UNKNOWN."
    )
    requires_system_checks = ()  # it opens only stores of its own

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        add = parser.add_argument
        add("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(EXPERIMENTS)}")
        add("--list", action="store_true", help="list the experiments and exit")
        add("--code", action="store_true", help="also print the code that is timed")
        size = parser.add_mutually_exclusive_group()
        size.add_argument("--full", action="store_true", help="as long as in the article: an hour")
        size.add_argument(
            "--small",
            action="store_true",
            help="test that everything runs; the figures mean little",
        )
        add("--json", type=Path, metavar="FILE", help="write all results to this file")
        add("--svg", type=Path, metavar="DIR", help="write an SVG of each result to this directory")
        add(
            "--claims",
            type=Path,
            metavar="FILE",
            help="write a Markdown page with a table of all claims; drawings and samples go to lab/",
        )
        add("--lock-fd", type=int, help=SUPPRESS)  # from a page that acquired it

    def handle(self, *_args: Any, **options: Any) -> None:
        """Run the experiments; exit with 0 if every claim was decided."""
        if options["list"]:
            print_list(sys.stdout)
            return
        names = _chosen(options["names"])
        results: list[Result] = []
        try:
            with stopping(), exclusive_run(names[0], options["lock_fd"], stoppable=True) as named:
                self._conduct(names, _scale(options), named, results, options)
        except Busy as exc:
            raise CommandError(str(exc), returncode=UNDECIDED) from exc
        except Stopped as exc:
            said = f"stopped by {exc}; {len(results)} of {len(names)} experiments had completed"
            raise CommandError(said, returncode=128 + exc.number) from None
        print_summary(results, sys.stdout)
        self._write(results, options)
        unknown = [one.name for one in results if ClaimVerdict.UNKNOWN in one.verdicts]
        if unknown:
            raise CommandError(
                f"UNKNOWN in {', '.join(unknown)}; the reasons are above", returncode=UNDECIDED
            )

    def _conduct(
        self,
        names: list[str],
        scale: Scale,
        named: Callable[[str], object],
        results: list[Result],
        options: dict[str, Any],
    ) -> None:
        recorder = ExperimentRecorder(names, scale)
        try:
            for name in names:
                named(name)
                with self._shown(name) as show:

                    def progress(now: ExperimentProgress, show: Any = show) -> None:
                        recorder.progress(now)
                        show(now)

                    result = conduct(EXPERIMENTS[name], scale, progress)
                results.append(result)
                recorder.record(result)
                print_result(result, sys.stdout, code=options["code"])
                sys.stdout.flush()  # a pipe is buffered, and the next experiment may take minutes
        except BaseException as exc:
            recorder.end(
                RunState.STOPPED if isinstance(exc, Stopped) else RunState.FAILED, str(exc)
            )
            raise
        recorder.end(RunState.DONE)

    @contextlib.contextmanager
    def _shown(self, name: str) -> Iterator[Callable[[ExperimentProgress], None]]:
        """Show progress on stderr, if that is a terminal; results go to stdout."""
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        doing = TextColumn("{task.fields[doing]}")
        with Progress(
            *columns, doing, console=console, disable=not console.is_terminal, transient=True
        ) as display:
            row: TaskID = display.add_task(name, total=None, doing="starting")
            yield lambda now: display.update(
                row, total=now.total, completed=now.done, doing=now.step
            )

    def _write(self, results: list[Result], options: dict[str, Any]) -> None:
        if options["json"]:
            options["json"].write_text(as_json(results))
        if options["svg"]:
            self._draw_into(options["svg"], results)
        if options["claims"]:
            page: Path = options["claims"]
            self._draw_into(page.parent / "lab", results)
            (page.parent / "lab" / "results.json").write_text(as_json(results) + "\n")
            page.write_text(claims_page(results, _command(options)))

    def _draw_into(self, directory: Path, results: list[Result]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        for result in results:
            if result.panels:
                (directory / f"{result.name}.svg").write_text(alone(result))


def _chosen(names: list[str]) -> list[str]:
    unknown = [name for name in names if name not in EXPERIMENTS]
    if unknown:
        raise CommandError(
            f"no experiment {', '.join(unknown)}; expected some of {', '.join(EXPERIMENTS)}",
            returncode=UNDECIDED,
        )
    return list(dict.fromkeys(names)) or list(EXPERIMENTS)


def _scale(options: dict[str, Any]) -> Scale:
    if options["full"]:
        return Scale.FULL
    return Scale.SMALL if options["small"] else Scale.USUAL


def _command(options: dict[str, Any]) -> str:
    words = [*options["names"], *(f"--{it}" for it in ("full", "small") if options[it])]
    return " ".join(["python manage.py lab", *words, "--claims docs/claims.md"])
