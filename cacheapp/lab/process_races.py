"""Races between processes: none as long as nothing is shared, and the usual ones otherwise."""

from dataclasses import dataclass

from cacheapp.lab.bench import Bench, Scale, listing
from cacheapp.lab.experiment import Experiment
from cacheapp.lab.results import (
    ClaimFinding,
    ClaimVerdict,
    ExperimentOutcome,
    Look,
    Measure,
    Panel,
    look_of,
)
from cacheapp.lab.stores import BACKENDS, Stores
from cacheapp.lab.timed import process_races

CLAIM = "racing conditions will not happen in multiprocessing"
CLAIM_EXACT = "a lock, or the atomic incr of a cache that all processes share, loses none"
VARIABLE, FILE, LOCKED, GET_SET, INCR = process_races.CODES


@dataclass(frozen=True)
class ProcessRaceParameters:
    """Processes, additions of each, and repeats."""

    processes: int
    times: int
    repeats: int


PARAMETERS = {
    Scale.SMALL: ProcessRaceParameters(3, 300, 1),
    Scale.USUAL: ProcessRaceParameters(4, 1_000, 3),
    Scale.FULL: ProcessRaceParameters(8, 20_000, 5),
}


@dataclass(frozen=True)
class Loss:
    """The additions lost in each run of one code, with one alias if it uses a cache."""

    code: str
    alias: str
    added: int
    lost: tuple[int, ...]

    @property
    def label(self) -> str:
        """Its label."""
        return f"{self.alias}: {self.code.removeprefix('cache ')}" if self.alias else self.code

    @property
    def look(self) -> Look:
        """Its colour: that `get` + `set` loses additions is no fault of the cache."""
        found = look_of(self.lost, 0)
        return Look.UNSAFE if found is Look.BROKEN and self.code == GET_SET else found


def _shared(aliases: list[str]) -> list[str]:
    return [alias for alias in aliases if alias != "locmem"]


def conduct(bench: Bench) -> ExperimentOutcome:
    """Count in a variable, in files, and in each cache that processes share."""
    plan = PARAMETERS[bench.scale]
    with Stores() as stores:
        shared = _shared(stores.aliases)
        bench.expect(plan.repeats * (3 + 2 * len(shared)))
        losses = [_loss(bench, plan, code) for code in (VARIABLE, FILE, LOCKED)]
        losses += [
            _loss(bench, plan, code, alias, stores.location(alias))
            for code in (GET_SET, INCR)
            for alias in shared
        ]
    title = f"lost of {plan.processes} x {plan.times:,} additions"
    measures = tuple(
        Measure(
            one.alias or one.code,
            tuple(map(float, one.lost)),
            group=_GROUPS[one.code],
            look=one.look,
        )
        for one in losses
    )
    return ExperimentOutcome(
        judge(losses),
        (Panel(title, "additions lost", measures, expected=0.0),),
        (
            (
                "“A variable” is lost as a whole: each process counts in its own memory, which ends "
                "with it. That is neither a race nor sharing: the claim is right only for memory."
            ),
            *stores.notes,
        ),
    )


_GROUPS = {
    VARIABLE: "without a cache",
    FILE: "without a cache",
    LOCKED: "without a cache",
    GET_SET: "with get + set, which no cache makes safe",
    INCR: "with incr",
}


def _loss(
    bench: Bench, plan: ProcessRaceParameters, code: str, alias: str = "", location: str = ""
) -> Loss:
    lost = []
    for _ in range(plan.repeats):
        with bench.step(f"{alias} {code}".strip()):
            backend = BACKENDS[alias or "locmem"]
            given = (code, backend, location, plan.processes, plan.times)
            lost.append(int(bench.measure(process_races.lost, *given)["lost"]))
    return Loss(code, alias, plan.processes * plan.times, tuple(lost))


def judge(losses: list[Loss]) -> tuple[ClaimFinding, ClaimFinding]:
    """Return whether unprotected shared counters lost additions, and protected ones none."""
    unprotected = [one for one in losses if one.code in (FILE, GET_SET)]
    protected = [one for one in losses if one.code in (LOCKED, INCR)]
    raced = any(sum(one.lost) for one in unprotected)
    exact = not any(sum(one.lost) for one in protected)
    return (
        # One run without a loss does not prove that there is none.
        ClaimFinding(
            CLAIM,
            ClaimVerdict.DOES_NOT_HOLD if raced else ClaimVerdict.UNKNOWN,
            _describe(unprotected),
            figure=_most_lost(unprotected) if raced else "no loss in this run",
        ),
        ClaimFinding(
            CLAIM_EXACT,
            ClaimVerdict.HOLDS if exact else ClaimVerdict.DOES_NOT_HOLD,
            _describe(protected),
            figure=_most_lost(protected),
        ),
    )


def _most_lost(losses: list[Loss]) -> str:
    return f"{max(max(one.lost) for one in losses):,} of {losses[0].added:,} additions lost"


def _describe(losses: list[Loss]) -> str:
    lost = "; ".join(
        f"{one.label} lost {', '.join(f'{it:,}' for it in one.lost)}" for one in losses
    )
    return f"of {losses[0].added:,}: {lost}"


EXPERIMENT = Experiment(
    name="process-races",
    title="Races between processes",
    claims=(CLAIM, CLAIM_EXACT),
    code=listing(*process_races.CODES.values()),
    conduct=conduct,
)
