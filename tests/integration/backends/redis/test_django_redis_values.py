"""django-redis, Django's RedisCache and this one on one server: nobody loses or breaks a value."""

import contextlib
import copyreg
import datetime as dt
import os
import pickle
import zlib
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import django_redis.cache
import pytest
from django.contrib.sessions.backends.cache import SessionStore
from django.core.cache.backends.redis import RedisCache as DjangosCache
from pytest_django.fixtures import Settings

from cacheapp.backends import NearCache, RedisCache
from cacheapp.processes.servers import RedisServer
from tests.contract.backends import PATIENT
from tests.integration.backends.redis.parts import raw

PREFIX = {"KEY_PREFIX": "site"}
ZLIB = {"COMPRESSOR": "django_redis.compressors.zlib.ZlibCompressor"}
PLAIN: dict[str, Any] = {
    "text": "a" * 200,
    "small": "a",
    "none": None,
    "true": True,
    "number": -3,
    "float": 1.5,
    "bytes": bytes(range(256)),
    "no_bytes": b"",
    "session": {"_auth_user_id": "1", "_auth_user_hash": "f" * 64, "when": dt.datetime(2026, 1, 1)},  # noqa: DTZ001
    "nested": [{"set": {1, 2}, "frozen": frozenset("a"), "sum": Decimal("1.10")}, (1, 2j)],
}


class Gone:
    """A class of the application."""


OLD: dict[str, Callable[[str], Any]] = {
    "django-redis": lambda url: django_redis.cache.RedisCache(url, {**PREFIX}),
    "django-redis-zlib": lambda url: django_redis.cache.RedisCache(
        url, {**PREFIX, "OPTIONS": ZLIB}
    ),
    "django-redis-protocol-2": lambda url: django_redis.cache.RedisCache(
        url, {**PREFIX, "OPTIONS": {"PICKLE_VERSION": 2}}
    ),
    "django": lambda url: DjangosCache(url, {**PREFIX}),
}


@pytest.fixture(params=OLD)
def old(request: pytest.FixtureRequest, own_redis: RedisServer) -> Any:
    """A cache of the release that is replaced."""
    return OLD[request.param](own_redis.url)


def new(server: RedisServer, **options: Any) -> RedisCache:
    """Return the cache of the release that replaces it."""
    return RedisCache(server.url, {**PREFIX, "OPTIONS": {**PATIENT, **options}})


READS: dict[str, Callable[[RedisCache], Any]] = {
    "get": lambda cache: cache.get("key"),
    "get_many": lambda cache: cache.get_many(["key"]).get("key"),
    "incr": lambda cache: _raises_value_error(lambda: cache.incr("key")),
    "incr_version": lambda cache: _raises_value_error(lambda: cache.incr_version("key")),
}


def _raises_value_error(call: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match="not found"):
        call()


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
def test_values_of_the_old_release_are_misses_that_stay(
    old: Any, own_redis: RedisServer, read: str, *, signed: bool
) -> None:
    old.set("key", PLAIN["session"], None)
    cache = new(own_redis, signed=signed)
    assert READS[read](cache) is None
    assert old.get("key") == PLAIN["session"]
    assert cache.get_or_set("key", "computed") == "computed"
    assert cache.get("key") == "computed"


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
def test_both_releases_read_each_others_plain_values(
    old: Any, own_redis: RedisServer, *, signed: bool
) -> None:
    cache = new(own_redis, reads_django_redis=True, signed=signed)
    old.set_many(PLAIN, None)
    assert cache.get_many(PLAIN) == PLAIN
    cache.clear()
    cache.set_many(PLAIN, None)
    assert old.get_many(PLAIN) == PLAIN
    assert cache.get_many(PLAIN) == PLAIN
    assert cache.incr("number") == -2
    assert old.incr("number") == -1
    assert cache.get("number") == -1


