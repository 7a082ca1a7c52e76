import socket
import threading
from typing import Any

import django_redis.cache
import pytest

from cacheapp.backends import RedisCache
from cacheapp.errors import ClearRefused
from cacheapp.processes.servers import RedisServer
from tests.contract.backends import PATIENT
from tests.integration.backends.redis.parts import ours, raw, sent

_POPULATE = "for i = 1, 100000 do redis.call('SET', ARGV[1] .. i, i) end"


def reversed_key(key: str, prefix: str, version: int) -> str:
    return f"{key}:{version}:{prefix}"


def put(server: RedisServer, *keys: str) -> None:
    with raw(server) as client:
        for key in keys:
            client.set(key, "theirs")


def there(server: RedisServer) -> set[str]:
    with raw(server) as client:
        return {key.decode() for key in client.keys("*")}


@pytest.mark.parametrize("prefix", ["app", "a*p", "a[p]p", "a?p", "a\\p", "a^p", "a:b", "ключ"])
def test_clear_removes_the_own_keys_of_all_versions_and_nothing_else(
    own_redis: RedisServer, prefix: str
) -> None:
    cache = ours(own_redis.url, prefix)
    theirs = {
        "app2:1:key", "axp:1:key", "app:x:key", "app:1", "app::key", "app:1.5:key", "xapp:1:key",
        "aXp:1:key", "session:1:key", ":1:key", f"{prefix}:word:key", f"{prefix}:-:key", "b:1:key",
    }  # fmt: skip
    put(own_redis, *theirs)
    for version in (1, 2, -3, 10**20):
        cache.set("key", "ours", version=version)
        cache.set("more:1:key", "ours", version=version)
    assert len(there(own_redis)) == len(theirs) + 8
    cache.clear()
    assert there(own_redis) == theirs


def test_clear_with_the_empty_prefix_removes_what_has_that_form(own_redis: RedisServer) -> None:
    cache = ours(own_redis.url, "")
    put(own_redis, "app:1:key", "key", ":x:key")
    cache.set("key", "ours")
    cache.set("key", "ours", version=2)
    cache.clear()
    assert there(own_redis) == {"app:1:key", "key", ":x:key"}


def test_stock_clear_removes_other_applications_keys(own_redis: RedisServer) -> None:
    put(own_redis, "theirs")
    django_redis.cache.RedisCache(own_redis.url, {"KEY_PREFIX": "app"}).clear()
    assert there(own_redis) == set()


def test_a_hundred_thousand_keys_are_removed_in_batches(own_redis: RedisServer) -> None:
    cache = ours(own_redis.url)
    put(own_redis, "theirs")
    with raw(own_redis) as client:
        client.eval(_POPULATE, 0, cache.make_key("key"))
        assert client.dbsize() == 100_001
    cache.delete("key")  # loads the script
    commands = sent(own_redis, cache.clear)
    assert set(commands) == {"SCAN", "EVALSHA"}
    assert len(commands) < 300
    assert there(own_redis) == {"theirs"}


def with_key_function(server: RedisServer, **options: Any) -> RedisCache:
    patient = {**PATIENT, **options}
    return RedisCache(server.url, {"KEY_FUNCTION": reversed_key, "OPTIONS": patient})


def test_clear_refuses_where_a_key_function_hides_the_prefix(own_redis: RedisServer) -> None:
    cache = with_key_function(own_redis)
    cache.set("key", "value")
    for work in (cache.clear, lambda: cache.delete_pattern("*"), lambda: cache.keys("*")):
        with pytest.raises(ClearRefused, match="KEY_FUNCTION"):
            work()
    assert cache.get("key") == "value"


@pytest.mark.parametrize("prefix", ["app", None], ids=["default keys", "a key function"])
def test_an_alias_that_owns_the_database_empties_it(
    own_redis: RedisServer, prefix: str | None
) -> None:
    put(own_redis, "anything")
    cache = (
        with_key_function(own_redis, owns_database=True)
        if prefix is None
        else ours(own_redis.url, prefix, owns_database=True)
    )
    cache.set("key", "value")
    assert sent(own_redis, cache.clear) == ["FLUSHDB"]
    assert there(own_redis) == set()


def test_delete_pattern_removes_what_matches_in_one_version(own_redis: RedisServer) -> None:
    cache = ours(own_redis.url, "a*[p]")
    put(own_redis, "axp:1:user-1", "a*[p]:2:user-1")
    cache.set_many({"user-1": 1, "user-2": 2, "other": 3, "us*r": 4})
    assert cache.delete_pattern("user-*") == 2
    assert cache.delete_pattern("us\\*r") == 1
    assert cache.delete_pattern("nothing*") == 0
    assert there(own_redis) == {"axp:1:user-1", "a*[p]:2:user-1", "a*[p]:1:other"}


def repeat_keys(listener: socket.socket) -> None:
    """Reply to SCAN as a Redis whose table shrinks during the scan: with some keys twice.

    Asked which of some keys are visible, say that all are.
    """
    answers = [
        b"*2\r\n$1\r\n7\r\n*2\r\n$5\r\np:1:a\r\n$5\r\np:1:b\r\n",
        b"*2\r\n$1\r\n3\r\n*0\r\n",
        b"*2\r\n$1\r\n0\r\n*3\r\n$5\r\np:1:b\r\n$5\r\np:1:c\r\n$5\r\np:1:c\r\n",
    ]
    client, _ = listener.accept()
    with client:
        while request := client.recv(65536):
            if b"SCAN" in request:
                client.sendall(answers.pop(0))
            elif b"EVALSHA" in request:
                numbers = range(1, request.count(b"p:1:") + 1)
                client.sendall(
                    b"*%d\r\n" % len(numbers) + b"".join(b":%d\r\n" % n for n in numbers)
                )
            else:
                client.sendall(b"+OK\r\n")


def test_every_key_is_listed_once_though_redis_may_repeat_some() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        redis = threading.Thread(target=repeat_keys, args=(listener,), daemon=True)
        redis.start()
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}/0?protocol=2"
        cache = ours(url, "p")
        found = cache.keys("*")
        cache._store.close()  # noqa: SLF001
        redis.join()
        assert found == ["a", "b", "c"]
