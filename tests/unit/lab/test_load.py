"""The load rule: on a busy machine, a verdict that this can cause is unknown; the others stay."""

import pytest

from cacheapp.lab.load import BUSY_FIGURE, judge_under_load
from cacheapp.lab.results import ClaimFinding, ClaimVerdict

HOLDS, DOES_NOT, UNKNOWN = ClaimVerdict.HOLDS, ClaimVerdict.DOES_NOT_HOLD, ClaimVerdict.UNKNOWN


def judged(verdict: ClaimVerdict, others: float, *causes: ClaimVerdict) -> ClaimFinding:
    return judge_under_load(ClaimFinding("c", verdict, "5 s", "5 s", causes), others, cores=2)


def test_what_the_load_can_cause_is_unknown_and_says_what_was_measured() -> None:
    found = judged(DOES_NOT, 1.3, DOES_NOT)
    assert (found.verdict, found.figure) == (UNKNOWN, BUSY_FIGURE)
    assert found.why == (
        "5 s. So measured it did not hold, but other programs used 1.3 of 2 cores, which can cause that"
    )


def test_what_held_in_spite_of_the_load_is_said() -> None:
    found = judged(HOLDS, 1.3, DOES_NOT)
    assert (found.verdict, found.figure) == (HOLDS, "5 s")
    assert found.why == "5 s. It held although other programs used 1.3 of 2 cores"


@pytest.mark.parametrize(
    ("verdict", "others", "causes"),
    [(DOES_NOT, 0.4, [DOES_NOT]), (DOES_NOT, 2.0, []), (UNKNOWN, 2.0, [DOES_NOT])],
    ids=["a quiet machine", "a count", "unknown for another reason"],
)
def test_the_rest_stays_as_it_is(
    verdict: ClaimVerdict, others: float, causes: list[ClaimVerdict]
) -> None:
    assert judged(verdict, others, *causes) == ClaimFinding(
        "c", verdict, "5 s", "5 s", tuple(causes)
    )
