"""Caches under signals, kills, stops, daemons, forks by C code and PID namespaces: every count counts."""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cacheapp import clock
from tests.cgroups import in_cgroup, memory_cgroup, oom_kills
from tests.required import skip_or_fail
from tests.system.cache_soak_worker import SLOTS
from tests.system.conftest import ROOT

WORKERS = 4
_SLOTS_EACH = 128
_OOM_KILLS = 20
_GROUP_BYTES = 384 * 2**20  # about 45 MiB for each worker
_HAS_NAMESPACES = os.geteuid() == 0 and shutil.which("unshare") is not None
_FAULTS = ("kill", "stop", *["daemon", "fork"] * 2, *["namespace"] * _HAS_NAMESPACES)


class Worker:
    """One process of `cache_soak_worker`; a new one takes its place when it was killed."""

    def __init__(self, arguments: list[str], slot: int, group: Path | None) -> None:
        self._command = [sys.executable, "-X", "dev", "-m", "tests.system.cache_soak_worker"]
        self._command += [*arguments, str(slot)]
        if group is not None:
            self._command = in_cgroup(group, self._command)
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        self._expect("ready")

    def _expect(self, word: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == word + "\n"

    def order(self, word: str) -> None:
        """Have it fork, become a daemon or grow; fail if its child did not end well."""
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        self._expect("done")

    def end(self) -> int:
        """Close its input and wait for its end."""
        self.process.communicate(timeout=60)
        return self.process.returncode


@contextmanager
def _running(arguments: list[str], group: Path | None = None) -> Iterator[list[Worker]]:
    workers = [Worker(arguments, _SLOTS_EACH * number, group) for number in range(WORKERS)]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.communicate()


def _from_another_namespace(arguments: list[str]) -> str:
    """Use the cache in a PID namespace of its own; return what came of it."""
    unshare = shutil.which("unshare")
    script = (
        "import sys\nfrom tests.system.cache_soak_worker import _configure\n"
        "cache = _configure(*sys.argv[1:4])\n"
        "from cacheapp.errors import StoreUnavailable\n"
        "try:\n    print(cache.get('counter') is not None)\n"
        "except StoreUnavailable as exc:\n    print(exc)\n"
    )
    done = subprocess.run(
        [
            *(str(unshare), "--pid", "--fork", "--kill-child", "--mount-proc"),
            *(sys.executable, "-c", script, *arguments[:3]),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _disturb(rng: random.Random, workers: list[Worker], arguments: list[str]) -> str:
    fault = rng.choice(_FAULTS)
    worker = rng.choice(workers)
    if fault == "kill":
        worker.process.kill()
        worker.process.communicate()
        worker.start()
    elif fault == "stop":
        worker.process.send_signal(signal.SIGSTOP)
        other = next(each for each in workers if each is not worker)
        other.process.kill()
        other.process.communicate()
        worker.process.send_signal(
            signal.SIGCONT
        )  # before the new one: a stopped writer holds it up
        other.start()
    elif fault in {"daemon", "fork"}:
        worker.order(fault)
    else:
        said = _from_another_namespace(arguments)
        expected = "another PID namespace" if arguments[0] == "LMDBCache" else "True"
        assert expected in said
    return fault


def _prepare(backend: str, location: Path, tmp_path: Path) -> list[str]:
    """Return the arguments of the workers."""
    slots = tmp_path / "slots"
    slots.write_bytes(bytes(16 * SLOTS))
    (tmp_path / "state").mkdir(mode=0o700)
    return [backend, str(location), str(tmp_path / "state"), str(slots)]


def _check_counts(arguments: list[str], faults: int) -> None:
    """Compare the counter with what the workers counted, now that they have ended."""
    numbers = memoryview(Path(arguments[3]).read_bytes()).cast("Q")
    acknowledged, unknown = sum(numbers[::2]), sum(numbers[1::2])
    script = "import sys\nfrom tests.system.cache_soak_worker import _configure\n"
    script += "print(_configure(*sys.argv[1:4]).get('counter'))"
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments[:3]],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    counted = int(done.stdout)
    print(f"{faults} faults, {acknowledged} acknowledged, {unknown} unknown, {counted} counted")
    assert acknowledged <= counted <= acknowledged + unknown
    assert acknowledged > 100 * WORKERS


@pytest.mark.parametrize("backend", ["LMDBCache", "DiskCache"])
@pytest.mark.parametrize(
    "seconds",
    [5, pytest.param(180, marks=[pytest.mark.soak, pytest.mark.timeout(900)])],
    ids=["short", "soak"],
)
def test_no_acknowledged_increment_is_lost_and_none_is_counted_twice(
    backend: str, seconds: int, tmp_path: Path
) -> None:
    seed = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(2**32))
    print(f"seed {seed}")
    rng = random.Random(seed)
    arguments = _prepare(backend, tmp_path / "cache", tmp_path)
    faults: list[str] = []
    with _running(arguments) as workers:
        deadline = clock.monotonic_s() + seconds
        while clock.monotonic_s() < deadline:
            faults.append(_disturb(rng, workers, arguments))
        assert [worker.end() for worker in workers] == [0] * WORKERS
    _check_counts(arguments, len(faults))
    if not _HAS_NAMESPACES:
        skip_or_fail("passed, but without another PID namespace: that needs root and unshare")


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A directory whose files are memory of the cgroup."""
    if not Path("/dev/shm").is_dir():  # noqa: S108
        pytest.skip("no /dev/shm")
    path = Path(tempfile.mkdtemp(prefix="cacheapp-tests-", dir="/dev/shm"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("backend", ["LMDBCache", "DiskCache"])
def test_nothing_acknowledged_is_lost_when_the_kernel_kills_for_memory(
    backend: str, tmp_path: Path, in_memory: Path
) -> None:
    arguments = _prepare(backend, in_memory / "cache", tmp_path)
    with memory_cgroup(_GROUP_BYTES) as group, _running(arguments, group) as workers:
        for number in range(_OOM_KILLS):
            growing = workers[number % WORKERS]
            growing.order("grow")
            assert growing.process.wait(120) == -signal.SIGKILL
            # The kernel chooses which processes it kills: perhaps others too.
            for worker in workers:
                if worker.process.poll() is not None:
                    worker.process.communicate()
                    worker.start()
            assert oom_kills(group) > number
        assert [worker.end() for worker in workers] == [0] * WORKERS
        _check_counts(arguments, _OOM_KILLS)
        shutil.rmtree(in_memory / "cache")  # or its pages outlive the group
