"""The findings of `manage.py cachecheck`, as a table with timelines, JSON or SVG."""

import json
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from django.utils.termcolors import colorize

from cacheapp.cachecheck.meanings import link, meaning
from cacheapp.cachecheck.table import Cell, drawn
from cacheapp.cachecheck.verdicts import AliasReport, PropertyFinding, PropertyVerdict
from cacheapp.consistency.drawing import svg
from cacheapp.consistency.history import Operation
from cacheapp.consistency.timeline import draw, moments

_COLOURS = {
    PropertyVerdict.HOLDS: "green",
    PropertyVerdict.BROKEN: "red",
    PropertyVerdict.UNKNOWN: "yellow",
}
Verdicts = Mapping[str, str | Sequence[str]]
"""By property: a verdict, or several of which any will do."""
Expected = Mapping[str, Verdicts]
"""By alias: the verdicts on its properties."""


def properties(reports: Sequence[AliasReport]) -> list[str]:
    """Return all properties, in the order of the findings."""
    return list(dict.fromkeys(one.property for report in reports for one in report.findings))


def print_report(reports: Sequence[AliasReport], out: TextIO) -> None:
    """Print the table and, below it, why a property was not tested, the reasons and counterexamples."""
    coloured = out.isatty() and "NO_COLOR" not in os.environ
    lines = [*_table(reports, coloured=coloured), *_not_tested(reports)]
    for report in reports:
        for finding in report.findings:
            if finding.why and finding.verdict is not PropertyVerdict.NOT_APPLICABLE:
                lines += ["", *_proof(report.alias, finding, coloured=coloured)]
    out.write("\n".join([*lines, ""]))


def _table(reports: Sequence[AliasReport], *, coloured: bool) -> list[str]:
    found = [{one.property: one for one in report.findings} for report in reports]
    rows: list[list[Cell]] = [
        [[(name, None)], *(_cell(each.get(name)) for each in found)] for name in properties(reports)
    ]
    if any(report.calls_per_s for report in reports):
        rates = [[(f"{one.calls_per_s:,}" if one.calls_per_s else "-", None)] for one in reports]
        rows.append([[("calls per second", None)], *rates])
    return drawn(["", *(report.alias for report in reports)], rows, coloured=coloured)


def _not_tested(reports: Sequence[AliasReport]) -> list[str]:
    """Return a line for each reason why properties of an alias are not applicable."""
    names: dict[tuple[str, str], list[str]] = {}
    for report in reports:
        for finding in report.findings:
            if finding.verdict is PropertyVerdict.NOT_APPLICABLE:
                names.setdefault((report.alias, finding.why), []).append(finding.property)
    return [
        f"{alias}: {', '.join(named)}: not applicable: {why}"
        for (alias, why), named in names.items()
    ]


def _cell(finding: PropertyFinding | None) -> Cell:
    if finding is None:
        return [("-", None)]
    return [(finding.verdict, _COLOURS.get(finding.verdict)), (finding.figure, None)]


def _proof(alias: str, finding: PropertyFinding, *, coloured: bool) -> list[str]:
    head = f"{alias}: {finding.property}: {finding.verdict}"
    if coloured:
        head = colorize(head, fg=_COLOURS.get(finding.verdict, "white"))
    why = f": {finding.why}" if finding.why else ""
    drawn = draw(_shown(finding), axis=True)
    lines = [textwrap.indent(line, "  ") for line in drawn.splitlines()]
    if finding.operations:
        lines += ["", *("  " + line for line in moments(_shown(finding)))]
    return [head + why, *_explained(finding), *lines]


def _explained(finding: PropertyFinding) -> list[str]:
    """Return what a broken property means for a site, and how it is usually mended."""
    known = meaning(finding.property)
    if known is None or finding.verdict is not PropertyVerdict.BROKEN:
        return []
    page = link(finding.property)
    more = f" More: {page}" if page else ""
    return [f"  On a site: {known.site}", f"  Usual fix: {known.fix}{more}"]


def proof_text(finding: PropertyFinding) -> str:
    """Return the counterexample as text: a timeline, and the times of its calls."""
    if not finding.operations:
        return ""
    return "\n".join([draw(_shown(finding), axis=True), "", *moments(_shown(finding))])


