"""Hooks of forks by Python and by C code, in real processes."""

import threading
from collections.abc import Callable

import pytest

from cacheapp.backends.local.forks import ForkLock, _Forks, wiped_page
from cacheapp.processes.waiting import pause, until
from tests.integration.backends.children import end_of, in_child_of_c, is_asleep
from tests.integration.backends.own_process import in_own_process


def _child_says(work: Callable[[], bool]) -> bool:
    """Fork in C; return what `work` returned in the child."""
    return end_of(in_child_of_c(work)) == 0


@in_own_process
def test_a_child_of_c_code_finds_no_mark() -> None:
    page = wiped_page()
    page[0] = 1.0
    assert _child_says(lambda: page[0] == 0.0)
    assert page[0] == 1.0


@in_own_process
def test_recovery_runs_the_hooks_for_the_child_once() -> None:
    forks = _Forks()
    ran: list[str] = []
    forks.register(before=lambda: ran.append("before"), in_child=lambda: ran.append("child"))

    def work() -> bool:
        forks.recover()
        forks.recover()
        return ran == ["child"] and forks.mark[0] == 1.0

    assert _child_says(work)
    assert ran == []


@in_own_process
def test_a_child_of_c_code_that_forks_recovers_before_its_hooks() -> None:
    forks = _Forks()
    ran: list[str] = []
    forks.register(before=lambda: ran.append("before"), in_child=lambda: ran.append("child"))

    def work() -> bool:
        forks.before()
        return ran == ["child", "before"]

    assert _child_says(work)


def test_every_hook_runs_and_the_last_exception_is_raised_then() -> None:
    forks = _Forks()
    ran: list[str] = []

    def fail() -> None:
        raise KeyboardInterrupt

    forks.register(before=lambda: ran.append("first"))
    forks.register(before=fail)
    forks.register(before=lambda: ran.append("last"))
    with pytest.raises(KeyboardInterrupt):
        forks.before()
    assert ran == ["last", "first"], "hooks before a fork run in reverse order"


@in_own_process
def test_a_lock_that_another_thread_holds_is_new_in_the_child() -> None:
    fork_lock = ForkLock()

    def hold() -> None:
        with fork_lock.lock:
            pause(1000)

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    until(lambda: is_asleep(thread), "the thread to hold the lock")

    def work() -> bool:
        fork_lock.in_child()
        return fork_lock.lock.acquire(timeout=1)

    assert _child_says(work)


def test_a_fork_inside_a_fork_releases_the_lock_as_often_as_it_was_acquired() -> None:
    fork_lock = ForkLock()
    fork_lock.before()
    fork_lock.before()
    fork_lock.in_parent()
    fork_lock.in_parent()
    free: list[bool] = []
    thread = threading.Thread(target=lambda: free.append(fork_lock.lock.acquire(timeout=1)))
    thread.start()
    thread.join()
    assert free == [True]


def test_a_hook_for_the_parent_alone_does_nothing() -> None:
    ForkLock().in_parent()
