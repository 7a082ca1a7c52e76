"""What `stats()` says of a DiskCache's directory, from any process."""

import os
from pathlib import Path
from typing import Any

import pytest
from pytest_django.fixtures import Settings

from cacheapp.backends.disk.shard import Shard
from cacheapp.errors import StoreFull
from tests.integration.backends.disk.parts import LARGE, forked, ours

MIB = 2**20
SETS = 120  # by each process


def _set_more_than_fits(cache: Any, size: int) -> None:
    """Set keys that no other process sets, of which every third expires at once."""
    for n in range(SETS):
        cache.set(f"{os.getpid()}-{n}", bytes(size), timeout=None if n % 3 else 0.001)


def _stats(cache: Any) -> dict[str, int]:
    found: dict[str, int] = cache.stats()
    return found


@pytest.mark.parametrize("size", [5_000, LARGE], ids=["rows", "files"])
def test_each_process_counts_all_that_was_evicted_or_had_expired(
    settings: Settings, tmp_path: Path, size: int
) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, "STATE_DIR": tmp_path / "state"}
    cache = ours(settings, tmp_path / "cache", size_limit=2 * MIB, shards=2)
    clients = forked(settings)
    clients.run(_set_more_than_fits, size, processes=4)
    first, second = clients.run(_stats, processes=2)
    assert first == second == cache.stats()
    assert first["sets"] == 4 * SETS
    assert first["sets"] == first["entries"] + first["evictions"] + first["expirations"]
    assert first["evictions"] > SETS / 4
    assert first["expirations"] > SETS / 3
    limit = first["bytes_limit"]
    # The last eviction of a shard may have removed ten of its eighteen large values.
    assert 0.4 * limit < first["bytes_used"] <= limit < 2 * MIB
    assert first["bytes_free"] == limit - first["bytes_used"]
    cache.clear()
    emptied = cache.stats()
    assert (emptied["entries"], emptied["evictions"]) == (0, first["evictions"])
    assert emptied["bytes_used"] < 0.1 * limit


def test_what_a_transaction_did_not_commit_is_not_counted(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ours(settings, tmp_path, size_limit=MIB // 2, shards=1)
    for n in range(200):
        cache.set(f"key-{n}", bytes(5_000), timeout=None)
    before = cache.stats()
    assert before["evictions"] > 50
    cull = Shard._cull  # noqa: SLF001 (diskcache's)

    def cull_and_fail(*args: Any) -> None:
        cull(*args)
        raise StoreFull("after the entries were removed")

    monkeypatch.setattr(Shard, "_cull", cull_and_fail)
    with pytest.raises(StoreFull, match="after the entries"):
        cache.set("key", bytes(5_000))
    monkeypatch.undo()
    assert cache.stats() == before
