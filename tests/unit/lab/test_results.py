import dataclasses
import json

import pytest

from cacheapp.lab.registry import EXPERIMENTS
from cacheapp.lab.results import (
    About,
    ClaimFinding,
    ClaimVerdict,
    FigureKind,
    Look,
    Measure,
    Panel,
    Result,
)

HOLDS = ClaimFinding("this", ClaimVerdict.HOLDS, "because", "5 s", (ClaimVerdict.DOES_NOT_HOLD,))
DOES_NOT = ClaimFinding("that", ClaimVerdict.DOES_NOT_HOLD, "because")
UNKNOWN = ClaimFinding("the other", ClaimVerdict.UNKNOWN, "because")

RESULT = Result(
    name="waiting",
    title="Waiting",
    claim="this and that",
    code="def f(): ...\n",
    scale="usual",
    findings=(HOLDS, DOES_NOT),
    panels=(
        Panel("bars", "s", (Measure("threads", (1.0, 3.0, 2.0), look=Look.BROKEN),), expected=1.0),
        Panel(
            "lines",
            "ms",
            tuple(
                Measure("", (number / 2,), group=group, at=number)
                for group in ("threads", "processes")
                for number in (1, 10)
            ),
            kind=FigureKind.LINES,
            x_title="threads",
            log_y=True,
        ),
    ),
    notes=("a note",),
    seconds=1.5,
    about=About("2026-01-01", "2 cores", "3.11", "Linux", 0.5, {"Django": "5.2"}, 2, 0.25),
)


def test_a_result_comes_back_from_json_as_it_was() -> None:
    assert Result.from_json(RESULT.to_json()) == RESULT


def test_json_has_verdict_and_medians_for_other_programs() -> None:
    raw = json.loads(RESULT.to_json())
    assert raw["verdict"] == "DOES NOT HOLD"
    assert raw["panels"][0]["measures"][0]["median"] == 2.0


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "x"}'])
def test_what_is_no_result_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (also that of json)
        Result.from_json(text)


@pytest.mark.parametrize(
    ("findings", "verdict"),
    [
        ((HOLDS,), ClaimVerdict.HOLDS),
        ((HOLDS, UNKNOWN), ClaimVerdict.UNKNOWN),
        ((UNKNOWN, DOES_NOT, HOLDS), ClaimVerdict.DOES_NOT_HOLD),
        ((), ClaimVerdict.UNKNOWN),
    ],
    ids=["all hold", "one unknown", "one does not hold", "none"],
)
def test_the_worst_finding_decides(
    findings: tuple[ClaimFinding, ...], verdict: ClaimVerdict
) -> None:
    assert dataclasses.replace(RESULT, findings=findings).verdict is verdict


def test_the_spread_of_a_few_samples_is_all_of_them() -> None:
    assert Measure("", (3.0, 1.0, 9.0)).spread == (1.0, 9.0)


def test_the_spread_of_many_samples_leaves_out_a_tenth_at_each_end() -> None:
    samples = (*map(float, range(100)), 10_000.0)
    assert Measure("", samples).spread == (10.0, 90.0)


def test_every_experiment_has_a_claim_and_the_code_that_is_timed() -> None:
    assert len(EXPERIMENTS) == 8
    for name, experiment in EXPERIMENTS.items():
        assert experiment.name == name
        assert experiment.claim.endswith(".")
        assert "def " in experiment.code
        assert len(set(experiment.claims)) == len(experiment.claims) > 1
        compile(experiment.code, name, "exec")  # it is code, whole
