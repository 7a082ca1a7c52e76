"""Several processes at one job, on each database: exactly one wins, and no change is lost."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PROCESSES = 4
ROUNDS = 15


class Racer:
    """A process that executes the commands it is sent."""

    def __init__(self, env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.downloads.job_client"],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, *order: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the process has ended"
        return line if line == "ready\n" else json.loads(line)

    def do(self, *order: Any) -> Any:
        self.tell(*order)
        return self.hear()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def racers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Racer]]:
    data = tmp_path_factory.mktemp("data")
    env = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.race_settings",
        "CACHEAPP_TESTS": str(data),
        "DATA_DIR": str(data),
    }
    if request.param == "postgresql":
        env["POSTGRES_SOCKET"] = str(request.getfixturevalue("postgres").directory)
    root = Path(__file__).resolve().parents[4]
    command = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
    subprocess.run(command, env=env, check=True, cwd=root)
    found = [Racer(env) for _ in range(PROCESSES)]
    for racer in found:
        assert racer.hear() == "ready\n"
    yield found
    for racer in found:
        racer.process.kill()
        racer.process.communicate()


def _at_once(racers: list[Racer], *order: Any) -> list[Any]:
    for racer in racers:
        racer.tell(*order)
    return [racer.hear() for racer in racers]


def test_exactly_one_of_many_processes_adopts_a_lost_job(racers: list[Racer]) -> None:
    for _ in range(ROUNDS):
        job = racers[0].do("create")
        _at_once(racers, "see", job)
        assert sorted(_at_once(racers, "adopt", job)) == [False, False, False, True]
        shown = _at_once(racers, "show", job)
        assert [it["mine"] for it in shown].count(True) == 1
        assert {it["adoptions"] for it in shown} == {1}


def test_either_the_owner_ends_its_job_or_another_process_adopts_it(racers: list[Racer]) -> None:
    ended = 0
    for turn in range(ROUNDS):
        owner, other = racers[0], racers[1]
        job = owner.do("create")
        other.do("see", job)
        first, second = [(owner, "finish"), (other, "adopt")][:: 1 if turn % 2 else -1]
        first[0].tell(first[1], job)
        second[0].tell(second[1], job)
        finished, adopted = owner.hear(), other.hear()
        assert (finished is None) == adopted
        shown = other.do("show", job)
        assert (shown["state"], shown["mine"]) == (
            ("queued", True) if adopted else ("failed", False)
        )
        ended += not adopted
    assert 0 <= ended <= ROUNDS


def test_a_heartbeat_and_an_adoption_exclude_each_other(racers: list[Racer]) -> None:
    for size in range(1, ROUNDS + 1):
        owner, other = racers[0], racers[1]
        job = owner.do("create")
        other.do("see", job)
        owner.tell("record", job, size)
        other.tell("adopt", job)
        kept, adopted = owner.hear(), other.hear()
        assert kept != adopted
        assert other.do("show", job)["mine"] == adopted


def test_exactly_one_of_many_processes_resumes_a_paused_job(racers: list[Racer]) -> None:
    for _ in range(ROUNDS):
        job = racers[0].do("create")
        assert racers[0].do("pause", job)
        _at_once(racers, "see", job)
        assert sorted(_at_once(racers, "take", job)) == [False, False, False, True]


def test_no_change_is_lost_when_many_change_a_job(racers: list[Racer]) -> None:
    job = racers[0].do("create")
    before = racers[0].do("show", job)["generation"]
    owner, *others = racers
    for number in itertools.islice(itertools.count(1), ROUNDS):
        owner.tell("record", job, number)
        for other in others:
            other.tell("request_cancel", job)
        assert owner.hear()
        assert [other.hear() for other in others] == [True] * len(others)
    shown = owner.do("show", job)
    assert shown["generation"] == before + ROUNDS * PROCESSES
    assert before < shown["newest_file"] <= shown["generation"]


def test_exactly_one_of_many_orders_with_one_key_creates_a_job(racers: list[Racer]) -> None:
    for number in range(ROUNDS):
        answers = _at_once(racers, "place", f"key-{number}", "https://a/1")
        assert len({job for job, _made in answers}) == 1
        assert sorted(made for _job, made in answers) == [False, False, False, True]


def test_one_of_two_different_orders_with_one_key_is_refused(racers: list[Racer]) -> None:
    for number in range(ROUNDS):
        for letter, racer in zip("abab", racers, strict=True):
            racer.tell("place", f"other-{number}", f"https://a/{letter}")
        answers = [racer.hear() for racer in racers]
        assert sorted(made for _job, made in answers) == [False, False, False, True]
        assert [job for job, _made in answers].count("used") == 2


def test_a_job_is_removed_or_resumed_and_never_both(racers: list[Racer]) -> None:
    for _ in range(ROUNDS):
        job = racers[0].do("create")
        assert racers[0].do("pause", job)
        _at_once(racers, "see", job)
        for racer, order in zip(racers, ["take", "remove", "take", "remove"], strict=True):
            racer.tell(order, job)
        answers = [racer.hear() for racer in racers]
        assert answers.count(True) == 1
        assert racers[0].do("exists", job) == (answers[0] or answers[2])


def test_a_cancellation_that_was_accepted_is_kept_whatever_its_owner_does(
    racers: list[Racer],
) -> None:
    for turn in range(ROUNDS):
        owner, other = racers[0], racers[1]
        job = owner.do("create")
        both = [(owner, "pause"), (other, "request_cancel")][:: 1 if turn % 2 else -1]
        for racer, order in both:
            racer.tell(order, job)
        assert [owner.hear(), other.hear()] == [True, True]
        assert other.do("show", job)["state"] == "cancelled"


def test_a_job_is_pruned_or_retried_and_never_both(racers: list[Racer]) -> None:
    for _ in range(ROUNDS):
        job = racers[0].do("create")
        assert racers[0].do("finish", job) == "failed"
        _at_once(racers, "see", job)
        for racer, order in zip(racers, ["prune", "take", "prune", "prune"], strict=True):
            racer.tell(order, job)
        _, taken, *_ = [racer.hear() for racer in racers]
        assert racers[0].do("exists", job) == taken


def test_a_new_job_is_withdrawn_or_adopted_and_never_both(racers: list[Racer]) -> None:
    for _ in range(ROUNDS):
        job = racers[0].do("create_for_anybody")
        _at_once(racers, "see", job)
        orders = ["take_back", "adopt", "take_back", "adopt"]
        for racer, order in zip(racers, orders, strict=True):
            racer.tell(order, job)
        answers = [racer.hear() for racer in racers]
        assert answers.count(True) == 1
        assert racers[0].do("exists", job) == (answers[1] or answers[3])


def test_no_two_orders_at_once_pass_the_quota(racers: list[Racer]) -> None:
    for number in range(ROUNDS):
        creator = f"user:race-{number}"
        answers = _at_once(racers, "place_within", 5, creator, 3)
        assert sum(map(sum, answers)) == 5
        assert racers[0].do("unfinished_of", creator) == 5


def test_no_two_retries_at_once_pass_the_quota(racers: list[Racer]) -> None:
    owner = racers[0]
    for number in range(ROUNDS // 3):
        creator = f"user:retry-{number}"
        assert sum(owner.do("place_within", PROCESSES, creator, PROCESSES)) == PROCESSES
        jobs = owner.do("jobs_of", creator)
        for job in jobs:
            assert owner.do("end", job)
            assert all(_at_once(racers, "see", job))
        for racer, job in zip(racers, jobs, strict=True):
            racer.tell("retry_within", 2, job)
        assert sum(racer.hear() for racer in racers) == 2
        assert owner.do("unfinished_of", creator) == 2
