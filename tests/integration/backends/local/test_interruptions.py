"""An exception of a signal handler passes code that ignores the failures of its own calls."""

import contextlib
import gc
import itertools
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import diskcache
import pytest
from django.core.cache import caches
from pytest_django.fixtures import Settings

from cacheapp.backends.lmdb.reference_bits import retire
from cacheapp.backends.local import paths
from cacheapp.backends.local.private_directory import private_directory
from cacheapp.backends.local.shared_directory import resolve_location
from cacheapp.directory_trust import denial_reason, replaceable_reason
from tests.integration.backends.interrupt_everywhere import interrupt_at
from tests.integration.interrupts import interrupted_in


def test_a_handlers_time_out_is_not_taken_for_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)  # opening it waits for a reader

    def interrupt(_number: int, _frame: object) -> None:
        raise TimeoutError("out of time")

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(TimeoutError, match="out of time"), interrupted_in("retire"):
            retire(fifo)
    finally:
        signal.signal(signal.SIGUSR1, before)
    retire(tmp_path / "missing")


class _OutOfTime(TimeoutError, ValueError):
    """Of the kinds that the standard library ignores in many places."""


@pytest.fixture
def _no_collection() -> Iterator[None]:
    """Collect no garbage in the test: what a handler raises in a finaliser has no caller."""
    gc.disable()
    yield
    gc.enable()
    gc.collect()


def _is_in_lmdb() -> bool:
    """Return True where lmdb looks for the files of an environment, and ignores any `OSError`."""
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 (documented)
    while frame is not None:
        if frame.f_code.co_filename.endswith("lmdb/_envid.py"):
            return True
        frame = frame.f_back
    return False


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("_no_collection")
@pytest.mark.parametrize("backend", ["LMDBCache", "DiskCache"])
def test_no_exception_of_a_handler_is_lost_while_a_cache_is_created(
    settings: Settings, tmp_path: Path, backend: str
) -> None:
    entry = {"BACKEND": f"cacheapp.backends.{backend}", "LOCATION": str(tmp_path / "cache")}
    options = {"size_limit": 2**22, **({"shards": 1} if backend == "DiskCache" else {})}
    settings.CACHES = {"default": {**entry, "OPTIONS": options}}
    cache: Any = caches["default"]
    store = cache._environment if backend == "LMDBCache" else cache._store  # noqa: SLF001

    ignored = False

    def handle(_number: int = 0, _frame: object = None) -> None:
        nonlocal ignored
        ignored = _is_in_lmdb()
        raise _OutOfTime

    before = signal.signal(signal.SIGUSR1, handle)
    lost, found = [], 0
    try:
        cache.set("key", 1)  # imports what is imported late
        for number in range(1, 1_000_000, 977):
            store.close()
            shutil.rmtree(tmp_path / "cache")
            (tmp_path / "cache").mkdir(mode=0o700)
            try:
                if not interrupt_at(number, lambda: cache.set("key", 1), handle):
                    break
            except _OutOfTime:
                found += 1
            else:
                if not ignored:
                    lost.append(number)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert lost == []
    assert found > 10


def test_no_exception_of_a_handler_is_lost_in_what_diskcache_looks_for(
    settings: Settings, tmp_path: Path
) -> None:
    """Its constructor looks for its directory, with a function that may ignore each `OSError`."""
    entry = {"BACKEND": "cacheapp.backends.DiskCache", "LOCATION": str(tmp_path / "cache")}
    settings.CACHES = {"default": entry}
    looked = 0

    def raise_in_it(_frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal looked
        if event == "line":
            looked += 1
            if looked == 2:  # inside its `try`
                raise _OutOfTime
        return raise_in_it

    def trace(frame: FrameType, _event: str, _arg: object) -> Any:
        caller = frame.f_back
        by_diskcache = caller and caller.f_code is diskcache.Cache.__init__.__code__
        return raise_in_it if by_diskcache and "dir" in frame.f_code.co_name else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with pytest.raises(_OutOfTime):
            caches["default"].set("key", 1)
    finally:
        sys.settrace(before)
    assert looked == 2
    caches["default"].set("key", 1)
    assert caches["default"].get("key") == 1


LOOKS: dict[str, Callable[[Path], object]] = {
    "real_path": paths.real_path,
    "exists": paths.exists,
    "is_directory": paths.is_directory,
    "remove": paths.remove,
    "replaceable_reason": replaceable_reason,
    "denial_reason": denial_reason,
    "private_directory": private_directory,
    "resolve_location": resolve_location,
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS.keys())
@pytest.mark.parametrize("name", [".", "missing/below"], ids=["there", "missing"])
def test_a_look_at_a_path_loses_no_exception_of_a_handler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: Callable[[Path], object], name: str
) -> None:
    """Whichever of its system calls a handler interrupts."""
    left = 0

    def interrupted(call: Callable[..., Any]) -> Callable[..., Any]:
        def interrupt(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise _OutOfTime
            return call(*args, **kwargs)

        return interrupt

    calls = ("access", "listdir", "lstat", "mkdir", "readlink", "rmdir", "stat", "unlink")
    with monkeypatch.context() as patch:
        for call in calls:
            patch.setattr(os, call, interrupted(getattr(os, call)))
        for number in itertools.count(1):
            left = number
            try:
                look(tmp_path / name)
            except _OutOfTime:
                continue
            break
    assert left > 0, f"the caller did not see that call {number} of the system was interrupted"
    assert number > 1


@pytest.mark.parametrize(
    "path",
    [
        *("folder", "link/inner", "link/../file", "absolute/..", "folder/up/link/inner"),
        *("missing/../folder", "broken", "broken/below", "loop", "loop/below", "file/below"),
        *("", ".", "..", "/", "/..", "folder/./inner/", "missing/below"),
    ],
)
def test_a_path_without_links_is_that_of_the_standard_library(tmp_path: Path, path: str) -> None:
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "file").touch()
    for name, target in {
        "link": "folder",
        "absolute": str(tmp_path / "folder" / "inner"),
        "broken": "nowhere/below",
        "loop": "loop",
        "folder/up": "..",
    }.items():
        (tmp_path / name).symlink_to(target)
    with contextlib.chdir(tmp_path):
        assert paths.real_path(path) == os.path.realpath(path)
    whole = tmp_path / path
    assert paths.real_path(whole) == os.path.realpath(whole)


def test_a_tree_is_removed_without_what_its_links_lead_to(tmp_path: Path) -> None:
    (tmp_path / "tree" / "folder").mkdir(parents=True)
    (tmp_path / "tree" / "folder" / "file").touch()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").touch()
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "tree" / "broken").symlink_to("nowhere")
    paths.remove(tmp_path / "tree")
    paths.remove(tmp_path / "missing")
    assert [path.name for path in tmp_path.rglob("*")] == ["outside", "precious"]
