"""Results as text and as JSON."""

import json
from collections.abc import Sequence
from typing import TextIO

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cacheapp.lab.charts import name, number
from cacheapp.lab.registry import EXPERIMENTS
from cacheapp.lab.results import ClaimVerdict, FigureKind, Panel, Result

COLOURS = {
    ClaimVerdict.HOLDS: "bold green",
    ClaimVerdict.DOES_NOT_HOLD: "bold red",
    ClaimVerdict.UNKNOWN: "bold yellow",
}


def print_list(out: TextIO) -> None:
    """Print name and claim of each experiment."""
    table = Table("name", "claim", box=None)
    for one in EXPERIMENTS.values():
        table.add_row(Text(one.name), Text(one.claim))
    Console(file=out, highlight=False).print(table)


def print_result(result: Result, out: TextIO, *, code: bool = False) -> None:
    """Print the result of an experiment: the verdicts with their reasons, then the figures."""
    console = Console(file=out, highlight=False)
    console.print(Text(f"\n{result.title}", style="bold"), Text(f"({result.name})"))
    if code:
        console.print(Padding(Text(result.code.rstrip()), (1, 4)))
    for finding in result.findings:
        console.print(
            Text.assemble("“", finding.claim, "” ", (finding.verdict, COLOURS[finding.verdict]))
        )
        console.print(Padding(Text(finding.why), (0, 2)))
    for panel in result.panels:
        console.print(Padding(_table(panel), (1, 0, 0, 2)))
    for note in result.notes:
        console.print(Padding(Text(note, style="dim"), (0, 2)))


def _table(panel: Panel) -> Table:
    table = Table(title=panel.title, title_justify="left", title_style="", box=None, pad_edge=False)
    table.add_column(panel.x_title if panel.kind is FigureKind.LINES else "")
    table.add_column(f"median, {panel.unit}" if panel.unit else "median", justify="right")
    table.add_column("spread", justify="right")
    for one in panel.measures:
        spread = " to ".join(map(number, one.spread))
        once = len(one.samples) == 1
        table.add_row(Text(name(one)), number(one.median), "measured once" if once else spread)
    return table


def print_summary(results: Sequence[Result], out: TextIO) -> None:
    """Print a line for each claim."""
    console = Console(file=out, highlight=False)
    console.print()
    table = Table("experiment", "claim", "here")
    for result in results:
        for finding in result.findings:
            verdict = Text(finding.verdict, style=COLOURS[finding.verdict])
            table.add_row(Text(result.name), Text(finding.claim), verdict)
    console.print(table)
    where = results[0].about
    seconds = sum(result.seconds for result in results)
    console.print(
        Text(f"{seconds:.0f} s; {where.machine}; {where.python}; load before {where.load:g}")
    )


def as_json(results: Sequence[Result]) -> str:
    """Return all results."""
    return json.dumps([json.loads(result.to_json()) for result in results], indent=1)
