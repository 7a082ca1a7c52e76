"""Draw a result: Vega-Lite describes it, vl-convert makes the SVG, on the server.

The SVG has no script and no style sheet. Its text is in `currentColor`, and `alone` gives it colours,
light or dark like the reader's screen, for a file or an image in a page. It is 360 pixels wide, to fit
on a phone.
"""

import math
import subprocess
import sys
import textwrap
from typing import Any

from cacheapp.extras import missing
from cacheapp.lab.results import FigureKind, Measure, Panel, Result
from cacheapp.processes.servers import child_env

WIDTH = 330  # without the margins that Vega adds
_AXIS = 50  # the width of the numbers at a vertical axis
_COLOURS = ("#3a86c8", "#d1722a", "#2c9a6c", "#b3569f", "#8a8f98", "#c2a021")  # on white and black
_INK = "currentColor"
_GREY = "#8a8f98"
_WIDE = 100  # a range of this factor needs only powers of ten
_K = 10_000  # from here on, an axis shows 10k
_STYLE = (
    "<style>svg{color:#1b1f24;background:#fff}"
    "@media(prefers-color-scheme:dark){svg{color:#e8eaed;background:#16181c}}</style>"
)


class ChartsMissing(Exception):
    """The drawing library is not installed; the message has the command to install it."""


def svg(result: Result) -> str:
    """Draw the panels of a result below each other.

    Loads a JavaScript engine (80 MB, one second): in a server process, use `drawn_apart`.
    """
    try:
        import vl_convert  # noqa: PLC0415 (needed only to draw)
    except ImportError as exc:
        raise ChartsMissing(f"a chart {missing('vl-convert-python', 'lab')}") from exc
    return str(vl_convert.vegalite_to_svg(spec(result)))


def alone(drawing: str) -> str:
    """Give a drawing colours of its own, light or dark like the reader's screen."""
    head, _, rest = drawing.partition(">")
    return f"{head}>{_STYLE}{rest}\n"


def drawn_apart(result: Result) -> str:
    """Draw in a process of its own; raise `ChartsMissing` with its message if it fails."""
    done = subprocess.run(  # noqa: S603 (the command is ours)
        [sys.executable, "-m", __name__],
        input=result.to_json(),
        env=child_env(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        raise ChartsMissing(done.stderr.strip().rpartition("\n")[2])
    return done.stdout


def spec(result: Result) -> dict[str, Any]:
    """Return the Vega-Lite specification. Pure."""
    lines = any(panel.kind is FigureKind.LINES for panel in result.panels)
    width = WIDTH - _AXIS if lines else WIDTH
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "background": None,
        "padding": 6,
        "spacing": 22,
        "vconcat": [_panel(panel, width) for panel in result.panels],
        "resolve": {"scale": {"color": "independent"}},
        "config": _CONFIG,
    }


_CONFIG: dict[str, Any] = {
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "text": {"color": _INK, "fontSize": 12},
    "title": {
        "color": _INK,
        "subtitleColor": _INK,
        "fontSize": 13,
        "subtitleFontSize": 11,
        "anchor": "start",
        "frame": "bounds",
        "offset": 8,
    },
    "axis": {
        "labelColor": _INK,
        "titleColor": _INK,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "gridColor": _GREY,
        "gridOpacity": 0.25,
        "domainColor": _GREY,
        "tickColor": _GREY,
    },
    "legend": {
        "labelColor": _INK,
        "labelFontSize": 12,
        "title": None,
        "orient": "top",
        "direction": "horizontal",
        "columns": 3,
        "symbolType": "circle",
        "symbolOpacity": 1,
        "labelLimit": 150,
    },
    "range": {"category": list(_COLOURS)},
}


def _panel(panel: Panel, width: int) -> dict[str, Any]:
    drawing = _bars(panel) if panel.kind is FigureKind.BARS else _lines(panel)
    return {
        "title": {"text": textwrap.wrap(panel.title, 42), **_subtitle(panel)},
        "width": width,
        **drawing,
    }


def _subtitle(panel: Panel) -> dict[str, Any]:
    if panel.expected is None:
        return {}
    return {"subtitle": f"dashed: {panel.expected:g}, as a correct program gives"}


def _bars(panel: Panel) -> dict[str, Any]:
    """Draw a bar from zero for each measure, with its name above and its median behind."""
    rows = [
        {
            "label": _name(one),
            "group": one.group,
            "median": one.median,
            "low": one.spread[0],
            "high": one.spread[1],
            "text": median_text(one, panel.unit),
        }
        for one in panel.measures
    ]
    most = max([one.spread[1] for one in panel.measures] + [panel.expected or 0.0])
    x = {"type": "quantitative", "scale": {"domain": [0, most * 1.3 or 1]}}
    title = {"axis": {"title": panel.unit, "tickCount": 5, "format": _digits(most)}}
    y = {"field": "label", "type": "nominal", "sort": None, "axis": None}
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "bar", "height": 10, "yOffset": 7},
            "encoding": {"y": y, "x": {"field": "median", **x, **title}, "color": _colour(panel)},
        },
        {
            "mark": {"type": "rule", "yOffset": 7, "color": _INK, "strokeWidth": 1.5},
            "encoding": {"y": y, "x": {"field": "low", **x}, "x2": {"field": "high"}},
        },
        {
            "mark": {"type": "text", "align": "left", "dy": -7, "dx": 1},
            "encoding": {"y": y, "x": {"datum": 0}, "text": {"field": "label"}},
        },
        {
            "mark": {"type": "text", "align": "left", "dy": 7, "dx": 5, "fontWeight": "bold"},
            "encoding": {"y": y, "x": {"field": "high", **x}, "text": {"field": "text"}},
        },
    ]
    if panel.expected is not None:
        line = {"type": "rule", "strokeDash": [4, 3], "color": _INK, "opacity": 0.6}
        across = {"x": {"datum": panel.expected, "type": "quantitative"}}
        layers.insert(0, {"data": {"values": [{}]}, "mark": line, "encoding": across})
    return {
        "height": {"step": 36},
        "data": {"values": rows},
        "layer": layers,
    }


