"""The table of docs/guarantees.md: a column for each cache, a row for each property."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- table of cachecheck: begin -->", "<!-- table of cachecheck: end -->"
_NONE = "\N{EN DASH}"
_MISSING, _FAILED = "not installed", "could not be checked"
_VERDICTS = {"HOLDS": "holds", "NOT APPLICABLE": _NONE}

Report = Mapping[str, Any]
"""What `--json` has of one cache. Without findings, the check could not run."""


def write(page: Path, text: str) -> None:
    """Put the text between the marks of a page."""
    before, _, rest = page.read_text().partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")


def markdown(found: Mapping[str, Report | None], how: str) -> str:
    """Return a sentence about the run, and the table. `None`: the cache is not installed."""
    checked = [each for each in found.values() if each]
    names = dict.fromkeys(one["property"] for own in checked for one in own["findings"])
    rows = [
        ["version", *(_version(each) for each in found.values())],
        ["calls per second", *(_rate(each) for each in found.values())],
        *([name, *(_cell(each, name) for each in found.values())] for name in names),
    ]
    return "\n".join(
        [
            how,
            "",
            f"| | {' | '.join(f'`{name}`' for name in found)} |",
            "|---|" + "---|" * len(found),
            *(f"| {' | '.join(row)} |" for row in rows),
        ]
    )


def missing(found: Mapping[str, Report | None]) -> Sequence[str]:
    """Return a line for each cache that has no verdicts."""
    lines = {
        name: _version(each) for name, each in found.items() if not (each and each["findings"])
    }
    return [f"{name}: {why.upper()}" for name, why in lines.items()]


def _version(report: Report | None) -> str:
    if report is None:
        return _MISSING
    versions = (f"{name} {number}" for name, number in report["versions"].items())
    return ", ".join(versions) if report["findings"] else _FAILED


def _rate(report: Report | None) -> str:
    return f"{report['calls_per_s']:,}" if report and report["calls_per_s"] else _NONE


def _cell(report: Report | None, name: str) -> str:
    for one in report["findings"] if report else ():
        if one["property"] == name:
            if one["verdict"] == "BROKEN":
                parts = re.sub(r"^(\d+ of \d+ keys), (?=[1-9])", "", one["figure"]).split(", ")
                found = ", ".join(part for part in parts if not re.match("0 ", part))
                return f"**broken**: {found}" if found else "**broken**"
            return _VERDICTS.get(one["verdict"], "unknown")
    return _NONE
