"""The listener's thread: started once, ended with its store, started again after any interruption."""

import threading
from pathlib import Path

import pytest

from cacheapp.backends import NearCache
from cacheapp.backends.near.copy import LocalCopy
from cacheapp.backends.near.records import NO_STATE
from cacheapp.processes.servers import RedisServer
from tests.integration.backends.interrupt_everywhere import finalised_everywhere, interrupt_at
from tests.integration.backends.near.parts import confirmed, ours


@pytest.fixture
def cache(redis_server: RedisServer, tmp_path: Path) -> NearCache:
    """A cache that nothing has read yet, with a prefix of its own."""
    return ours(redis_server, tmp_path, prefix=tmp_path.name)


def _claim_nothing(claims: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalCopy, "claim", lambda _copy, within_s: claims.append(within_s))


def test_an_exception_of_a_signal_handler_does_not_keep_it_from_starting(
    cache: NearCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims: list[float] = []
    _claim_nothing(claims, monkeypatch)
    listener = cache._store.invalidations  # noqa: SLF001
    for number in range(1, 1000):
        if not interrupt_at(number, lambda: listener.ensure(NO_STATE, 1.0)):
            break
        del claims[:]
        listener.ensure(NO_STATE, 1.0)
        assert len(claims) == 1, f"after an interruption before bytecode {number}"
    else:
        pytest.fail("the operation did not end")


def test_a_signal_handler_may_read_while_it_is_started(
    cache: NearCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims: list[float] = []
    _claim_nothing(claims, monkeypatch)
    listener = cache._store.invalidations  # noqa: SLF001

    def start() -> None:
        with finalised_everywhere(lambda: listener.ensure(NO_STATE, 1.0)):
            listener.ensure(NO_STATE, 1.0)

    thread = threading.Thread(target=start, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert claims


def test_it_ends_with_its_store_and_starts_again(
    cache: NearCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = LocalCopy.claim
    claims: list[bytes] = []

    def counted(self: LocalCopy, within_s: float) -> bytes | None:
        if (owner := claim(self, within_s)) is not None:
            claims.append(owner)
        return owner

    monkeypatch.setattr(LocalCopy, "claim", counted)
    listener = cache._store.invalidations  # noqa: SLF001
    for count in range(1, 4):
        confirmed(cache)
        assert len(claims) == count
        thread = listener._thread  # noqa: SLF001
        assert thread is not None
        cache._store.close()  # noqa: SLF001
        assert not thread.is_alive()
        assert listener._connection is None  # noqa: SLF001
        assert cache._copy.environment.current is None  # noqa: SLF001
        cache._store.close()  # noqa: SLF001 (without a thread)