def test_a_value_of_both_forms_is_read_after_the_change_too(own_redis: RedisServer) -> None:
    during, after = new(own_redis, reads_django_redis=True), new(own_redis)
    during.set("key", Gone(), None)
    assert isinstance(after.get("key"), Gone)  # it is signed
    after.set("key", "value")
    assert during.get("key") == "value"
    during.set("key", 1.5)
    assert after.incr("key") == 2.5
    assert during.incr_version("key") == 2
    assert after.get("key", version=2) == 2.5


def test_a_session_is_the_same_in_both_releases(
    old: Any, own_redis: RedisServer, settings: Settings
) -> None:
    def store(cache: Any, key: str | None = None) -> SessionStore:
        session = SessionStore(key)
        session._cache = cache  # type: ignore[attr-defined]  # noqa: SLF001
        return session

    cache = new(own_redis, reads_django_redis=True)
    begun = store(old)
    begun["user"] = 1
    begun.save()
    continued = store(cache, begun.session_key)
    assert continued["user"] == 1
    continued["basket"] = ["book"]
    continued.save()
    assert dict(store(old, begun.session_key).items()) == {"user": 1, "basket": ["book"]}
    assert dict(store(new(own_redis), begun.session_key).items()) == {"user": 1, "basket": ["book"]}


