"""What a broken property means for a site, and how it is usually mended. One sentence each."""

import re
from dataclasses import dataclass
from pathlib import Path

from cacheapp.cachecheck.workloads import (
    abandoned,
    cluster_faults,
    counting,
    deadlines,
    faults,
    fills,
    locking,
    outages,
    registers,
    values,
    versions,
)
from cacheapp.cachecheck.workloads.bounded import BOUND, MACHINE

_REFERENCE = "docs/reference/cachecheck.md"
_HAS_DOCS = (Path(__file__).parents[2] / _REFERENCE).is_file()  # a wheel does not have them
_ASYNC = " (async)"
_STORE = "Use one store that all processes share."
_FOLLOW = "Follow the cluster's redirections, and repeat no write whose answer was lost."
_OWN = (
    "Use one store that all processes share, and a method that is one step there, not get and set."
)


@dataclass(frozen=True)
class Meaning:
    """`site`: what happens on a site whose cache breaks the property. `fix`: what usually mends it."""

    site: str
    fix: str


MEANINGS: dict[str, Meaning] = {
    registers.ORDER: Meaning(
        "A page shows an old value after another process has stored a new one.", _STORE
    ),
    registers.OWN: Meaning(
        "A user saves a form, and the next page shows what was there before.",
        "Write and read through the same store, without a replica or a copy in the process.",
    ),
    registers.FORWARD: Meaning(
        "A page shows the new value, and after a reload the old one.",
        "Read each key from one store, not from replicas in turn.",
    ),
    counting.SUMS: Meaning("A login limit of 5 admits more attempts than 5.", _OWN),
    counting.WINNER: Meaning(
        "A job that must run once runs several times, and a one-time token is spent twice.", _OWN
    ),
    fills.ONCE: Meaning(
        "When a popular entry expires, every worker runs its slow query at the same time.",
        "Use a get_or_set that lets one caller compute, or compute under a lock.",
    ),
    fills.FRESH: Meaning(
        "A page that was being rendered during an edit stays in the cache without the edit.",
        "Use a get_or_set whose write is refused if the key was deleted or set meanwhile.",
    ),
    deadlines.EXPIRY: Meaning(
        "A session or a token is accepted after it has expired.",
        "Compare the deadline at each read, at the store.",
    ),
    deadlines.TOUCH: Meaning(
        "A session ends although the user is active, or never.",
        "Use a backend whose touch changes the deadline of an existing key.",
    ),
    deadlines.KEPT: Meaning(
        "A rate limit that counts with incr never resets.",
        "Use a backend whose incr keeps the timeout, instead of setting the sum anew.",
    ),
    values.MANY: Meaning(
        "A page made of several entries shows some of them as they were before.", _STORE
    ),
    versions.MOVE: Meaning(
        "For a moment an entry is in both versions or in neither.",
        "Use a backend that moves an entry in one step.",
    ),
    values.WHOLE: Meaning(
        "A large page is cut off, or missing while it is being replaced.",
        "Write to a new place and rename, or in a transaction.",
    ),
    locking.EXCLUSIVE: Meaning("Two workers run what the lock should protect.", _STORE),
    locking.FENCED: Meaning(
        "A worker that was paused while its lock expired overwrites what its successor wrote.",
        "Give each holder a number that grows, and let the store refuse older ones.",
    ),
    faults.STOPPED: Meaning(
        "A worker that was paused (by a debugger, a snapshot, a swap) serves old values afterwards.",
        "Bound the age of local copies by a clock that also runs while the process is stopped.",
    ),
    faults.COLD: Meaning(
        "After a deployment the workers start with caches of their own, or fail at their first call.",
        _STORE,
    ),
    faults.KILLED: Meaning(
        "One worker that is killed, by the OOM killer for example, makes the others fail or wait.",
        "Use locks that end with their holder, and writes that are complete or absent.",
    ),
    abandoned.ABANDONED: Meaning(
        "A worker is killed while it renders a page, and the page hangs for everyone.",
        "Give the right to compute a time limit, or detect that its holder is dead.",
    ),
    faults.FORKED: Meaning(
        "Workers that are forked from a loaded application hang, or read each other's answers.",
        "Open connections after the fork, or detect it and reconnect.",
    ),
    faults.CLEARED: Meaning(
        "After a deployment has cleared the cache, pages of the old version appear.", _STORE
    ),
    outages.CUT: Meaning(
        "A write that the network lost counts as done.",
        "Raise an error for a write whose answer was lost.",
    ),
    outages.RESTARTED: Meaning(
        "After a restart of the server old values come back.",
        "Do not serve copies of a process once the server is reachable again.",
    ),
    cluster_faults.HANDOVER: Meaning(
        "While a cluster is updated node by node, writes are lost or done twice.", _FOLLOW
    ),
    cluster_faults.SLOTS_MOVE: Meaning(
        "While a cluster gets another node, entries are missing or old.", _FOLLOW
    ),
    cluster_faults.PRIMARY_KILLED: Meaning(
        "After the death of a primary, a write is done twice or an old node is still read.", _FOLLOW
    ),
    BOUND: Meaning(
        "A page shows what another machine has changed longer ago than the cache promises.",
        "Serve a copy only for a time that counts from before its freshness was confirmed.",
    ),
    MACHINE: Meaning(
        "A user saves a form, and another worker of the same machine shows what was there before.",
        "Remove a key from the machine's copy after each write, also if its reply was lost.",
    ),
}


def meaning(name: str) -> Meaning | None:
    """Return what a property means; the asynchronous one means the same."""
    return MEANINGS.get(name.removesuffix(_ASYNC))


def link(name: str) -> str:
    """Return where the documentation explains a property; empty if it is not installed."""
    if not _HAS_DOCS:
        return ""
    slug = re.sub(r"[^\w\- ]", "", name.removesuffix(_ASYNC).lower()).strip().replace(" ", "-")
    return f"{_REFERENCE}#{slug}"
