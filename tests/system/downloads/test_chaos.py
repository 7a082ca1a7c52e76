"""One job of 300 files, while workers are killed, suspended, replaced, and its links break."""

import contextlib
import itertools
import os
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cacheapp.processes.servers import GunicornServer
from cacheapp.processes.waiting import until
from tests.origin import Origin
from tests.system.conftest import QUICK_START, NewEnv
from tests.system.downloads.chaos import MAX_REQUESTS, Chaos, faults, things
from tests.system.downloads.parts import ROOT, Site, migrate

FILES, THREADS = 300, 32


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture
def env(new_env: NewEnv, origin: Origin) -> dict[str, str]:
    found = {
        **new_env(),
        **QUICK_START,
        "DJANGO_SETTINGS_MODULE": "tests.system.downloads.chaos_settings",
        "DOWNLOAD_ORIGINS": origin.url,
        "DOWNLOAD_HEARTBEAT_S": "2",
        "DOWNLOAD_TRIES": "100",
        "MAX_REQUESTS": str(MAX_REQUESTS),
        "GRACEFUL_TIMEOUT": "2",
    }
    migrate(found)
    return found


@pytest.mark.parametrize(
    "count",
    [
        30,
        pytest.param(500, marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
    ],
)
def test_no_file_is_torn_lost_or_fetched_again_whatever_happens_to_the_workers(
    count: int, env: dict[str, str], origin: Origin, record_property: Callable[[str, object], None]
) -> None:
    seed = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(2**32))
    record_property("seed", seed)
    print(f"seed {seed}")
    rng = random.Random(seed)
    gate = threading.Event()
    names = things(origin, rng, FILES, gate)
    with (
        contextlib.ExitStack() as clean_up,
        GunicornServer("project.wsgi:application", ROOT, env) as server,
    ):
        site = Site(server.start(), env, origin)
        clean_up.callback(site.workers.close)
        job = site.order([f"/thing/{name}" for name in names], threads=THREADS)
        chaos = Chaos(site, Path(env["DATA_DIR"]) / "db.sqlite3", job, names)
        for fault in itertools.islice(faults(chaos, rng), count):
            chaos.done.append(fault)
            print(f"{len(chaos.done)}: {fault}", flush=True)
            chaos.look_at_disk()
            chaos.every_worker_answers()
        assert not chaos.has_ended()  # all of them hit it
        gate.set()
        chaos.hurry()
        until(chaos.has_ended, "the job to end", 120)
        chaos.every_worker_answers()
        found = site.look(job)
        kinds = Counter(fault.split()[0] for fault in chaos.done)
        print(*(line for line in server.output().splitlines() if job["id"] in line), sep="\n")
        print(f"{dict(kinds)}; adopted {found['adoptions']} times")
        assert (found["state"], found["error"]) == ("succeeded", "")
        assert found["files_done"] == FILES
        chaos.assert_whole()
        lost = re.findall(r"adopted; it was lost by process ([0-9]+)", server.output())
        late = [pid for pid in lost if int(pid) not in chaos.killed]
        print(f"{len(late)} owners were late")
        chaos.assert_nothing_was_fetched_without_need(late=THREADS * len(late))
        breaks, twice = chaos.assert_breaks_cost_at_most_one_read(late=THREADS * len(late))
        print(f"{breaks} breaks; {twice} bytes were sent twice")
