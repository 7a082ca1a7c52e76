"""Two machines on one Redis, each with a copy of its own: what each reads after one of them has written.

A machine is a `NearCache` with a directory of its own below `STATE_DIR`, shared by all workers. It is made
from the first alias of `CACHES` that is a RedisCache, with keys of its own.
"""

import dataclasses
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.utils.module_loading import import_string

from cacheapp import backends, clock
from cacheapp.conf import state_dir
from cacheapp.demo.namespace import aliases
from cacheapp.demo.page_record import locked, write_json
from cacheapp.processes.waiting import pause

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
class Turn:
    """What a machine read around a write.

    `from_copy`: whether its copy had the old value, and served it. `old_reads`: how often it read the
    old value after the write was acknowledged. `turned_ms`: when it first read the new one, or `None`.
    """

    machine: str
    before: str | None
    from_copy: bool
    old_reads: int
    turned_ms: float | None


@dataclass(frozen=True)
class Watch:
    """A write on one machine, and how both turned."""

    at_s: float
    writer: str
    value: str
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Machine:
    """A machine now: what it reads, whether from its copy, and who listens for it."""

    name: str
    value: str | None
    from_copy: bool
    listener_pid: int
    epoch: int
    confirmation_us: int


@dataclass(frozen=True)
class Sight:
    """Everything that the page shows."""

    machines: tuple[Machine, ...]
    in_redis: str | None
    last: Watch | None


def source() -> str | None:
    """Return the alias whose server the machines use; `None` if no alias is a RedisCache."""
    for alias in aliases() if find_spec("redis") else ():
        try:
            kind = import_string(str(settings.CACHES[alias]["BACKEND"]))
        except ImportError:
            continue
        if issubclass(kind, backends.RedisCache):
            return alias
    return None


def caches_of(alias: str) -> "dict[str, NearCache]":
    """Return the machines, by name."""
    entry: Mapping[str, Any] = settings.CACHES[alias]
    made = {}
    for name in NAMES:
        options = {
            **entry.get("OPTIONS", {}),
            "copy": str(state_dir() / f"machine-{name.lower()}"),
            "size_limit": _SIZE_LIMIT,
            "max_staleness": BOUND_S,
        }
        prefix = f"{entry.get('KEY_PREFIX', '')}-machines"
        made[name] = backends.NearCache(
            entry["LOCATION"], {"KEY_PREFIX": prefix, "OPTIONS": options}
        )
    return made


def _read(cache: "NearCache") -> tuple[str | None, bool]:
    """Return the value, and whether the copy has served it."""
    before = cache.stats()["copy_hits"]
    value: str | None = cache.get(_KEY)
    return value, cache.stats()["copy_hits"] > before


def look(alias: str) -> Sight:
    """Return what both machines read now."""
    caches = caches_of(alias)
    found = []
    for name, cache in caches.items():
        value, from_copy = _read(cache)
        stats = cache.stats()
        figures = (stats[f"copy_{each}"] for each in ("listener_pid", "epoch", "confirmation_us"))
        found.append(Machine(name, value, from_copy, *figures))
    in_redis: str | None = caches[NAMES[0]].get(_KEY, fresh=True)
    return Sight(tuple(found), in_redis, _last())


def write(alias: str, writer: str) -> None:
    """Write on one machine, and watch both until they have turned; keep that for all workers."""
    caches = caches_of(alias)
    with locked("machines", changing=True) as directory:
        before = {name: _until_served(cache) for name, cache in caches.items()}
        value = secrets.token_hex(3)
        caches[writer].set(_KEY, value, _KEPT_S)
        began_s = clock.monotonic_s()
        old_reads = dict.fromkeys(NAMES, 0)
        turned_ms: dict[str, float] = {}
        while len(turned_ms) < len(NAMES) and clock.monotonic_s() < began_s + 2 * BOUND_S:
            for name in NAMES:
                if name in turned_ms:
                    continue
                read_s = clock.monotonic_s()  # before the read: the promise counts from its begin
                if caches[name].get(_KEY) == value:
                    turned_ms[name] = (read_s - began_s) * 1000
                else:
                    old_reads[name] += 1
        turns = tuple(
            Turn(name, *before[name], old_reads[name], turned_ms.get(name)) for name in NAMES
        )
        watch = Watch(clock.wall_s(), writer, value, turns)
        write_json(directory / _FILE, dataclasses.asdict(watch))


def _until_served(cache: "NearCache") -> tuple[str | None, bool]:
    """Read until the copy serves, as it does when a listener has connected."""
    ends_s = clock.monotonic_s() + _SERVED_WITHIN_S
    while True:
        value, from_copy = _read(cache)
        if from_copy or clock.monotonic_s() > ends_s:
            return value, from_copy
        pause(0.01)


def _last() -> Watch | None:
    path: Path = state_dir() / _FILE
    try:
        found = json.loads(path.read_text())
        turns = tuple(Turn(**each) for each in found.pop("turns"))
        return Watch(**found, turns=turns)
    except (OSError, ValueError, TypeError, KeyError):
        return None
