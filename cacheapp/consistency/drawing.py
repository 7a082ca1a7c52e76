"""Draw a counterexample as SVG, with the same layout as the text timeline."""

from collections.abc import Sequence
from xml.sax.saxutils import escape

from cacheapp.consistency.history import Operation
from cacheapp.consistency.timeline import Bar, place

_COLUMN = 8.4  # px: as wide as a character of the font below
_LANE = 44
_TOP = 56

_STYLE = """
  text { font: 14px ui-monospace, Menlo, Consolas, monospace; fill: #1b1f24 }
  .title { font: 600 15px system-ui, sans-serif }
  .note { font: 13px system-ui, sans-serif; fill: #57606a }
  .lane { stroke: #d0d7de } .bar { fill: #ddf4ff; stroke: #0969da }
  .write { fill: #fff8c5; stroke: #9a6700 } .open { stroke-dasharray: 5 4 }
  .page { fill: #ffffff }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .note { fill: #8d96a0 } .page { fill: #0d1117 }
    .lane { stroke: #30363d } .bar { fill: #0c2d6b } .write { fill: #4b2900 }
  }
"""


def svg(operations: Sequence[Operation], title: str, note: str = "") -> str:
    """Return an SVG document with a lane for each process; time is in order, not to scale."""
    lanes = place(operations) if operations else {}
    margin = 16 + _COLUMN * (max(map(len, lanes), default=0) + 2)
    right = max((bar.right for bars in lanes.values() for bar in bars), default=0)
    width = max(margin + _COLUMN * (right + 2), 9 * max(len(title), len(note)) + 32)
    height = _TOP + _LANE * len(lanes) + 40
    body = [
        _rows(process, bars, _TOP + _LANE * number, margin, width)
        for number, (process, bars) in enumerate(lanes.items())
    ]
    size = f"{width:.0f} {height}"
    return "\n".join(
        [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" '
                f'viewBox="0 0 {size}" role="img">'
            ),
            f"<title>{escape(title)}</title>",
            f"<style>{_STYLE}</style>",
            f'<rect class="page" width="{width:.0f}" height="{height}"/>',
            f'<text class="title" x="16" y="28">{escape(title)}</text>',
            *body,
            f'<text class="note" x="16" y="{height - 16}">{escape(note)}</text>',
            "</svg>\n",
        ]
    )


def _rows(process: str, bars: Sequence[Bar], top: float, margin: float, width: float) -> str:
    middle = top + _LANE / 2
    parts = [
        f'<line class="lane" x1="{margin:.1f}" x2="{width - 16:.1f}" y1="{middle}" y2="{middle}"/>',
        f'<text x="16" y="{middle + 5}">{escape(process)}</text>',
    ]
    for bar in bars:
        left, right = margin + _COLUMN * bar.left, margin + _COLUMN * (bar.right + 1)
        kind = "bar write" if bar.operation.may_write else "bar"
        kind += " open" if bar.open else ""
        parts.append(
            f'<rect class="{kind}" x="{left:.1f}" y="{top + 7}" width="{right - left:.1f}" '
            f'height="{_LANE - 14}" rx="5"/>'
            f'<text text-anchor="middle" x="{(left + right) / 2:.1f}" y="{middle + 5}">'
            f"{escape(bar.operation.label)}</text>"
        )
    return "\n".join(parts)
