"""Waiting: threads make many downloads take as long as one."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from cacheapp.lab.bench import Bench, Scale, listing
from cacheapp.lab.experiment import Experiment
from cacheapp.lab.origins import s3_can_be_had, slow_bucket, slow_origin
from cacheapp.lab.results import ClaimFinding, ClaimVerdict, ExperimentOutcome, Measure, Panel
from cacheapp.lab.slow_server import BODY
from cacheapp.lab.timed import s3, waiting

CLAIM_5 = "5 downloads of 5 s take 25 s one by one, and 5.01 s by threads"
CLAIM_200 = "200 files from S3 take over 15 minutes one by one, and 5 s by threads"
ARTICLE_FILES, ARTICLE_FILE_S = 200, 5
TOLERANCE = 1.25
"""How much longer than the one longest download all of them may take together."""
NO_S3 = (
    "no S3 API is available: moto is not installed; install it with `pip install 'moto[server]'`"
)


@dataclass(frozen=True)
class WaitingParameters:
    """Files, seconds of each, and repeats; one by one, only `share` of the S3 files are fetched."""

    files: int
    file_s: float
    s3_files: int
    s3_file_s: float
    share: int
    repeats: int


PARAMETERS = {
    Scale.SMALL: WaitingParameters(3, 0.1, 4, 0.1, 2, 1),
    Scale.USUAL: WaitingParameters(5, 0.4, 32, 0.8, 2, 3),
    Scale.FULL: WaitingParameters(5, 5.0, 200, 5.0, 200, 3),
}


@dataclass(frozen=True)
class Times:
    """The times of one way for all files; `computed` from a share of them if true."""

    way: str
    samples: tuple[float, ...]
    computed: bool = False


def conduct(bench: Bench) -> ExperimentOutcome:
    """Download from a slow origin, then from S3 behind a slow line."""
    plan = PARAMETERS[bench.scale]
    s3_here = s3_can_be_had()
    sources = ("HTTP", "S3") if s3_here else ("HTTP",)
    bench.expect(
        sum(_repeats(bench, plan, source, way) for source in sources for way in waiting.WAYS)
    )
    http = _from_origin(bench, plan)
    from_s3 = _from_s3(bench, plan) if s3_here else []
    findings = (
        judge(CLAIM_5, http, plan.files, plan.file_s),
        judge(CLAIM_200, from_s3, plan.s3_files, plan.s3_file_s)
        if s3_here
        else ClaimFinding(CLAIM_200, ClaimVerdict.UNKNOWN, NO_S3, "moto is not installed"),
    )
    panels = [_panel(f"{plan.files} downloads of {plan.file_s:g} s", http)]
    if s3_here:
        title = f"{plan.s3_files} objects of {plan.s3_file_s:g} s from S3"
        panels.append(_panel(title, from_s3))
    return ExperimentOutcome(findings, tuple(panels), _notes(plan, from_s3))


def _from_origin(bench: Bench, plan: WaitingParameters) -> list[Times]:
    with slow_origin() as origin:
        urls = [f"{origin.url}/{plan.file_s}/{number}" for number in range(plan.files)]

        def once(way: str) -> float:
            return float(bench.measure(waiting.seconds, way, urls, len(BODY)))

        return [Times(way, times) for way, times in _interleaved(bench, plan, "HTTP", once).items()]


def _from_s3(bench: Bench, plan: WaitingParameters) -> list[Times]:
    scaled = plan.share < plan.s3_files
    with slow_bucket(plan.s3_files, plan.s3_file_s) as endpoint:

        def once(way: str) -> float:
            files = plan.share if way == "one by one" else plan.s3_files
            took_s = bench.measure(s3.seconds, way, endpoint, files, len(BODY), within_s=3600.0)
            return float(took_s) * plan.s3_files / files

        found = _interleaved(bench, plan, "S3", once)
    return [Times(way, times, scaled and way == "one by one") for way, times in found.items()]


def _interleaved(
    bench: Bench, plan: WaitingParameters, what: str, once: Callable[[str], float]
) -> dict[str, tuple[float, ...]]:
    """Measure all ways in turn, so that a busy moment does not affect only one of them."""
    found: dict[str, list[float]] = {way: [] for way in waiting.WAYS}
    for number in range(plan.repeats):
        for way, times in found.items():
            if number < _repeats(bench, plan, what, way):
                with bench.step(f"{what}, {way}"):
                    times.append(once(way))
    return {way: tuple(times) for way, times in found.items()}


def _repeats(bench: Bench, plan: WaitingParameters, what: str, way: str) -> int:
    """Return how often a way is measured; once if it takes a quarter of an hour."""
    once = what == "S3" and way == "one by one" and bench.scale is Scale.FULL
    return 1 if once else plan.repeats


def judge(claim: str, times: list[Times], files: int, file_s: float) -> ClaimFinding:
    """Return whether one by one took the sum, and threads little more than one download."""
    medians = {one.way: statistics.median(one.samples) for one in times}
    alone, threads = medians["one by one"], medians["threads"]
    computed = " (computed)" if any(one.computed for one in times) else ""
    why = (
        f"{files} of {file_s:g} s took {alone:.2f} s one by one{computed} and {threads:.2f} s by threads "
        f"(processes {medians['processes']:.2f} s, asyncio {medians['asyncio']:.2f} s)"
    )
    if alone < 0.95 * files * file_s:
        why = f"{why}; one by one is less than {files * file_s:g} s: the origin was too fast"
        return ClaimFinding(claim, ClaimVerdict.UNKNOWN, why, "the origin was too fast")
    verdict = ClaimVerdict.HOLDS
    if threads > TOLERANCE * file_s:
        verdict = ClaimVerdict.DOES_NOT_HOLD
        why = f"{why}: {threads / file_s:.2f} times one download, expected at most {TOLERANCE}"
    return ClaimFinding(
        claim,
        verdict,
        why,
        figure=f"{threads:.2f} s by threads, {alone:.1f} s one by one",
        load_causes=(ClaimVerdict.DOES_NOT_HOLD,),
    )


def _panel(title: str, times: list[Times]) -> Panel:
    return Panel(
        title,
        "s",
        tuple(
            Measure(f"{one.way}, computed" if one.computed else one.way, one.samples)
            for one in times
        ),
    )


def _notes(plan: WaitingParameters, from_s3: list[Times]) -> tuple[str, ...]:
    found = []
    if (plan.files, plan.file_s) != (5, 5.0):
        found.append(
            f"Scaled down: {plan.files} files of {plan.file_s:g} s and {plan.s3_files} objects of "
            f"{plan.s3_file_s:g} s; --full uses the article's 5 of 5 s and 200 of 5 s."
        )
    computed = [one for one in from_s3 if one.computed]
    if computed:
        each_s = statistics.median(computed[0].samples) / plan.s3_files
        minutes = ARTICLE_FILES * (ARTICLE_FILE_S + each_s - plan.s3_file_s) / 60
        found.append(
            f"One by one from S3 is computed: {plan.share} objects were fetched, and the time "
            f"multiplied by {plan.s3_files / plan.share:g}. At this cost for each, the article's "
            f"{ARTICLE_FILES} objects of {ARTICLE_FILE_S} s take {minutes:.1f} minutes."
        )
    found.append(
        "The S3 API is moto's server on loopback, behind a proxy that delays each response: signing, "
        "requesting and parsing are real, the network is not."
        if from_s3
        else NO_S3
    )
    return tuple(found)


EXPERIMENT = Experiment(
    name="waiting",
    title="Waiting: downloads",
    claims=(CLAIM_5, CLAIM_200),
    code=listing(
        waiting.download,
        s3.download_from_s3,
        waiting.one_by_one,
        waiting.by_threads,
        waiting.by_processes,
        waiting.by_asyncio,
    ),
    conduct=conduct,
)
