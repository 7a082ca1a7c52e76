"""The bound of NearCache holds under every fault, and the check finds those that break it."""

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cacheapp.cachecheck.client_process import Setup
from cacheapp.cachecheck.clients import Clients
from cacheapp.cachecheck.verdicts import PropertyFinding, PropertyVerdict
from cacheapp.cachecheck.workloads import bounded
from cacheapp.processes.proxy import Proxy
from cacheapp.processes.servers import RedisServer

_BOUND_S = 0.3
_NEAR = "cacheapp.backends.NearCache"
_BROKEN = "tests.integration.cachecheck.broken_near."


@contextlib.contextmanager
def _site(backend: str, directory: Path) -> Iterator[bounded.Site]:
    """Two machines with two processes each; the second has a proxy between it and Redis."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(RedisServer()).start()
        proxy = stack.enter_context(Proxy(server.socket, 0.8 * _BOUND_S)).start()
        machines = []
        for name, url in (("a", server.url), ("b", proxy.url)):
            home = directory / name
            home.mkdir(parents=True)
            options = {
                "copy": str(home / "copy"),
                "size_limit": 8 * 2**20,
                "max_staleness": _BOUND_S,
            }
            caches = {"default": {"BACKEND": backend, "LOCATION": url, "OPTIONS": options}}
            overrides = {"CACHES": caches, "CACHEAPP": {"STATE_DIR": home / "state"}}
            machines.append(
                stack.enter_context(Clients(Setup("default", overrides, directory=home), 2))
            )
        yield bounded.Site(server, machines, _BOUND_S, [proxy])


def _checked(backend: str, directory: Path, fault: str, seconds: float = 4.0) -> PropertyFinding:
    with _site(backend, directory) as site:
        return bounded.bounded(
            site,
            secrets.token_hex(4),
            bounded.FAULTS[fault],
            seconds,
            evicts=fault in bounded.EMPTYING,
        )


def _most_in_soak(names: list[str], few: list[str]) -> list[Any]:
    return [name if name in few else pytest.param(name, marks=pytest.mark.soak) for name in names]


@pytest.mark.parametrize("fault", _most_in_soak(list(bounded.FAULTS), ["connections lost"]))
def test_the_bound_holds(tmp_path: Path, fault: str) -> None:
    found = _checked(_NEAR, tmp_path, fault)
    assert found.verdict in {PropertyVerdict.HOLDS, PropertyVerdict.UNKNOWN}, found


@pytest.mark.soak
@pytest.mark.parametrize("fault", ["nothing", "network slow and interrupted"])
def test_the_bound_holds_in_late_processes(tmp_path: Path, fault: str) -> None:
    found = _checked(f"{_BROKEN}SlowCache", tmp_path, fault)
    assert found.verdict in {PropertyVerdict.HOLDS, PropertyVerdict.UNKNOWN}, found


MUTANTS = {
    "IgnoresInvalidations": "nothing",
    "KeepsItsEpoch": "connections lost",
    "FillsBlindly": "nothing",
}


@pytest.mark.parametrize("mutant", _most_in_soak(list(MUTANTS), ["KeepsItsEpoch", "FillsBlindly"]))
def test_a_broken_protocol_is_found(tmp_path: Path, mutant: str) -> None:
    for attempt in range(6):  # nine of ten runs find it
        found = _checked(_BROKEN + mutant, tmp_path / str(attempt), MUTANTS[mutant])
        if found.verdict is PropertyVerdict.BROKEN:
            break
    assert found.verdict is PropertyVerdict.BROKEN, found
    assert found.operations


@pytest.mark.soak
@pytest.mark.parametrize("mutant", list(MUTANTS))
def test_a_broken_protocol_is_found_in_nine_of_ten_runs(tmp_path: Path, mutant: str) -> None:
    fault = MUTANTS[mutant]
    found = [_checked(_BROKEN + mutant, tmp_path / str(n), fault).verdict for n in range(10)]
    assert found.count(PropertyVerdict.BROKEN) >= 9