def _name(measure: Measure) -> str:
    return f"{measure.group}: {measure.label}" if measure.group else measure.label


def _colour(panel: Panel) -> dict[str, Any]:
    """Colour by group, if there are several; the names are above the bars."""
    if len({one.group for one in panel.measures}) == 1:
        return {"value": _COLOURS[0]}
    return {"field": "group", "type": "nominal", "sort": None, "legend": None}


def _lines(panel: Panel) -> dict[str, Any]:
    """Draw a line for each group on a logarithmic axis, with the spread of each point."""
    points = [
        {
            "group": one.group,
            "at": one.at,
            "median": one.median,
            "low": one.spread[0],
            "high": one.spread[1],
        }
        for one in panel.measures
    ]
    ticks = sorted({one.at for one in panel.measures if one.at is not None})
    x = {
        "field": "at",
        "type": "quantitative",
        "scale": {"type": "log"},
        "axis": {"title": panel.x_title, "values": ticks, "format": "~s", "grid": False},
    }
    most = max(one.spread[1] for one in panel.measures)
    y_axis = {"title": panel.unit, "format": _digits(most), "tickCount": 5}
    y: dict[str, Any] = {"type": "quantitative", "axis": y_axis}
    if panel.log_y:
        y["scale"] = {"type": "log"}
        y_axis["values"] = _round_numbers(panel)
    colour = {"field": "group", "type": "nominal", "sort": None}
    shape = {"field": "group", "type": "nominal", "sort": None, "legend": None}
    return {
        "height": 130,
        "data": {"values": points},
        "encoding": {"x": x, "color": colour},
        "layer": [
            {
                "mark": {"type": "rule", "strokeWidth": 1.5},
                "encoding": {"y": {"field": "low", **y}, "y2": {"field": "high"}},
            },
            {"mark": {"type": "line"}, "encoding": {"y": {"field": "median", **y}}},
            {
                "mark": {"type": "point", "filled": True, "size": 45, "opacity": 1},
                "encoding": {"y": {"field": "median", **y}, "shape": shape},
            },
        ],
    }


def _digits(most: float) -> str:
    """Return the number format of an axis up to `most`."""
    return "~s" if most >= _K else ",~f"


def _round_numbers(panel: Panel) -> list[float]:
    """Return the labels of a logarithmic axis: a few round numbers."""
    low = min(one.spread[0] for one in panel.measures)
    high = max(one.spread[1] for one in panel.measures)
    steps = (1, 2, 5) if high < _WIDE * low else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [step * 10.0**power for power in powers for step in steps]


def median_text(measure: Measure, unit: str) -> str:
    """Return the median with its unit, in three significant digits."""
    return f"{number(measure.median)} {unit}" if len(unit) <= 3 else number(measure.median)  # noqa: PLR2004 (s, ms, MiB)


def number(value: float) -> str:
    """Return a number in three significant digits; whole numbers in full."""
    if value == int(value) and abs(value) < 1e6:  # noqa: PLR2004
        return f"{int(value):,}"
    if abs(value) >= 100:  # noqa: PLR2004 (no digits behind the point)
        return f"{value:,.0f}"
    return f"{value:#.3g}"


if __name__ == "__main__":
    found = Result.from_json(sys.stdin.read())
    try:
        sys.stdout.write(svg(found))
    except ChartsMissing as exc:
        sys.exit(str(exc))
