"""What breaks: common uses of a cache in Django projects, on four workers, with each alias."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from cacheapp.lab.bench import Bench, Scale, listing
from cacheapp.lab.experiment import Experiment
from cacheapp.lab.gunicorn import PER_WORKER, WORKERS, Site, site
from cacheapp.lab.results import (
    ClaimFinding,
    ClaimVerdict,
    ExperimentOutcome,
    Look,
    Measure,
    Panel,
    look_of,
)
from cacheapp.lab.site import shop
from cacheapp.lab.stores import Stores

LINES = WORKERS * PER_WORKER
HITS = 12
"""Per connection."""
ROUNDS = {Scale.SMALL: 1, Scale.USUAL: 3, Scale.FULL: 20}
CLAIM_SHARED = (
    "with a cache that all workers share, and its atomic operations, each of them is right"
)
CLAIM_GET_SET = "written with get + set, some are wrong on a shared cache too"


def _attempts(served: Site, name: str, key: str) -> float:
    """Try passwords on all connections, more often than the limit allows."""
    return float(sum(served.by_all(name, key, times=3)))


def _once(served: Site, name: str, key: str) -> float:
    """Call once on each connection, all at the same time."""
    return float(sum(served.by_all(name, key)))


def _count(served: Site, name: str, key: str) -> float:
    """Visit a page; return the hits that a worker counts, the median of all workers."""
    served.by_all(name, key, times=HITS)
    return float(statistics.median(served.by_each("hits", key)))


def _known(served: Site, _name: str, _key: str) -> float:
    """Sign in at one worker; return how many know the session."""
    return float(sum(served.signed_in()))


def _still_on(served: Site, name: str, key: str) -> float:
    """Switch a feature off at one worker; return how many workers still serve it."""
    served.by_one(name, key)
    return float(sum(served.by_each("is_on", key)))


@dataclass(frozen=True)
class Use:
    """One use of a cache, its correct result, and the function that measures it."""

    title: str
    claim: str
    right: float
    ask: Callable[[Site, str, str], float]
    atomic: str
    get_set: str = ""

    @property
    def claim_own(self) -> str:
        """The claim, for workers that have a cache each."""
        return f"with a cache per worker, {self.claim}"


USES = (
    Use(
        f"logins let through, of {3 * LINES} attempts",
        f"a limit of {shop.ALLOWED_ATTEMPTS} logins lets more through, up to "
        f"{WORKERS * shop.ALLOWED_ATTEMPTS}",
        shop.ALLOWED_ATTEMPTS,
        _attempts,
        "log_in",
        "log_in_get_set",
    ),
    Use(
        f"times that one token was spent, of {LINES} attempts",
        f"a one-time token is spent more than once, up to {WORKERS} times",
        1,
        _once,
        "reset_password",
        "reset_password_get_set",
    ),
    Use(
        f"hits that a worker knows of, of {HITS * LINES}",
        "a hit counter counts a part of the hits",
        HITS * LINES,
        _count,
        "count_hit",
        "count_hit_get_set",
    ),
    Use(
        f"times that a report was computed, for {LINES} requests at once",
        "an expensive report is computed again and again",
        1,
        _once,
        "report",
        "report_get_set",
    ),
    Use(
        f"workers that know a session, of {WORKERS}",
        "a visitor who signed in is signed out at the next request",
        WORKERS,
        _known,
        "sign_in",
    ),
    Use(
        f"workers that serve a feature which was switched off, of {WORKERS}",
        "a feature that was switched off is still served",
        0,
        _still_on,
        "switch_off",
    ),
)


@dataclass(frozen=True)
class Count:
    """The result of one use on one alias, in each round."""

    use: Use
    alias: str
    atomic: bool
    counted: tuple[float, ...]

    @property
    def right(self) -> bool:
        """Whether every round had the correct result."""
        return self.look is Look.RIGHT

    @property
    def look(self) -> Look:
        """Its colour: what `get` + `set` does on a shared cache is no fault of the cache."""
        found = look_of(self.counted, self.use.right)
        is_usage = not self.atomic and self.alias != "locmem"
        return Look.UNSAFE if found is Look.BROKEN and is_usage else found

    def distance(self, counted: float) -> float:
        """Return how far a result is from the correct one."""
        return abs(counted - self.use.right)


def conduct(bench: Bench) -> ExperimentOutcome:
    """Serve the site on each alias and measure all uses, several times."""
    with Stores() as stores:
        bench.expect(len(stores.aliases) * (len(USES) + sum(bool(use.get_set) for use in USES)))
        counts = []
        for alias in stores.aliases:
            bench.look()
            with site(stores, alias) as served:
                counts += [
                    _one_count(bench, served, alias, use, atomic=atomic)
                    for use in USES
                    for atomic in ([True, False] if use.get_set else [True])
                ]
        notes = stores.notes
    panels = tuple(_panel(use, [one for one in counts if one.use == use]) for use in USES)
    return ExperimentOutcome(judge(counts), panels, (*_NOTES, *notes))


_NOTES = (
    (
        f"{WORKERS} workers with {PER_WORKER} connections to each. A password takes about 10 ms here, with "
        "fewer rounds than Django's default."
    ),
    (
        "The report uses cache.get_or_set: Django's own computes the value in every caller that "
        "misses, cacheapp's in one of them."
    ),
)


def _one_count(bench: Bench, served: Site, alias: str, use: Use, *, atomic: bool) -> Count:
    name = use.atomic if atomic else use.get_set
    with bench.step(f"{alias}: {name}"):
        counted = []
        for number in range(ROUNDS[bench.scale]):
            bench.look()
            counted.append(float(use.ask(served, name, f"{name}-{number}")))
    return Count(use, alias, atomic, tuple(counted))


def judge(counts: list[Count]) -> tuple[ClaimFinding, ...]:
    """Return, for each use, whether workers with their own caches are wrong; then for shared caches."""
    verdicts = {True: ClaimVerdict.HOLDS, False: ClaimVerdict.DOES_NOT_HOLD}
    own = [one for one in counts if one.alias == "locmem" and one.atomic]
    shared = [one for one in counts if one.alias != "locmem" and one.atomic]
    get_set = [one for one in counts if one.alias != "locmem" and not one.atomic]
    wrong = [one for one in shared if not one.right]
    unsafe = [one for one in get_set if not one.right]
    return (
        *(
            ClaimFinding(
                one.use.claim_own,
                verdicts[not one.right],
                _describe(one),
                figure=f"{max(one.counted, key=one.distance):g}, correct is {one.use.right:g}",
            )
            for one in own
        ),
        ClaimFinding(
            CLAIM_SHARED,
            verdicts[not wrong],
            "; ".join(map(_describe, wrong))
            or f"all {len(shared)} were right: {', '.join(dict.fromkeys(one.alias for one in shared))}",
            figure=f"{len(shared) - len(wrong)} of {len(shared)} right",
        ),
        ClaimFinding(
            CLAIM_GET_SET,
            # One run without an error does not prove that there is none.
            ClaimVerdict.HOLDS if unsafe else ClaimVerdict.UNKNOWN,
            "; ".join(map(_describe, unsafe)) or "none was wrong in this run",
            figure=f"{len(unsafe)} of {len(get_set)} wrong" if unsafe else "no error in this run",
        ),
    )


def _describe(one: Count) -> str:
    counted = ", ".join(f"{it:g}" for it in one.counted)
    return f"{one.alias}, {one.use.title}: {counted} (correct: {one.use.right:g})"


def _panel(use: Use, counts: list[Count]) -> Panel:
    """Draw the safe programs of all caches beside each other, then the unsafe ones."""
    measures = (
        Measure(
            one.alias, one.counted, group=_GROUPS[one.atomic] if use.get_set else "", look=one.look
        )
        for one in sorted(counts, key=lambda one: not one.atomic)
    )
    return Panel(use.title, "", tuple(measures), expected=float(use.right))


_GROUPS = {True: "with one atomic call", False: "with get + set, which no cache makes safe"}


EXPERIMENT = Experiment(
    name="what-breaks",
    title="What it breaks",
    claims=(*(use.claim_own for use in USES), CLAIM_SHARED, CLAIM_GET_SET),
    code=listing(
        *(shop.log_in, shop.log_in_get_set, shop.reset_password, shop.reset_password_get_set),
        *(shop.count_hit, shop.count_hit_get_set, shop.report, shop.report_get_set),
        *(shop.switch_off, shop.is_on),
    ),
    conduct=conduct,
)
