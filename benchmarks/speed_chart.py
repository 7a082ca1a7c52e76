"""The chart of README: what a `get` costs with each cache, from the kept results."""

import json

from benchmarks.measuring.report import ROOT
from cacheapp.lab.charts import alone
from cacheapp.lab.results import About, Look, Measure, Panel, Result

FIGURES = ROOT / "benchmarks" / "results" / "lmdb_cache.json"
PICTURE = ROOT / "docs" / "pictures" / "speed.svg"
SHOWN = ("locmem", "our-lmdb", "our-disk", "our-redis", "filebased", "database", "django-redis")
MEASURES = ("get, small dict", "get, 4 KiB")


def bars(measure: str) -> list[tuple[str, float]]:
    """Return the bars of one measure: alias and median in microseconds."""
    found = json.loads(FIGURES.read_text())["summaries"][measure]
    return [(alias, found[alias]["median"]) for alias in SHOWN if alias in found]


def draw() -> str:
    """Return the chart as SVG: our caches stand out, and no bar looks broken."""
    return alone(_result())


def _result() -> Result:
    """Return the medians as a result that the lab can draw."""
    found = json.loads(FIGURES.read_text())
    return Result(
        name="speed",
        title="speed",
        claim="",
        code="",
        scale="usual",
        findings=(),
        panels=tuple(_panel(measure) for measure in MEASURES),
        notes=(),
        seconds=0,
        about=About(
            found["date"], found["machine"], found["python"], kernel="", load=found["load_before"]
        ),
    )


def _panel(measure: str) -> Panel:
    return Panel(
        f"{measure}: median",
        "µs",
        tuple(
            Measure(alias, (median,), look=Look.PLAIN if alias.startswith("our-") else Look.OTHER)
            for alias, median in bars(measure)
        ),
    )
