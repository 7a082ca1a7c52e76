import datetime as dt

import pytest

from cacheapp.downloads.engine.scheduler import (
    FileQueue,
    PauseRequest,
    RemoteHost,
    RemoteHosts,
    fairest,
)
from cacheapp.downloads.http.retry import read_retry_after
from cacheapp.downloads.plan import RetryPolicy

NOW = dt.datetime(2026, 11, 22, 10, tzinfo=dt.UTC)


def _queue(threads: int, **hosts: int) -> FileQueue[str]:
    queue: FileQueue[str] = FileQueue(threads)
    for host, count in hosts.items():
        for number in range(count):
            queue.add(host, f"{host}{number}")
    return queue


def _take(queue: FileQueue[str], hosts: RemoteHosts, now_s: float = 0.0) -> str | None:
    taken = queue.pop(hosts, now_s)
    if taken is None:
        return None
    hosts[taken[0]].active += 1
    queue.active += 1
    return taken[1]


def test_the_hosts_of_a_job_take_turns() -> None:
    queue, hosts = _queue(9, a=3, b=1, c=2), RemoteHosts(9)
    assert [_take(queue, hosts) for _ in range(7)] == ["a0", "b0", "c0", "a1", "c1", "a2", None]
    assert len(queue) == 0


def test_a_host_at_its_cap_does_not_hold_up_the_others() -> None:
    queue, hosts = _queue(9, a=3, b=2), RemoteHosts(1)
    assert [_take(queue, hosts) for _ in range(3)] == ["a0", "b0", None]
    hosts["b"].active -= 1
    assert _take(queue, hosts) == "b1"


def test_a_free_thread_goes_to_the_job_with_the_fewest() -> None:
    large, small, full = _queue(9, a=9), _queue(9, a=9), _queue(2, a=9)
    large.active, small.active, full.active = 5, 1, 2
    assert fairest([large, small, full]) == [small, large]


def test_jobs_with_equally_many_active_threads_take_turns() -> None:
    first, second, new = _queue(9, a=9), _queue(9, a=9), _queue(9, a=9)
    first.turn, second.turn = 7, 6
    assert fairest([first, second, new]) == [new, second, first]


def test_a_file_that_waits_is_due_in_time_and_goes_first() -> None:
    queue, hosts = _queue(9, a=1), RemoteHosts(9)
    queue.add_later(10.0, "a", "again")
    assert len(queue) == 2
    assert _take(queue, hosts, 9.9) == "a0"
    assert _take(queue, hosts, 9.9) is None
    assert queue.due_s(hosts, 9.9) == 10.0
    assert _take(queue, hosts, 10.0) == "again"
    assert queue.due_s(hosts, 10.0) is None


def test_a_host_that_requests_a_pause_for_two_urls_gets_no_requests_for_that_time() -> None:
    queue, hosts = _queue(9, a=2), RemoteHosts(9)
    hosts["a"].record_response(0.0, 1.0, ok=False, pause=PauseRequest("/1", 6.0))
    hosts["a"].record_response(0.0, 1.0, ok=False, pause=PauseRequest("/2", 9.0))
    assert _take(queue, hosts, 5.9) is None
    assert queue.due_s(hosts, 5.9) == 6.0
    assert _take(queue, hosts, 6.0) == "a0"


@pytest.mark.parametrize(
    ("between", "second", "now_s"),
    [
        pytest.param(None, PauseRequest("/1", 9.0), 3.0, id="same-url"),
        pytest.param(True, PauseRequest("/2", 9.0), 3.0, id="another-url-responded-well"),
        pytest.param(None, PauseRequest("/2", 99.0), 7.0, id="the-first-pause-has-ended"),
    ],
)
def test_a_pause_that_one_url_requests_does_not_delay_the_others(
    *, between: bool | None, second: PauseRequest, now_s: float
) -> None:
    queue, hosts = _queue(9, a=2), RemoteHosts(9)
    hosts["a"].record_response(0.0, 1.0, ok=False, pause=PauseRequest("/1", 6.0))
    if between is not None:
        hosts["a"].record_response(1.0, 2.0, ok=between)
    hosts["a"].record_response(1.0, now_s, ok=False, pause=second)
    assert _take(queue, hosts, now_s) == "a0"


