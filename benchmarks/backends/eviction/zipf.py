"""Requests for keys whose popularity falls with a power of their rank, as on the web."""

import itertools
import random
from collections.abc import Iterator

_BATCH = 10_000


def requests(alpha: float, keys: int, count: int, seed: int) -> Iterator[int]:
    """Yield so many keys of `range(keys)`: rank r with a weight of 1 / (r + 1) ** alpha.

    The same arguments give the same requests. Source: Breslau et al., "Web caching and Zipf-like
    distributions" (INFOCOM 1999), who found an alpha of 0.64 to 0.83.
    """
    draw = random.Random(seed)
    weights = list(itertools.accumulate((rank + 1) ** -alpha for rank in range(keys)))
    ranks = range(keys)
    for at in range(0, count, _BATCH):
        yield from draw.choices(ranks, cum_weights=weights, k=min(_BATCH, count - at))
