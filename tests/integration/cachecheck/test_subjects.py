import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cacheapp.cachecheck.adapters.base import ASYNC, abilities
from cacheapp.cachecheck.adapters.stores import StashAdapter
from cacheapp.cachecheck.adapters.subject import NoSubject, about, open_subject
from cacheapp.cachecheck.session import AsyncAdapter
from cacheapp.processes.servers import RedisServer
from tests.integration.cachecheck.memcached import memcached

HERE = "tests.integration.cachecheck.subjects"
EVERYTHING = {"get", "set", "delete"}
SUBJECTS = {
    "dogpile_file": {"get_or_set", "get_many", "set_many"},
    "dogpile_memory": {"get_or_set", "get_many", "set_many"},
    "cashews_memory": {"add", "incr", "get_or_set", "get_many", "set_many"},
    "aiocache_memory": {"add", "incr", "touch", "get_many", "set_many"},
    "cachelib_files": {"add", "get_many", "set_many"},
    "flask_files": {"add", "get_many", "set_many"},
    "redis_py": {"add", "incr", "touch", "get_many", "set_many", "lock"},
    "valkey_py": {"add", "incr", "touch", "get_many", "set_many", "lock"},
    "diskcache_cache": {"add", "incr", "decr", "touch", "lock"},
    "community_cache": {"add", "incr", "decr", "touch", "lock"},
    "pymemcache_pool": {"add", "incr", "touch", "get_many", "set_many"},
    "Files": set(),
}


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with RedisServer() as server:
        yield server.start().url


@pytest.fixture(scope="module")
def memcached_port() -> Iterator[int]:
    with memcached() as port:
        yield port


@pytest.fixture
def opened(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    redis_url: str,
    memcached_port: int,
) -> Iterator[Any]:
    monkeypatch.setenv("SUBJECT_DIR", str(tmp_path))
    monkeypatch.setenv("SUBJECT_REDIS", redis_url)
    monkeypatch.setenv("SUBJECT_MEMCACHED", str(memcached_port))
    cache = open_subject(f"{HERE}:{request.param}")
    with asyncio.Runner() as runner:
        yield AsyncAdapter(cache, runner) if ASYNC in abilities(cache) else cache
    subject = getattr(cache, "subject", cache)
    if request.param in {"redis_py", "valkey_py"}:
        subject.flushdb()
    if callable(getattr(subject, "close", None)):
        closed = subject.close()
        if asyncio.iscoroutine(closed):
            closed.close()


@pytest.mark.parametrize("opened", list(SUBJECTS), indirect=True, ids=list(SUBJECTS))
def test_each_library_is_called_by_the_methods_of_django(
    opened: Any, request: pytest.FixtureRequest
) -> None:
    has = opened.abilities if isinstance(opened, AsyncAdapter) else abilities(opened)
    expected = SUBJECTS[request.node.callspec.params["opened"]]
    assert expected | EVERYTHING <= has
    assert not {"add", "incr", "touch", "get_or_set", "lock"} & (has - expected)
    assert opened.get("k", "none") == "none"
    opened.set("k", 5, 300)
    assert opened.get("k", "none") == 5
    _calls(opened, has)
    assert opened.delete("k") in {True, None}
    assert opened.get("k", "none") == "none"


def _calls(cache: Any, has: frozenset[str]) -> None:
    """Make the calls that not all libraries have."""
    if "add" in has:
        assert [cache.add("k", 6, 300), cache.add("other", 6, 300)] == [False, True]
    if "touch" in has:
        assert [cache.touch("k", 300), cache.touch("none", 300)] == [True, False]
    if "incr" in has:
        assert cache.incr("k", 2) == 7
    if "get_many" in has:
        cache.set_many({"a": 1, "b": 2}, 300)
        assert cache.get_many(["a", "b", "none"]) == {"a": 1, "b": 2}
    if "get_or_set" in has:
        assert cache.get_or_set("new", lambda: 9, 300) == 9
    if "lock" in has:
        lock = cache.lock("lock", timeout=20)
        assert lock.acquire(blocking=True)
        lock.release()


@pytest.mark.parametrize("opened", ["diskcache_cache"], indirect=True)
def test_the_report_names_the_class_and_the_version_of_its_package(opened: Any) -> None:
    assert about(opened) == ("diskcache.core.Cache", {"diskcache": "5.6.3"})


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("nonsense", "expected package.module:function"),
        (f"{HERE}:nothing", "has no nothing"),
        (f"{HERE}:NOTHING", "has no method get; write an adapter"),
    ],
)
def test_what_cannot_be_opened_is_a_clear_error(name: str, complaint: str) -> None:
    with pytest.raises(NoSubject, match=complaint):
        open_subject(name)


class Table(dict[str, int]):
    """A table of Gunicorn 27, whose `get` raises a general error for a missing key."""

    def get(self, key: str, default: Any = None) -> Any:
        del default
        if key not in self:
            raise RuntimeError(f"Key not found: {key}")
        return self[key]


def test_a_missing_key_of_the_stash_is_a_miss() -> None:
    cache = StashAdapter(Table())
    assert cache.get("k", "none") == "none"
    cache.set("k", 5, 300)
    assert cache.get("k", "none") == 5
    assert [cache.delete("k"), cache.delete("k")] == [True, False]


def run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"}
    quick = ["--seconds", "0.2", "--processes", "2", "--threads", "1"]
    return subprocess.run(
        [sys.executable, "-m", "cacheapp.cachecheck", *arguments, *quick],
        env={**env, "SUBJECT_DIR": str(tmp_path), "SUBJECT_REDIS": ""},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_the_command_checks_caches_without_a_django_project(tmp_path: Path) -> None:
    report, junit = tmp_path / "new" / "report.json", tmp_path / "junit.xml"
    workloads = ["registers", "add", "counters"]
    done = run(
        tmp_path,
        *(f"{HERE}:aiocache_memory", f"{HERE}:diskcache_cache", "--github"),
        *(f"--only={name}" for name in workloads),
        *("--json", str(report), "--junit", str(junit)),
    )
    assert done.returncode == 1, done.stderr
    found = json.loads(report.read_text())
    assert set(found["verdicts"]["diskcache_cache"].values()) == {"HOLDS"}
    assert found["verdicts"]["aiocache_memory"]["one winner of add"] == "BROKEN"
    aliases = {one["alias"]: one for one in found["aliases"]}
    assert aliases["diskcache_cache"]["versions"] == {"diskcache": "5.6.3"}
    assert aliases["diskcache_cache"]["calls_per_s"] > 0
    assert "::error title=cachecheck aiocache_memory%3A one winner of add::" in done.stdout
    assert 'failures="0"' in junit.read_text()


def test_a_missing_package_is_one_clear_error(tmp_path: Path) -> None:
    done = run(tmp_path, "no_such_package.caches:make")
    assert done.returncode == 2
    assert "ModuleNotFoundError: No module named 'no_such_package'" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_what_a_subject_lacks_is_not_applicable(tmp_path: Path) -> None:
    done = run(tmp_path, f"{HERE}:Files", "--only=add", "--only=expiry", "--only=locks")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("NOT APPLICABLE") == 6
