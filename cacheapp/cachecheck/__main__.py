"""`python -m cacheapp.cachecheck package.module:function`: check a cache of any library, without Django."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cacheapp.cachecheck.examine import Examination
from cacheapp.cachecheck.options import COULD_NOT_RUN, add_options, plan, progress, show, status
from cacheapp.cachecheck.report import Expected, read_expected
from cacheapp.cachecheck.run import StoreFailed
from cacheapp.processes.stopping import Stopped, stopping


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cacheapp.cachecheck",
        description=(
            "Run real processes against caches of any library, record what each saw, and give a "
            "verdict for each property. Exit status: 0 if all hold; 1 if one is broken, or differs "
            "from --expect; 2 if the check could not run, or one remains unknown."
        ),
    )
    parser.add_argument(
        "subjects",
        nargs="+",
        metavar="MODULE:NAME",
        help="a function that returns a cache, which each client process calls; or an object",
    )
    parser.add_argument(
        "--private",
        action="store_true",
        help="the store holds nothing else: check clear(), too",
    )
    add_options(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Examine the subjects, print the findings, and return the exit status."""
    parser = _parser()
    options = vars(parser.parse_args(arguments))
    sys.path.insert(0, str(Path.cwd()))
    try:
        expected = read_expected(options["expect"]) if options["expect"] else None
    except (OSError, ValueError) as exc:
        return _said(f"--expect {options['expect']}: {exc}")
    examinations = [
        Examination(name, "", plan(options), subject=subject)
        for name, subject in _named(options["subjects"])
    ]
    return _examine(examinations, options, expected)


def _named(subjects: Sequence[str]) -> list[tuple[str, str]]:
    """Return a short name for each subject: what comes after the colon, if that is unique."""
    short = [subject.rpartition(":")[2] for subject in subjects]
    return [
        (name if short.count(name) == 1 else subject, subject)
        for name, subject in zip(short, subjects, strict=True)
    ]


def _examine(
    examinations: Sequence[Examination], options: dict[str, object], expected: Expected | None
) -> int:
    stopped: Stopped | StoreFailed | None = None
    said = progress()
    try:
        with stopping():
            for one in examinations:
                one.run(lambda name, alias=one.alias: said(f"{alias}: {name}"))  # type: ignore[misc]
                said("")
    except (Stopped, StoreFailed) as exc:
        stopped = exc
    reports = [one.report for one in examinations if one.findings]
    if reports:
        _said(show(reports, options, expected))
    if isinstance(stopped, StoreFailed):
        return _said(str(stopped))
    if stopped:
        _said(f"stopped by {stopped}; the findings above are incomplete")
        return 128 + stopped.number
    code, why = status(reports, expected)
    _said(why)
    return code


def _said(text: str) -> int:
    if text:
        sys.stderr.write(f"{text}\n")
    return COULD_NOT_RUN


if __name__ == "__main__":
    sys.exit(main())
