import itertools

import pytest

from cacheapp.downloads.states import (
    FILE_MOVES,
    FINISHED_JOB,
    JOB_MOVES,
    OWNED_JOB,
    UNFINISHED_FILE,
    UNFINISHED_JOB,
    FileState,
    JobState,
    file_sources,
    outcome,
    sources,
)


def test_a_finished_job_or_file_can_only_be_retried() -> None:
    for job in FINISHED_JOB - {JobState.SUCCEEDED}:
        assert JOB_MOVES[job] == {JobState.QUEUED}
    for file in set(FileState) - UNFINISHED_FILE:
        assert FILE_MOVES[file] == {FileState.QUEUED}
    assert not JOB_MOVES[JobState.SUCCEEDED]
    assert {JobState.QUEUED, JobState.RUNNING} == OWNED_JOB
    assert {JobState.QUEUED, JobState.RUNNING, JobState.PAUSED} == UNFINISHED_JOB
    assert {FileState.QUEUED, FileState.RUNNING} == UNFINISHED_FILE


def test_every_state_is_in_its_table_and_reachable() -> None:
    assert set(JOB_MOVES) == set(JobState)
    assert set(FILE_MOVES) == set(FileState)
    assert frozenset().union(*JOB_MOVES.values()) == set(JobState)
    assert frozenset().union(*FILE_MOVES.values()) == set(FileState)


def test_no_job_succeeds_that_never_ran() -> None:
    assert sources(JobState.SUCCEEDED) == {JobState.RUNNING}


def test_the_sources_of_a_state_are_the_inverted_table() -> None:
    for old, new in itertools.product(JobState, JobState):
        assert (old in sources(new)) == (new in JOB_MOVES[old])
    for before, after in itertools.product(FileState, FileState):
        assert (before in file_sources(after)) == (after in FILE_MOVES[before])


@pytest.mark.parametrize(
    ("done", "cancel_requested", "expected"),
    [
        pytest.param(3, False, JobState.SUCCEEDED, id="all-whole"),
        pytest.param(3, True, JobState.SUCCEEDED, id="cancelled-too-late"),
        pytest.param(2, False, JobState.FAILED, id="one-failed"),
        pytest.param(2, True, JobState.CANCELLED, id="cancelled"),
        pytest.param(0, False, JobState.FAILED, id="none"),
    ],
)
def test_the_outcome_of_a_job_follows_from_its_files(
    done: int, expected: JobState, *, cancel_requested: bool
) -> None:
    assert outcome(total=3, done=done, cancel_requested=cancel_requested) is expected
