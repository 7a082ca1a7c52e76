"""An environment whose opening or closing a signal handler interrupted is closed by what comes next."""

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from cacheapp.backends.lmdb.environment import Environment
from tests.integration.backends.children import end_of, in_child
from tests.integration.backends.interrupt_everywhere import Interrupted, interrupt_at
from tests.integration.backends.lmdb.cache_process import CACHE, run_with_cache
from tests.integration.backends.lmdb.parts import environment_of, open_files, ours

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@contextlib.contextmanager
def _others_take_the_numbers() -> Iterator[None]:
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(10)]
    try:
        yield
    finally:
        for number in opened:
            os.close(number)


def _fork(_environment: Environment) -> None:
    assert end_of(in_child(lambda: True)) == 0


@pytest.mark.parametrize(
    ("end", "step"),
    [(Environment.close, 1), (lambda environment: environment.close_at_exit(60), 1), (_fork, 7)],
    ids=["close", "close_at_exit", "fork"],
)
def test_an_interrupted_close_is_finished_and_touches_no_file_of_others(
    settings: Settings,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    end: Callable[[Environment], None],
    step: int,
) -> None:
    cache = ours(settings, tmp_path)
    environment = environment_of(cache)
    kept: list[Interrupted] = []

    def interrupt() -> None:
        kept.append(Interrupted())
        raise kept[0]

    def end_it() -> None:
        with _others_take_the_numbers():
            end(environment)

    caplog.set_level(logging.WARNING)
    for number in range(1, 10_000, step):
        kept.clear()
        cache.set("key", number)
        if not interrupt_at(number, environment.close, interrupt):
            break
        end_it()
        assert open_files(tmp_path) == []
        mine = [one for one in caplog.records if one.thread == threading.get_ident()]
        assert mine == [], f"after bytecode {number}"  # threads of other tests may log too
        assert cache.get("key") == number
    assert number > 100


_NO_DESCRIPTOR_IS_FREE = (
    CACHE
    + """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
cache.set("key", 1)
os.closerange(3, 64)
taken = []
try:
    while True:
        taken.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
child = os.fork()
if child == 0:
    os._exit(0)
for number in taken[-20:]:
    os.close(number)
print(os.waitpid(child, 0)[1], cache.get("key"))
for number in taken[:-20]:
    assert os.readlink(f"/proc/self/fd/{number}") == os.devnull
"""
)


def test_a_fork_where_no_descriptor_is_free_to_close_the_files_does_not_wait_for_one(
    tmp_path: Path,
) -> None:
    done = run_with_cache(_NO_DESCRIPTOR_IS_FREE, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "0 1\n", done.stderr
