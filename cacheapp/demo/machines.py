"""Two machines on one Redis, each with a copy of its own: what each reads after one of them has written.

A machine is a `NearCache` with a directory of its own below `STATE_DIR`, shared by all workers. It is made
from the first RedisCache of `CACHES` that a NearCache can copy, with keys of its own.
"""

import dataclasses
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.utils.module_loading import import_string

from cacheapp import backends, clock
from cacheapp.conf import state_dir
from cacheapp.demo.namespace import aliases
from cacheapp.demo.page_record import locked, read_record, write_json
from cacheapp.processes.waiting import pause
from cacheapp.typed_values import read_dataclass

if TYPE_CHECKING:
    from cacheapp.backends import NearCache

NAMES = ("A", "B")
BOUND_S = 1.0
_KEY = "_machines-value"
_KEPT_S = 3600
_SIZE_LIMIT = 4 * 2**20
_SERVED_WITHIN_S = 3.0
_FILE = "machines.json"


@dataclass(frozen=True)
class Propagation:
    """How a write reached one machine.

    `from_copy`: whether its copy had the old value, and served it. `old_reads`: how often it read the
    old value after the write was acknowledged. `delay_ms`: from the acknowledgement to the first read
    of the new value, or `None`.
    """

    machine: str
    before: str | None
    from_copy: bool
    old_reads: int
    delay_ms: float | None


@dataclass(frozen=True)
class ObservedWrite:
    """A write on one machine, and how it reached both."""

    at_s: float
    writer: str
    value: str
    propagations: tuple[Propagation, ...]


@dataclass(frozen=True)
class Machine:
    """A machine now: what it reads, whether from its copy, and which process listens for it."""

    name: str
    value: str | None
    from_copy: bool
    listener_pid: int
    epoch: int
    confirmation_us: int


@dataclass(frozen=True)
class Snapshot:
    """What both machines read now, and what Redis has."""

    machines: tuple[Machine, ...]
    in_redis: str | None


def source() -> str | None:
    """Return the alias whose server the machines use; `None` if a NearCache can copy no alias."""
    for alias in aliases() if find_spec("redis") else ():
        try:
            kind = import_string(str(settings.CACHES[alias]["BACKEND"]))
        except ImportError:
            continue
        if issubclass(kind, backends.RedisCache) and not _mistakes(alias):
            return alias
    return None


def _mistakes(alias: str) -> list[str]:
    """Return why a NearCache cannot copy the alias."""
    location, params = _entry_of(alias, NAMES[0])
    return backends.NearCache.mistakes(location, params)


def _entry_of(alias: str, name: str) -> tuple[Any, dict[str, Any]]:
    """Return the location and the parameters of one machine."""
    entry: Mapping[str, Any] = settings.CACHES[alias]
    options = {
        **entry.get("OPTIONS", {}),
        "copy": str(state_dir() / f"machine-{name.lower()}"),
        "size_limit": _SIZE_LIMIT,
        "max_staleness": BOUND_S,
    }
    prefix = f"{entry.get('KEY_PREFIX', '')}-machines"
    return entry.get("LOCATION", ""), {"KEY_PREFIX": prefix, "OPTIONS": options}


def caches_of(alias: str) -> "dict[str, NearCache]":
    """Return the machines, by name."""
    return {name: backends.NearCache(*_entry_of(alias, name)) for name in NAMES}


def _read(cache: "NearCache") -> tuple[str | None, bool]:
    """Return the value, and whether the copy has served it."""
    before = cache.stats()["copy_hits"]
    value: str | None = cache.get(_KEY)
    return value, cache.stats()["copy_hits"] > before


def read(alias: str) -> Snapshot:
    """Return what both machines read now."""
    caches = caches_of(alias)
    found = []
    for name, cache in caches.items():
        value, from_copy = _read(cache)
        stats = cache.stats()
        figures = (stats[f"copy_{each}"] for each in ("listener_pid", "epoch", "confirmation_us"))
        found.append(Machine(name, value, from_copy, *figures))
    return Snapshot(tuple(found), caches[NAMES[0]].get(_KEY, fresh=True))


def last_write() -> ObservedWrite | None:
    """Return the last write, which any worker observed; `None` before one. Raises `RecordDamaged`."""
    return read_record(_FILE, _parse)


def write(alias: str, writer: str) -> None:
    """Write on one machine, and read on both until they have the value; keep that for all workers."""
    caches = caches_of(alias)
    with locked("machines", changing=True) as directory:
        before = {name: _until_served(cache) for name, cache in caches.items()}
        value = secrets.token_hex(3)
        caches[writer].set(_KEY, value, _KEPT_S)
        old_reads, delays_ms = _follow(caches, value)
        propagations = tuple(
            Propagation(name, *before[name], old_reads[name], delays_ms.get(name)) for name in NAMES
        )
        observed = ObservedWrite(clock.wall_s(), writer, value, propagations)
        write_json(directory / _FILE, dataclasses.asdict(observed))


def _follow(
    caches: Mapping[str, "NearCache"], value: str
) -> tuple[dict[str, int], dict[str, float]]:
    """Read on all machines until they have the value; return each one's old reads, and its delay.

    The last round begins after the bound, also if this process was suspended meanwhile.
    """
    began_s = round_s = clock.monotonic_s()
    old_reads = dict.fromkeys(NAMES, 0)
    delays_ms: dict[str, float] = {}
    while len(delays_ms) < len(NAMES) and round_s < began_s + 2 * BOUND_S:
        round_s = clock.monotonic_s()
        for name in NAMES:
            if name in delays_ms:
                continue
            read_s = clock.monotonic_s()  # before the read: the promise counts from its begin
            if caches[name].get(_KEY) == value:
                delays_ms[name] = (read_s - began_s) * 1000
            else:
                old_reads[name] += 1
    return old_reads, delays_ms


def _until_served(cache: "NearCache") -> tuple[str | None, bool]:
    """Read until the copy serves, as it does when a listener has connected."""
    ends_s = clock.monotonic_s() + _SERVED_WITHIN_S
    while True:
        value, from_copy = _read(cache)
        if from_copy or clock.monotonic_s() > ends_s:
            return value, from_copy
        pause(0.01)


def _parse(raw: Any) -> ObservedWrite:
    propagations = tuple(read_dataclass(Propagation, each) for each in raw["propagations"])
    return read_dataclass(ObservedWrite, {**raw, "propagations": propagations})
