"""Seeded faults of all kinds against one job of a real Gunicorn, and what must hold throughout.

What is on disk is looked at after each fault: what was there stays there, and a request that comes
later and asks for it again is one without need.
"""

import contextlib
import hashlib
import random
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from cacheapp.downloads.engine.transfer_options import READ_BYTES
from cacheapp.downloads.storage.partial import find_leftovers
from cacheapp.downloads.storage.run_directory import run_directories
from cacheapp.processes.waiting import pause, until
from cacheapp.processes.workers import AnswerLost, Moved, NotReached
from tests.objects import Thing, Version
from tests.origin import Origin
from tests.system.downloads.parts import Site

MAX_REQUESTS = 1000  # finding all workers takes up to a few hundred, while one is being replaced
SIZES = (20_000, 1_000_000)
PIECE = SIZES[1] // 8  # the most that the origin sends at once
WHOLE = float("inf")
GATED = 24
"""Files that do not come to their end before the faults are over: so the job is hit by all of them."""


def things(origin: Origin, rng: random.Random, count: int, gate: threading.Event) -> list[str]:
    """Have the origin serve objects that take a while; return their names."""
    names = [f"{n:03}.bin" for n in range(count)]
    for n, name in enumerate(names):
        gated = n >= count - GATED
        size = SIZES[1] if gated else rng.randint(*SIZES)
        origin.things[name] = Thing(
            [_version(rng, name, 0, size)],
            takes_s=rng.uniform(0.5, 3.0),
            gate=gate if gated else None,
        )
    return names


def _version(rng: random.Random, name: str, number: int, size: int) -> Version:
    return Version(rng.randbytes(size), f'"{name}-v{number}"')


