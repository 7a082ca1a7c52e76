"""What is wanted of NearCache: the measures by name, and the goals. Pure."""

from benchmarks.backends.near_cache.peers import LMDB, NEAR, REDIS, STOCK
from benchmarks.backends.shared_cache.goals import Goal

FAR = ", 1 ms away"
PAGE = "page, requests/s" + FAR
PAGE_APART = "page, other keys set" + FAR
MEMORY = "memory of the workers, MiB"
ONE_COPY = "the values alone"
LAG_IDLE, LAG_BUSY = "lag, ms", "lag, ms, 5,000 writes/s"
P99 = ", p99"
LISTENER, LISTENER_COPIED = (
    "listener, 10,000 writes/s",
    "listener, of copied keys",
)

GOALS = (
    Goal("get", 1 / 15, REDIS),
    Goal("get", 1 / 15, STOCK),
    Goal("get", 1.4, LMDB),
    Goal("get" + FAR, 1 / 300, STOCK),
    Goal("get, first", 1.5, REDIS),
    Goal("set", 1.3, REDIS),
    Goal(PAGE, 8, STOCK, at_least=True),
    Goal(PAGE_APART, 8, STOCK, at_least=True),
    Goal(MEMORY, 1.5, ONE_COPY),
    Goal(LAG_IDLE + P99, 20, unit=" ms"),
    Goal(LAG_BUSY + P99, 20, unit=" ms"),
    Goal(LISTENER, 0.5, unit=" cores"),
    Goal(LISTENER_COPIED, 0.5, unit=" cores"),
)
OURS = NEAR
