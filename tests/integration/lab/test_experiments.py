"""Each experiment at small scale, on real processes; how fast they are is never asserted."""

import functools
import threading

import pytest

from cacheapp.lab import charts, process_races, thread_races, what_breaks
from cacheapp.lab.bench import Bench, ExperimentProgress, RunStopped, Scale
from cacheapp.lab.experiment import Experiment
from cacheapp.lab.registry import EXPERIMENTS
from cacheapp.lab.results import ClaimVerdict, ExperimentOutcome, Look, Panel, Result
from cacheapp.lab.run import UnknownExperiment, run
from cacheapp.lab.stores import BACKENDS
from cacheapp.lab.timed import starting

HOLDS = ClaimVerdict.HOLDS
ATOMIC = ", with one atomic call"


@functools.cache
def small(name: str) -> Result:
    """Run it once for all tests of this file."""
    return run(name, scale=Scale.SMALL)


def verdicts(name: str) -> dict[str, ClaimVerdict]:
    return {finding.claim: finding.verdict for finding in small(name).findings}


def medians(panel: Panel) -> dict[str, float]:
    return {charts.name(measure): measure.median for measure in panel.measures}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_it_runs_on_real_processes_and_says_what_it_measured(name: str) -> None:
    result = small(name)
    assert not [it for it in result.findings if "could not run" in it.why], result.findings
    assert result.panels
    assert all(measure.samples for panel in result.panels for measure in panel.measures)
    assert Result.from_json(result.to_json()) == result
    assert [finding.claim for finding in result.findings] == [*EXPERIMENTS[name].claims]
    assert all(finding.figure for finding in result.findings)
    assert result.about.others is not None
    assert 0 <= result.about.others <= result.about.cores
    assert result.scale == "small"


def test_downloads_one_by_one_take_the_sum_and_the_others_at_least_one_download() -> None:
    origin, s3 = small("waiting").panels
    assert medians(origin)["one by one"] >= 3 * 0.1
    assert medians(s3)["one by one, computed"] >= 4 * 0.1
    for panel in (origin, s3):
        assert {"threads", "processes", "asyncio"} <= set(medians(panel))
        assert min(medians(panel).values()) >= 0.1


def test_an_unprotected_counter_of_threads_loses_and_a_protected_one_does_not() -> None:
    assert verdicts("thread-races")[thread_races.CLAIM_RACE] is HOLDS
    assert verdicts("thread-races")[thread_races.CLAIM_EXACT] is HOLDS


def test_what_processes_share_races_unless_it_is_protected() -> None:
    assert verdicts("process-races")[process_races.CLAIM] is ClaimVerdict.DOES_NOT_HOLD
    assert verdicts("process-races")[process_races.CLAIM_EXACT] is HOLDS
    looks = {charts.name(it): it.look for it in small("process-races").panels[0].measures}
    for alias in ("disk", "lmdb", "redis"):
        assert looks[f"{alias}, with incr"] is Look.RIGHT
        assert looks[f"{alias}, with get + set, which no cache makes safe"] is not Look.BROKEN


def test_four_workers_have_four_truths_in_their_own_caches_and_one_in_a_shared_one() -> None:
    assert set(verdicts("not-shared").values()) == {HOLDS}
    seen_by, truths = map(medians, small("not-shared").panels)
    assert seen_by == {"locmem": 1, "disk": 4, "lmdb": 4, "redis": 4}
    assert truths == {"locmem": 4, "disk": 1, "lmdb": 1, "redis": 1}


def test_what_a_project_uses_a_cache_for_breaks_under_four_workers_and_is_right_when_shared() -> (
    None
):
    found = verdicts("what-breaks")
    assert found.pop(what_breaks.CLAIM_GET_SET) is not ClaimVerdict.DOES_NOT_HOLD
    assert set(found.values()) == {HOLDS}
    logins, tokens, hits, reports, sessions, features = map(medians, small("what-breaks").panels)
    assert logins[f"locmem{ATOMIC}"] == 20
    assert tokens[f"locmem{ATOMIC}"] == 4
    assert hits[f"locmem{ATOMIC}"] == 48
    assert reports[f"locmem{ATOMIC}"] >= 4
    assert sessions["locmem"] == 1
    assert features["locmem"] == 3
    for alias in set(BACKENDS) - {"locmem"}:
        assert logins[f"{alias}{ATOMIC}"] == 5
        assert (tokens[f"{alias}{ATOMIC}"], reports[f"{alias}{ATOMIC}"]) == (1, 1)
        assert hits[f"{alias}{ATOMIC}"] == 192
        assert (sessions[alias], features[alias]) == (4, 0)


def test_progress_counts_to_the_number_of_steps() -> None:
    seen: list[ExperimentProgress] = []
    run("starting", scale=Scale.SMALL, progress=seen.append)
    assert seen[0].done == 0
    assert seen[-1].done == seen[-1].total - 1  # it was in the last step
    assert [it.done for it in seen] == sorted(it.done for it in seen)


def test_a_stop_event_ends_a_run_between_and_amid_its_steps() -> None:
    stop = threading.Event()

    def stop_at_second_step(now: ExperimentProgress) -> None:
        if now.done == 1:
            stop.set()

    with pytest.raises(RunStopped, match="waiting: stopped during"):
        run("waiting", scale=Scale.SMALL, progress=stop_at_second_step, stop=stop)


def test_an_unknown_experiment_is_refused_by_name() -> None:
    with pytest.raises(UnknownExperiment, match="no experiment 'nothing'; expected one of waiting"):
        run("nothing")


def test_what_cannot_be_run_is_unknown_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def conduct(bench: Bench) -> ExperimentOutcome:
        bench.measure(starting.times, "no such method", 1)
        raise AssertionError

    monkeypatch.setitem(EXPERIMENTS, "broken", Experiment("broken", "", ("a", "b"), "", conduct))
    result = run("broken", scale=Scale.SMALL)
    assert [(it.claim, it.verdict) for it in result.findings] == [
        ("a", ClaimVerdict.UNKNOWN),
        ("b", ClaimVerdict.UNKNOWN),
    ]
    assert "could not run" in result.findings[0].why
    assert "cannot find context for 'no such method'" in result.findings[0].why