class Chaos:
    """One job, and the faults that it is subjected to."""

    def __init__(self, site: Site, database: Path, job: dict[str, Any], names: list[str]) -> None:
        self.site = site
        self.job = job
        self.names = names
        self.versions = {name: [site.origin.things[name].versions[0]] for name in names}
        self.done: list[str] = []
        """The faults so far."""
        self._database = database
        self.killed: set[int] = set()
        self._on_disk: dict[str, float] = {}
        """The most bytes that were seen of each file."""
        self._asked_before: dict[str, int] = {}
        """How many requests there had been for it then."""

    def hurry(self) -> None:
        """Have the origin answer as fast as it can from now on."""
        for thing in self.site.origin.things.values():
            thing.takes_s = 0.0
            thing.refusals.clear()
            thing.cuts.clear()

    def _row(self, columns: str) -> tuple[Any, ...]:
        with contextlib.closing(sqlite3.connect(self._database, timeout=60)) as database:
            sql = f"SELECT {columns} FROM cacheapp_downloads_downloadjob WHERE id = ?"  # noqa: S608
            found: tuple[Any, ...] = database.execute(
                sql, (self.job["id"].replace("-", ""),)
            ).fetchone()
        return found

    def owner_pid(self) -> int | None:
        """Return the owner of the job according to the database."""
        found: int | None = self._row("owner_pid")[0]
        return found

    def has_ended(self) -> bool:
        """Return whether the job is over."""
        return self._row("finished_at")[0] is not None

    def workers(self) -> list[psutil.Process]:
        """Return the living workers."""
        found = psutil.Process(self.site.server.pid).children()
        with contextlib.suppress(psutil.NoSuchProcess):
            return [it for it in found if it.status() != psutil.STATUS_ZOMBIE]
        return self.workers()

    def every_worker_answers(self) -> None:
        """Request the job from each of the four workers until all have responded with 200."""

        def asked() -> bool:
            if len(self.workers()) < 4:
                return False
            try:
                pids = self.site.workers.find()
                answers = self.site.workers.each("GET", f"/api/downloads/{self.job['id']}")
            except (Moved, AnswerLost, NotReached):  # replaced in between by an earlier fault
                return False
            bad = [it.body for it in answers.values() if it.status != 200]
            assert not bad, bad
            return len(pids) == 4

        until(asked, f"every worker to answer after {self.done[-1:]}", 120)

    def look_at_disk(self) -> None:
        """Compare what is there with what was there before: no byte of it may be gone.

        Of partial files only the runs' own count: into one that it has inherited, its late owner may
        still write what comes too late to be seen.
        """
        found = self._found(own=True)
        self._seen_anew(self._found(own=False))
        for name, size in found.items():
            if size > self._on_disk.get(name, 0):
                self._on_disk[name] = size
                self._asked_before[name] = len(self.site.origin.things[name].asked)

    def _seen_anew(self, found: Mapping[str, float]) -> None:
        """Fail unless all that was seen is seen again, each at some moment of the time for that.

        Not all at once: a look at a directory in which files are being copied and removed may see neither.
        """
        missing = [name for name in self._on_disk if found.get(name, 0) < self._on_disk[name]]
        missing = [name for name in missing if not self._may_begin_anew(name)]

        def all_seen() -> bool:
            now = self._found(own=False)
            missing[:] = [name for name in missing if now.get(name, 0) < self._on_disk[name]]
            return not missing

        with contextlib.suppress(TimeoutError):
            until(all_seen, "what was on disk to be seen again", 60)
        assert not missing, self._told(missing)

    def _told(self, left: list[str]) -> str:
        """Return what is known of files of which bytes are gone."""
        now = self._found(own=False)
        sizes = {name: (self._on_disk[name], now.get(name, 0)) for name in left}
        asked = {
            name: [it.get("range") for it in self.site.origin.things[name].asked] for name in left
        }
        directory = self.site.downloads / self.job["id"]
        numbers = [f"-{self.names.index(name)}." for name in left]
        places = [
            str(path.relative_to(directory))
            for path in directory.rglob("*")
            if path.is_dir() or any(number in path.name for number in numbers)
        ]
        lines = [
            line for line in self.site.server.output().splitlines() if " INFO django" not in line
        ]
        return "\n".join(
            [
                f"bytes are gone: {sizes} (seen, found); asked for: {asked}; directories: {places}",
                f"faults: {self.done}",
                *lines[-80:],
            ]
        )

    def _may_begin_anew(self, name: str) -> bool:
        """Return whether the object was replaced, so that its partial file is worth nothing."""
        return len(self.versions[name]) > 1 and self._on_disk[name] < WHOLE

    def _found(self, *, own: bool) -> dict[str, float]:
        """Return how many bytes of each file are on disk; `WHOLE` for one that is published."""
        directory = self.site.downloads / self.job["id"]
        job = self.job["id"].replace("-", "")[:12]
        found: dict[str, float] = {}
        for token, path in run_directories(directory, job):
            for position, left in find_leftovers(path, job).items():
                if left.token == token or not own:
                    found[self.names[position]] = left.resume_point.size
        return found | {name: WHOLE for name in self.names if (directory / name).exists()}

    def assert_nothing_was_fetched_without_need(self, late: int) -> None:
        """Compare what was on disk with the requests that followed.

        `late`: requests that late owners may have sent. One that was suspended, or starved, between its
        look whether the job is its own and its request sends it all the same; what comes of it
        goes nowhere.
        """
        needless = []
        for name, size in self._on_disk.items():
            for fields in self.site.origin.things[name].asked[self._asked_before[name] :]:
                first = int(fields.get("range", "bytes=0-")[6:-1])
                if first < size and not (size < WHOLE and len(self.versions[name]) > 1):
                    needless.append(f"{name}: from {first}, though {size} bytes were there")
        assert len(needless) <= late, f"{len(needless)}: {needless[:10]} after {self.done}"

    def assert_breaks_cost_at_most_one_read(self, late: int) -> tuple[int, int]:
        """Compare what was sent with the requests that followed; return breaks, and bytes sent twice.

        After a break that the origin made, all that it had sent is kept, but for a read that the death
        of a worker has cut off. Over all breaks, with those of killed workers, it is one read for each
        on average. `late`: as above; a late owner may fetch a whole file again.
        """
        breaks = twice = 0
        costly = []
        for name in self.names:
            thing = self.site.origin.things[name]
            if len(self.versions[name]) > 1:
                continue  # what is replaced begins again
            end = 0
            for number, (fields, sent) in enumerate(zip(thing.asked, thing.sent, strict=True)):
                first = int(fields.get("range", "bytes=0-")[6:-1])
                again = max(0, end - first)
                breaks += number > 0
                twice += again
                cuts = thing.cuts[number - 1 : number] if number else []
                if again > READ_BYTES + PIECE and cuts and cuts[0] is not None:
                    costly.append(f"{name}: from {first}, though {end} bytes were sent")
                end = max(end, first + sent)
        assert len(costly) <= late, f"{len(costly)}: {costly[:10]} after {self.done}"
        assert twice <= breaks * (READ_BYTES + PIECE) + late * SIZES[1]
        return breaks, twice

    def assert_whole(self) -> None:
        """Compare each file with what its object was at some time, and with its recorded digest."""
        files = self.site.files(self.job)
        assert sorted(files) == self.names  # and no partial file
        with contextlib.closing(sqlite3.connect(self._database)) as database:
            sql = "SELECT name, sha256, state FROM cacheapp_downloads_downloadfile WHERE job_id = ?"
            rows = database.execute(sql, (self.job["id"].replace("-", ""),)).fetchall()
        assert {state for _, _, state in rows} == {"succeeded"}
        for name, sha256, _ in rows:
            assert files[name] in [version.body for version in self.versions[name]], name
            assert hashlib.sha256(files[name]).hexdigest() == sha256, name