def _shown(finding: PropertyFinding) -> list[Operation]:
    """Return the counterexample, after the operations that wrote the values read in it."""
    return [*finding.origins, *finding.operations]


def as_json(reports: Sequence[AliasReport], about: Mapping[str, Any]) -> str:
    """Return all findings. `--expect` reads `verdicts`."""
    found = {
        **about,
        "verdicts": verdicts(reports),
        "aliases": [
            {
                "alias": report.alias,
                "backend": report.backend,
                "seconds": round(report.seconds, 1),
                "calls_per_s": report.calls_per_s,
                "versions": dict(report.versions),
                "findings": [
                    {**finding.as_json(), **_meaning_json(finding)} for finding in report.findings
                ],
            }
            for report in reports
        ],
    }
    return json.dumps(found, indent=2) + "\n"


def _meaning_json(finding: PropertyFinding) -> dict[str, str]:
    known = meaning(finding.property)
    if known is None:
        return {}
    page = link(finding.property)
    return {"means": known.site, "fix": known.fix, **({"link": page} if page else {})}


def verdicts(reports: Sequence[AliasReport]) -> dict[str, dict[str, str]]:
    """Return the verdicts by alias and property."""
    return {
        report.alias: {one.property: one.verdict.value for one in report.findings}
        for report in reports
    }


def read_expected(path: Path) -> Expected:
    """Return the verdicts of a `--json` file, or of a file with its `verdicts` alone.

    By hand, a verdict may be replaced by a list of some: a race does not occur in every run. Raise `ValueError` for anything else.
    """
    found = json.loads(path.read_text())
    found = found.get("verdicts", found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(isinstance(one, dict) for one in found.values()):
        raise ValueError('expected {"alias": {"property": "HOLDS", …}, …}')
    known = {verdict.value for verdict in PropertyVerdict}
    for alias, own in found.items():
        for name, wanted in own.items():
            for verdict in each(wanted):
                if verdict not in known:
                    complaint = f"{alias}: {name}: {verdict!r}; expected one of {sorted(known)}"
                    raise ValueError(complaint)
    return found


def each(wanted: str | Sequence[str]) -> Sequence[str]:
    """Return the verdicts of which any will do."""
    return wanted if isinstance(wanted, list) else [str(wanted)]


def difference(verdict: str, name: str, wanted: Verdicts) -> str:
    """Return a sentence if the verdict on a property is not one that was expected, else nothing."""
    any_of = each(wanted.get(name, "nothing"))
    return "" if verdict in any_of else f"{name} is {verdict}, expected {' or '.join(any_of)}"


def differences(reports: Sequence[AliasReport], expected: Expected) -> list[str]:
    """Return a sentence for each verdict that differs from the expected one or is missing."""
    wrong = []
    for alias, own in verdicts(reports).items():
        wanted = expected.get(alias)
        if wanted is None:
            wrong.append(f"{alias} is not in the expected verdicts")
            continue
        found = (
            difference(own.get(name, "missing"), name, wanted)
            for name in dict.fromkeys([*own, *wanted])
        )
        wrong += [f"{alias}: {one}" for one in found if one]
    return wrong


def drawings(reports: Sequence[AliasReport]) -> list[dict[str, str]]:
    """Return each counterexample as SVG and as text, with its alias and property."""
    return [
        {
            "alias": report.alias,
            "property": finding.property,
            "svg": svg(_shown(finding), _title(report, finding), finding.why),
            "text": proof_text(finding),
        }
        for report in reports
        for finding in report.findings
        if finding.operations
    ]


def write_drawings(reports: Sequence[AliasReport], directory: Path) -> list[Path]:
    """Write an SVG for each counterexample; return the files."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for one in drawings(reports):
        name = "".join(c if c.isalnum() else "-" for c in one["property"]).strip("-")
        path = directory / f"{one['alias']}-{name}.svg"
        path.write_text(one["svg"])
        written.append(path)
    return written


def _title(report: AliasReport, finding: PropertyFinding) -> str:
    return f"{report.alias}: {finding.property}: {finding.verdict}"