def test_a_closed_queue_takes_no_more() -> None:
    queue = _queue(9, a=2)
    queue.add_later(1.0, "a", "x")
    queue.close()
    queue.add("a", "y")
    queue.add_later(1.0, "a", "z")
    assert (len(queue), queue.pop(RemoteHosts(9), 99.0)) == (0, None)


def test_an_overloaded_host_gets_fewer_requests_and_later_more_again() -> None:
    host = RemoteHost(limit=32.0, ceiling=32, active=32)
    for _ in range(32):  # all of them were in flight: one failure, not 32
        host.record_response(began_s=0.0, now_s=1.0, ok=False)
    assert int(host.limit) == 16
    host.active = 16
    host.record_response(began_s=1.5, now_s=2.0, ok=False)
    assert int(host.limit) == 8
    for _ in range(8):
        host.record_response(began_s=3.0, now_s=4.0, ok=True)
    assert int(host.limit) == 8
    host.record_response(began_s=3.0, now_s=4.0, ok=True)
    assert int(host.limit) == 9
    for _ in range(9999):
        host.record_response(began_s=3.0, now_s=4.0, ok=True)
    assert host.limit == 32


def test_a_host_always_gets_one() -> None:
    host = RemoteHost(limit=1.0, ceiling=8, active=0)
    host.record_response(began_s=0.0, now_s=1.0, ok=False)
    assert host.has_capacity(1.0)


def test_hosts_in_their_default_state_are_forgotten() -> None:
    hosts = RemoteHosts(4)
    hosts["at-work"].active = 1
    for url in ("/1", "/2"):
        hosts["resting"].record_response(0.0, 0.0, ok=False, pause=PauseRequest(url, 9.0))
    hosts["resting"].limit = 4
    hosts["slow"].record_response(0.0, 0.0, ok=False)
    idle, kept = hosts["idle"], [hosts[name] for name in ("at-work", "resting", "slow")]
    hosts.forget_idle(1.0)
    assert hosts["idle"] is not idle
    assert [hosts[name] for name in ("at-work", "resting", "slow")] == kept


def test_waits_double_up_to_the_maximum_and_half_is_random() -> None:
    retries = RetryPolicy(tries=99, first_wait_s=1.0, max_wait_s=10.0)
    assert [retries.wait_s(tried, 1.0) for tried in range(1, 7)] == [1, 2, 4, 8, 10, 10]
    assert [retries.wait_s(tried, 0.0) for tried in range(1, 4)] == [0.5, 1, 2]
    assert retries.wait_s(10**6, 1.0) == 10


def test_a_file_has_so_many_tries_and_no_more() -> None:
    retries = RetryPolicy(tries=3, first_wait_s=1.0)
    assert retries.retry_in_s(2, 1.0, None) == 2.0
    assert retries.retry_in_s(3, 1.0, None) is None


def test_retry_after_is_honoured_up_to_a_cap() -> None:
    retries = RetryPolicy(tries=3, first_wait_s=1.0, max_retry_after_s=60.0)
    assert retries.retry_in_s(1, 1.0, 30.0) == 30.0
    assert retries.retry_in_s(1, 1.0, 0.1) == 1.0
    assert retries.retry_in_s(1, 1.0, 61.0) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Sun, 22 Nov 2026 10:00:30 GMT", 30.0),
        ("Sun, 22 Nov 2026 09:00:00 GMT", 0.0),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None),
        ("Mon, 01 Jan 2026 00:00:00 +99999999999999999999", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_a_number_or_a_date(text: str | None, expected: float | None) -> None:
    assert read_retry_after(text, NOW) == expected