class Bomb:
    """Makes a directory when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


def _forgeries(target: Path) -> dict[str, bytes]:
    bomb = pickle.dumps(["plain", Bomb(target)])
    return {
        "a pickle": bomb,
        "a compressed pickle": zlib.compress(bomb),
        "a pickle with an empty signature behind it": bomb + b"\xa4" + bytes(16),
        "a pickle with the header of unsigned values behind it": bomb + b"\xa0",
        "a class of the application": pickle.dumps(Gone()),
        "no pickle": b"\x80\x05nonsense",
        "not compressed": b"x\x9cnonsense",
        "nothing but the first byte": b"\x80",
    }


@pytest.mark.parametrize("reads", [True, False], ids=["during-the-change", "otherwise"])
def test_an_unsigned_pickle_never_runs_where_values_are_signed_and_it_stays(
    own_redis: RedisServer, tmp_path: Path, *, reads: bool
) -> None:
    target = tmp_path / "it ran"
    cache = new(own_redis, reads_django_redis=reads)
    with raw(own_redis) as client:
        for name, payload in _forgeries(target).items():
            client.set("site:1:key", payload)
            assert cache.get("key", "missing") == "missing", name
            assert client.get("site:1:key") == payload, name
    assert not target.exists()


def test_a_class_that_a_pickle_names_by_number_is_refused(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    copyreg.add_extension("os", "mkdir", 240)
    try:
        named = b"\x80\x04\x82\xf0X\x01\x00\x00\x00a\x85R."  # EXT1 240, with the argument "a"
        target = str(tmp_path / "it ran")
        pickle.loads(pickle.dumps(0))
        payload = named.replace(
            b"X\x01\x00\x00\x00a", b"X" + len(target).to_bytes(4, "little") + target.encode()
        )
        pickle.loads(payload)  # now the number is in the cache of extensions
        Path(target).rmdir()
        with raw(own_redis) as client:
            client.set("site:1:key", payload)
        assert new(own_redis, reads_django_redis=True).get("key", "missing") == "missing"
        assert not Path(target).exists()
    finally:
        copyreg.remove_extension("os", "mkdir", 240)


def _harmful() -> dict[str, bytes]:
    deep = b"\x80\x04}" + b")" + b"\x85" * 1_000_000 + b"Ns."
    doubled = b"".join(b"q%ch%c\x86" % (it, it) for it in range(60))
    numbered = b"".join(b"\x94h%c\x86" % it for it in range(60))
    many = b"\x80\x04](" + b")" * 190_000 + b"e."
    numbers = b"".join(b"J" + number.to_bytes(4, "little") for number in range(80_000))
    again = b"h\x01h\x00\x85R" * 4_000  # a set of the same 80,000 numbers
    texts = b"\x80\x02X" + (900_000).to_bytes(4, "little") + b"a" * 900_000 + b"q\x00"
    encoded = b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R" * 3_000
    return {
        "tuples in a key": deep,
        "tuples in a compressed key": zlib.compress(deep),
        "a number of the memo that is large": b"\x80\x04Nr\xff\xff\xff\x7f.",
        "a compressed value that is large": zlib.compress(pickle.dumps("a" * 50_000_000)),
        "one that is large": pickle.dumps("a" * 2**20),
        "tuples of the one before twice": b"\x80\x04})" + doubled + b"Ns.",
        "the same, filled with nothing": b"\x80\x04})" + doubled.replace(b"q", b"(eq") + b"Ns.",
        "the same, by its number alone": b"\x80\x04})" + numbered + b"Ns.",
        "a state": b"\x80\x04)NNb.",
        "sets of one list": b"\x80\x04(]("
        + numbers
        + b"e\x94c__builtin__\nset\n\x94"
        + again
        + b"l.",
        "bytes of one text": texts + b"(" + encoded + b"l.",
        "all of these": many[:-1] + b"r\xff\xff\xff\x7f.",
    }


def test_an_unsigned_pickle_cannot_exhaust_stack_or_memory(own_redis: RedisServer) -> None:
    cache = new(own_redis, reads_django_redis=True)
    with raw(own_redis) as client:
        for name, payload in _harmful().items():
            client.set("site:1:key", payload)
            assert cache.get("key", "missing") == "missing", name
            assert client.get("site:1:key") == payload, name
    plain: dict[Any, Any] = {("a", i): [i, {"b": (i, str(i))}] for i in range(2_000)}
    django_redis.cache.RedisCache(own_redis.url, {**PREFIX}).set("key", plain)
    assert cache.get("key") == plain


def test_a_frame_cannot_hide_parts_of_an_unsigned_pickle(own_redis: RedisServer) -> None:
    framed = b"\x80\x04\x95" + (2).to_bytes(8, "little") + b"B\x00"  # it ends within a length
    text = b"\x00" + b" " * 80 + b"})" + b"\x85" * 20_394 + b"Ns."
    payload = framed + b"\x50\x00\x00" + text + b"."
    with contextlib.suppress(pickle.UnpicklingError):  # late releases of Python refuse such a frame
        assert type(pickle.loads(payload)) is bytes
    with raw(own_redis) as client:
        client.set("site:1:key", payload)
    assert new(own_redis, reads_django_redis=True).get("key") == text


def test_where_signing_is_off_every_class_is_read(own_redis: RedisServer) -> None:
    django_redis.cache.RedisCache(own_redis.url, {**PREFIX}).set("key", Gone())
    assert isinstance(new(own_redis, signed=False, reads_django_redis=True).get("key"), Gone)


def test_members_of_collections_have_one_form(own_redis: RedisServer) -> None:
    during, after = new(own_redis, reads_django_redis=True), new(own_redis)
    during.sadd("set", "member")  # type: ignore[attr-defined]
    assert after.sismember("set", "member")  # type: ignore[attr-defined]
    assert after.smembers("set") == {"member"}  # type: ignore[attr-defined]


def test_a_near_cache_copies_values_of_both_releases(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    options = {"copy": str(tmp_path / "copy"), "reads_django_redis": True, **PATIENT}
    cache = NearCache(own_redis.url, {**PREFIX, "OPTIONS": options})
    theirs = django_redis.cache.RedisCache(own_redis.url, {**PREFIX})
    theirs.set("theirs", {"a": 1}, None)
    cache.set("ours", {"b": 2}, None)
    for _ in range(2):
        assert cache.get_many(["theirs", "ours"]) == {"theirs": {"a": 1}, "ours": {"b": 2}}
        assert (cache.get("theirs"), cache.get("ours")) == ({"a": 1}, {"b": 2})
    assert theirs.get("ours") == {"b": 2}
