"""The findings of `manage.py demo`, as a table or as JSON."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cacheapp.consistency.sharing import SharingVerdict
from cacheapp.demo.probe import SharingFinding

_COLOURS = {
    SharingVerdict.SHARED: "bold green",
    SharingVerdict.BROKEN: "bold red",
    SharingVerdict.DOWN: "bold yellow",
}


def print_table(
    findings: Sequence[SharingFinding], pids: Sequence[int], url: str, out: TextIO
) -> None:
    """Print a table and, below it, the sentences that prove each verdict."""
    console = Console(file=out, highlight=False)
    console.print(Text(f"{len(pids)} workers at {url}: {' '.join(map(str, pids))}"))
    table = Table("alias", "verdict")
    table.add_column("one write,\nseen by", justify="right")
    table.add_column("200 increments,\neach worker reads", justify="right")
    table.add_column("winners of an\nadd by all", justify="right")
    for finding in findings:
        verdict = Text(finding.verdict, style=_COLOURS[finding.verdict])
        table.add_row(Text(finding.alias), verdict, *map(Text, _numbers(finding)))
    console.print(table)
    for finding in findings:
        verdict = Text(f"{finding.alias} {finding.verdict}", style=_COLOURS[finding.verdict])
        console.print(Text.assemble(verdict, ": ", "; ".join(finding.why), "."))


def _numbers(finding: SharingFinding) -> tuple[str, str, str]:
    if not (finding.sight and finding.count and finding.race):
        return "-", "-", "-"
    sight, count, race = finding.sight, finding.count, finding.race
    fewest, most = min(race.winners), max(race.winners)
    return (
        f"{len(sight.seen_by)} of {len(sight.seen)}",
        " ".join(str(value) for value in count.counted.values()),
        f"{fewest if fewest == most else f'{fewest}-{most}'} of {race.contenders}",
    )


def as_json(findings: Sequence[SharingFinding], pids: Sequence[int], url: str) -> str:
    """Return all findings with their observations."""
    report: dict[str, Any] = {
        "url": url,
        "workers": list(pids),
        "findings": [dataclasses.asdict(finding) for finding in findings],
    }
    return json.dumps(report, indent=2)
