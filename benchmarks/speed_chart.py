"""The chart of README: what a `get` costs with each cache, from the kept results."""

import json
import subprocess
import sys
from typing import Any

from benchmarks.measuring.report import ROOT

FIGURES = ROOT / "benchmarks" / "results" / "lmdb_cache.json"
PICTURE = ROOT / "docs" / "pictures" / "speed.svg"
SHOWN = ("locmem", "our-lmdb", "our-disk", "our-redis", "filebased", "database", "django-redis")
MEASURES = ("get, small dict", "get, 4 KiB")


def bars(measure: str) -> list[tuple[str, float]]:
    """Return the bars of one measure: alias and median in microseconds."""
    found = json.loads(FIGURES.read_text())["summaries"][measure]
    return [(alias, found[alias]["median"]) for alias in SHOWN if alias in found]


def draw() -> str:
    """Return the chart as SVG."""
    return render(_result())


def render(raw: dict[str, Any]) -> str:
    """Draw a result of the lab in a separate process, because the drawing library is large."""
    code = (
        "import sys\n"
        "from cacheapp.lab.charts import alone, svg\n"
        "from cacheapp.lab.results import Result\n"
        "sys.stdout.write(alone(svg(Result.from_json(sys.stdin.read()))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        input=json.dumps(raw),
        text=True,
        capture_output=True,
        check=True,
    )
    return done.stdout


def _result() -> dict[str, Any]:
    """Return the medians as a result that the lab can draw."""
    found = json.loads(FIGURES.read_text())
    panels = [
        {
            "title": f"{measure}: median",
            "unit": "µs",
            "kind": "bars",
            "x_title": "",
            "log_y": False,
            "expected": None,
            "measures": [
                {"label": alias, "group": "", "at": None, "samples": [median]}
                for alias, median in bars(measure)
            ],
        }
        for measure in MEASURES
    ]
    about = {"date": found["date"], "machine": found["machine"], "python": found["python"]}
    return {
        "name": "speed",
        "title": "speed",
        "claim": "",
        "code": "",
        "scale": "usual",
        "seconds": 0,
        "findings": [],
        "notes": [],
        "panels": panels,
        "about": {**about, "kernel": "", "load": found["load_before"], "versions": {}},
    }
