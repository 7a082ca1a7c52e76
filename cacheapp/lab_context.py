"""What the pages of the lab show: the current run, the claims with their findings, and the charts."""

import datetime as dt
from collections import Counter
from collections.abc import Iterable
from typing import Any

from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from cacheapp import clock
from cacheapp.lab import charts, run_record
from cacheapp.lab.experiment import Experiment
from cacheapp.lab.registry import EXPERIMENTS
from cacheapp.lab.results import ClaimFinding, ClaimVerdict, Look, Panel, Result
from cacheapp.lab.run_record import LabStatus
from cacheapp.processes import exclusive_run
from cacheapp.processes.run_record import RunState

LOOKS = {
    ClaimVerdict.HOLDS: ("good", "✓"),
    ClaimVerdict.DOES_NOT_HOLD: ("bad", "✕"),
    ClaimVerdict.UNKNOWN: ("warn", "?"),
}
_TALLY = (
    (ClaimVerdict.HOLDS, "hold here"),
    (ClaimVerdict.DOES_NOT_HOLD, "do not hold here"),
    (ClaimVerdict.UNKNOWN, "unknown"),
)
_HOW = {
    RunState.STOPPED: "was cancelled",
    RunState.FAILED: "failed",
    RunState.LOST: "was killed without a report",
}
_MEANINGS = {
    Look.RIGHT: "✓ right",
    Look.BROKEN: "✕ wrong",
    Look.UNSAFE: "! wrong because of the code, whatever cache it is",
}


def running_context() -> dict[str, Any] | None:
    """Return the experiments or the check that run on this machine, or `None`."""
    holder = exclusive_run.holder()
    if holder is None:
        return None
    status = run_record.status()
    own = status if status and status.pid == holder.pid else None
    now = own.progress if own else None
    name = now.name if now else holder.name
    names = own.names if own else (name,)
    position = names.index(name) if name in names else 0
    done, total = (now.done, max(now.total, 1)) if now else (0, 1)
    return {
        "name": name,
        "names": names,
        "title": EXPERIMENTS[name].title if name in EXPERIMENTS else name,
        "step": now.step if now else "starting",
        "position": position + 1,
        "done": done,
        "total": total,
        "all_done": position * 100 + round(100 * min(done / total, 1)),
        "all": len(names) * 100,
        "for_s": clock.wall_s() - own.began_s if own else None,
        "pid": holder.pid,
        "can_stop": holder.stoppable,
    }


def ended_context() -> dict[str, Any] | None:
    """Return how the last run ended, unless it completed."""
    status = run_record.status()
    if status is None or status.state not in _HOW:
        return None
    return {"what": _run_name(status), "how": _HOW[status.state], "error": status.error}


def _run_name(status: LabStatus) -> str:
    if len(status.names) == len(EXPERIMENTS):
        return "of all experiments"
    return f"of {', '.join(status.names)}"


def row_context(
    one: Experiment, result: Result | None, running: dict[str, Any] | None
) -> dict[str, Any]:
    """Return an experiment for the table: its claims with the findings of its last result."""
    found = {finding.claim: finding for finding in result.findings} if result else {}
    names = running["names"] if running else ()
    state = ""
    if running and running["name"] == one.name:
        state = "running"
    elif running and one.name in names and names.index(one.name) >= running["position"]:
        state = "next"
    return {
        "name": one.name,
        "title": one.title,
        "url": reverse("cacheapp:lab_experiment", args=[one.name]),
        "when": dt.datetime.fromisoformat(result.about.date) if result else None,
        "state": state,
        "claims": [_claim(claim, found.get(claim)) for claim in one.claims],
    }


def _claim(claim: str, finding: ClaimFinding | None) -> dict[str, Any]:
    return {
        "text": _with_code(f"{claim[0].upper()}{claim[1:]}"),
        "finding": finding,
        "look": LOOKS[finding.verdict] if finding else ("", "·"),
    }


def _with_code(text: str) -> SafeString:
    """Return a text whose words in backticks are code."""
    parts = enumerate(text.split("`"))
    return format_html_join(
        "", "{}", ((format_html("<code>{}</code>", it) if at % 2 else it,) for at, it in parts)
    )


def tally_context(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how many claims have each verdict, and why those without one have none."""
    findings = [claim["finding"] for row in rows for claim in row["claims"]]
    counts = Counter(finding.verdict for finding in findings if finding)
    unknown = Counter(
        finding.figure or "the figures decide neither way"
        for finding in findings
        if finding and finding.verdict is ClaimVerdict.UNKNOWN
    )
    return {
        "tally": [
            {"look": LOOKS[verdict], "count": counts[verdict], "word": word}
            for verdict, word in _TALLY
            if counts[verdict]
        ],
        "unknown": unknown.most_common(),
        "not_run": findings.count(None),
        "claims": len(findings),
    }


def panel_context(panel: Panel) -> dict[str, Any]:
    """Return a chart for the page."""
    return {
        "title": panel.title,
        "subtitle": charts.subtitle(panel),
        # Made from escaped text by an XML library; it has no script and no style.
        "chart": mark_safe(charts.chart(panel)),  # noqa: S308
    }


def legend(panels: Iterable[Panel]) -> list[tuple[str, str]]:
    """Return the colours that occur, with their meaning."""
    looks = {one.look for panel in panels for one in panel.measures}
    return [(look.value, text) for look, text in _MEANINGS.items() if look in looks]