def faults(chaos: Chaos, rng: random.Random) -> Iterator[str]:
    """Do one fault after the other, for ever; yield what each was."""
    kinds: dict[Callable[[Chaos, random.Random], str], int] = {
        kill: 6,
        suspend: 5,
        reload: 2,
        recycle: 3,
        replace: 6,
        refuse: 4,
        cut: 3,
        reset: 4,
        stall: 3,
        slow: 3,
        forget: 2,
    }
    while True:
        (kind,) = rng.choices(list(kinds), list(kinds.values()))
        yield kind(chaos, rng)


def _victim(chaos: Chaos, rng: random.Random) -> psutil.Process:
    """Return a worker, more often than not the one that runs the job."""
    workers = until(chaos.workers, "a worker to be there")
    owner = chaos.owner_pid()
    mine = [worker for worker in workers if worker.pid == owner]
    return mine[0] if mine and rng.random() < 0.7 else rng.choice(workers)


def kill(chaos: Chaos, rng: random.Random) -> str:
    """End a worker at once."""
    victim = _victim(chaos, rng)
    chaos.killed.add(victim.pid)
    with contextlib.suppress(psutil.NoSuchProcess):  # one that was just being replaced
        victim.kill()
    return f"killed {victim.pid}"


def suspend(chaos: Chaos, rng: random.Random) -> str:
    """Let a worker sleep, often for longer than it may; then it wakes."""
    victim = _victim(chaos, rng)
    seconds = rng.uniform(0.2, 4.0)
    with contextlib.suppress(psutil.NoSuchProcess):  # it was replaced, or has just ended
        victim.suspend()
        pause(seconds)
        chaos.look_at_disk()
        victim.resume()
    return f"suspended {victim.pid} for {seconds:.1f} s"


def reload(chaos: Chaos, _rng: random.Random) -> str:
    """Have all workers replaced."""
    chaos.site.server.send(signal.SIGHUP)
    return "reloaded"


def recycle(chaos: Chaos, rng: random.Random) -> str:
    """Ask one worker for so much that it is replaced."""
    pid = _victim(chaos, rng).pid
    for _ in range(MAX_REQUESTS * 2):  # each worker has a random limit of its own
        try:
            chaos.site.workers.ask(pid, "GET", "/api/worker")
        except (Moved, AnswerLost, NotReached, KeyError):
            break
    return f"recycled {pid}"


def forget(chaos: Chaos, rng: random.Random) -> str:
    """Empty the cache in which the progress is shown."""
    with contextlib.suppress(Moved, AnswerLost, NotReached):  # it has been emptied or not
        answer = chaos.site.workers.ask(_victim(chaos, rng).pid, "DELETE", "/api/cache/default")
        assert answer.status == 200, answer.body
    return "forgot"


def replace(chaos: Chaos, rng: random.Random) -> str:
    """Put another object in the place of one."""
    name = rng.choice(chaos.names)
    thing = chaos.site.origin.things[name]
    number = len(chaos.versions[name])
    new = _version(rng, name, number, len(chaos.versions[name][-1].body) + rng.randint(-99, 99))
    chaos.versions[name].append(new)
    thing.versions = [new]
    return f"replaced {name}"


def refuse(chaos: Chaos, rng: random.Random) -> str:
    """Have the origin answer with errors for some objects, once or twice."""
    for name in rng.sample(chaos.names, 30):
        thing = chaos.site.origin.things[name]
        wanted = [rng.choice(["503 Busy", "500 Oops", "502 Bad"]) for _ in range(rng.randint(1, 2))]
        thing.refusals = [""] * len(thing.asked) + wanted
    return "refused 30"


def cut(chaos: Chaos, rng: random.Random) -> str:
    """Have the origin close connections in the middle of some objects."""
    return _break(chaos, rng, "cut", 30)


def reset(chaos: Chaos, rng: random.Random) -> str:
    """Have the origin reset connections in the middle of some objects."""
    return _break(chaos, rng, "reset", 30)


def stall(chaos: Chaos, rng: random.Random) -> str:
    """Have the origin fall silent in the middle of some objects."""
    return _break(chaos, rng, "stalled", 10)


def _break(chaos: Chaos, rng: random.Random, kind: str, count: int) -> str:
    for name in rng.sample(chaos.names, count):
        thing = chaos.site.origin.things[name]
        thing.reset, thing.hang = kind == "reset", kind == "stalled"
        thing.cuts = [*thing.cuts, *[None] * (len(thing.asked) - len(thing.cuts))]
        thing.cuts.append(rng.randint(0, 300_000))
    return f"{kind} {count}"


def slow(chaos: Chaos, rng: random.Random) -> str:
    """Give some objects a slow link, at most 20 times as slow as before."""
    for name in rng.sample(chaos.names, 20):
        chaos.site.origin.things[name].takes_s = rng.uniform(3.0, 10.0)
    return "slowed 20"
