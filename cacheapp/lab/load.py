"""The load rule: what a busy machine can cause decides nothing. Pure.

It is the same for every experiment. A finding names the verdicts that other programs on the machine
can cause: that times were longer than claimed, for instance. What it cannot cause stays: that a task
was quick, and every count, such as that of lost additions.
"""

import dataclasses

from cacheapp.lab.results import ClaimFinding, ClaimVerdict

BUSY = 0.25
"""A machine is busy if other programs use this share of its cores before or after a run."""
BUSY_FIGURE = "the machine was busy"
_AS_MEASURED = {ClaimVerdict.HOLDS: "held", ClaimVerdict.DOES_NOT_HOLD: "did not hold"}


def judge_under_load(finding: ClaimFinding, others: float, cores: int) -> ClaimFinding:
    """Return the finding, or `UNKNOWN` if `others`, the cores that others used, can have caused it."""
    measured = _AS_MEASURED.get(finding.verdict)
    if measured is None or not finding.load_causes or others < BUSY * cores:
        return finding
    used = f"other programs used {others:.1f} of {cores} cores"
    if finding.verdict not in finding.load_causes:
        return dataclasses.replace(finding, why=f"{finding.why}. It {measured} although {used}")
    return dataclasses.replace(
        finding,
        verdict=ClaimVerdict.UNKNOWN,
        figure=BUSY_FIGURE,
        why=f"{finding.why}. So measured it {measured}, but {used}, which can cause that",
    )
