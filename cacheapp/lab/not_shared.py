"""Memory is not shared: four workers with a cache each hold four values of one key."""

from dataclasses import dataclass

from cacheapp.consistency.sharing import is_shared
from cacheapp.lab.bench import Bench, Scale, listing
from cacheapp.lab.experiment import Experiment
from cacheapp.lab.gunicorn import WORKERS, Site, site
from cacheapp.lab.results import (
    ClaimFinding,
    ClaimVerdict,
    ExperimentOutcome,
    Measure,
    Panel,
    look_of,
)
from cacheapp.lab.site import shop
from cacheapp.lab.stores import Stores

CLAIM = (
    "the cache object could not be shared across processes, because Gunicorn ran "
    f"{WORKERS} Django processes"
)
CLAIM_SHARED = "a cache outside of the processes is one for all of them"
ROUNDS = {Scale.SMALL: 1, Scale.USUAL: 5, Scale.FULL: 50}


@dataclass(frozen=True)
class AliasReads:
    """Of each round: how many workers read what one wrote; how many values remain after each wrote."""

    alias: str
    seen_by: tuple[int, ...]
    truths: tuple[int, ...]


def conduct(bench: Bench) -> ExperimentOutcome:
    """Start the site on each alias, write from one worker and from each, and read from all."""
    with Stores() as stores:
        bench.expect(len(stores.aliases))
        reads = []
        for alias in stores.aliases:
            with bench.step(alias), site(stores, alias) as served:
                reads.append(_look(bench, served, alias))
        notes = stores.notes
    return ExperimentOutcome(
        judge(reads),
        (
            _panel(
                f"of {WORKERS} workers, see what one wrote",
                "workers",
                WORKERS,
                {one.alias: one.seen_by for one in reads},
            ),
            _panel(
                "different values of one key, after each worker wrote it",
                "values",
                1,
                {one.alias: one.truths for one in reads},
            ),
        ),
        (
            (
                f"A private Gunicorn with {WORKERS} workers for each alias; every worker is called by its pid. "
                "The master loads the site once and forks them (--preload)."
            ),
            *notes,
        ),
    )


def _panel(title: str, unit: str, right: int, counted: dict[str, tuple[int, ...]]) -> Panel:
    measures = (
        Measure(alias, tuple(map(float, counts)), look=look_of(counts, right))
        for alias, counts in counted.items()
    )
    return Panel(title, unit, tuple(measures), expected=float(right))


def _look(bench: Bench, served: Site, alias: str) -> AliasReads:
    seen_by, truths = [], []
    for number in range(ROUNDS[bench.scale]):
        bench.look()
        served.by_one("write", f"greeting-{number}", "hello")
        seen_by.append(served.by_each("read", f"greeting-{number}").count("hello"))
        for pid in served.workers.pids:
            served.by("write", pid, f"writer-{number}", str(pid))
        truths.append(len(set(served.by_each("read", f"writer-{number}"))))
    return AliasReads(alias, tuple(seen_by), tuple(truths))


def judge(reads: list[AliasReads]) -> tuple[ClaimFinding, ClaimFinding]:
    """Return whether the workers' own caches differed, and the shared ones did not."""
    own = [one for one in reads if one.alias == "locmem"]
    shared = [one for one in reads if one.alias != "locmem"]
    apart = not any(
        is_shared(seen_by, WORKERS) or is_shared(WORKERS, WORKERS, values)
        for one in own
        for seen_by, values in zip(one.seen_by, one.truths, strict=True)
    )
    one_truth = all(
        is_shared(seen_by, WORKERS, values)
        for one in shared
        for seen_by, values in zip(one.seen_by, one.truths, strict=True)
    )
    verdicts = {True: ClaimVerdict.HOLDS, False: ClaimVerdict.DOES_NOT_HOLD}
    return (
        ClaimFinding(
            CLAIM, verdicts[apart], "; ".join(map(_describe, own)), figure=_seen("locmem", own)
        ),
        ClaimFinding(
            CLAIM_SHARED,
            verdicts[one_truth],
            "; ".join(map(_describe, shared)),
            figure=_seen(", ".join(one.alias for one in shared), shared),
        ),
    )


def _describe(one: AliasReads) -> str:
    return (
        f"{one.alias}: what one worker wrote was seen by {_range(one.seen_by)} of {WORKERS}; after "
        f"each wrote, different values: {_range(one.truths)}"
    )


def _seen(aliases: str, reads: list[AliasReads]) -> str:
    by = _range(tuple(seen_by for one in reads for seen_by in one.seen_by))
    return f"{aliases}: a write is seen by {by} of {WORKERS} workers"


def _range(numbers: tuple[int, ...]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


EXPERIMENT = Experiment(
    name="not-shared",
    title="Memory is not shared",
    claims=(CLAIM, CLAIM_SHARED),
    code=listing(shop.write, shop.read),
    conduct=conduct,
)
