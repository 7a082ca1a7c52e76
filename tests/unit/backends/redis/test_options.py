import re
from typing import Any

import pytest

from cacheapp.backends import RedisCache
from cacheapp.backends.redis.on_error import ErrorPolicy, read_error_policy
from cacheapp.backends.redis.options import redacted
from cacheapp.errors import OptionsRefused

URL = "redis://127.0.0.1:6379/0"
SECRET = "s3cr3t"  # noqa: S105


def refused(location: Any = URL, **options: Any) -> str:
    cache = RedisCache(location, {"OPTIONS": options})
    with pytest.raises(OptionsRefused) as caught:
        cache.get("key")
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"SERIALIZER": "a.b"}, "expected serializer: 'pickle'"),
        ({"COMPRESSOR": "a.b"}, "expected compress_min_bytes"),
        ({"IGNORE_EXCEPTIONS": True}, "expected on_error"),
        ({"CLOSE_CONNECTION": True}, "connections are kept"),
        ({"REPLICA_READ_ONLY": True}, "only the primary"),
        ({"no_such": 1}, "OPTIONS['no_such'] is not an option"),
        ({"signed": "yes"}, "True or False"),
        ({"max_connections": 0}, "at least 1"),
        ({"pool_timeout": 0}, "seconds above 0"),
        ({"SOCKET_TIMEOUT": None}, "seconds above 0"),
        ({"CLIENT_CLASS": "django_redis.client.SentinelClient"}, "OPTIONS['SENTINELS'] is missing"),
        (
            {"CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory"},
            "OPTIONS['SENTINELS'] is missing",
        ),
        (
            {
                "SENTINELS": [("127.0.0.1", 26379)],
                "CLIENT_CLASS": "django_redis.client.SentinelClient",
                "CONNECTION_FACTORY": "django_redis.pool.ConnectionFactory",
            },
            "django-redis refuses the options of connections",
        ),
        (
            {
                "SENTINELS": [("127.0.0.1", 26379)],
                "CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory",
                "CONNECTION_POOL_KWARGS": {"no_such": 1},
            },
            "redis-py's connections have no argument 'no_such'",
        ),
        (
            {"health_check_interval": 30},
            "OPTIONS['CONNECTION_POOL_KWARGS']['health_check_interval']",
        ),
        ({"ssl_cert_reqs": None}, "OPTIONS['CONNECTION_POOL_KWARGS']['ssl_cert_reqs']"),
        ({"retry_on_timeout": True}, "may have run"),
        ({"host": "cache.internal"}, "LOCATION, a URL"),
        ({"CLIENT_CLASS": "django_redis.client.HerdClient"}, "DefaultClient, SentinelClient"),
        ({"CLIENT_CLASS": "django_redis.client.ShardClient"}, "DefaultClient, SentinelClient"),
        ({"CLIENT_CLASS": "no.such.Client"}, "DefaultClient, SentinelClient"),
        ({"CONNECTION_POOL_CLASS": "redis.Redis"}, "ConnectionPool"),
        ({"CONNECTION_POOL_KWARGS": {"cache_config": "x"}}, "client-side caching"),
        ({"REDIS_CLIENT_KWARGS": {"cache_config": "x"}}, "client-side caching"),
        ({"CONNECTION_POOL_KWARGS": {"retry_on_timeout": True}}, "may have run"),
        ({"CONNECTION_POOL_KWARGS": {"max_connections": 9}}, "OPTIONS['max_connections']"),
        ({"CONNECTION_POOL_KWARGS": {"timeout": 9}}, "OPTIONS['pool_timeout']"),
        ({"CONNECTION_POOL_KWARGS": {"decode_responses": True}}, "values are bytes"),
        ({"SENTINELS": []}, "('10.0.0.1', 26379)"),
        ({"SENTINELS": [("host", "26379")]}, "('10.0.0.1', 26379)"),
        ({"on_error": "ignore"}, "'raise', 'miss'"),
        ({"on_error": {"add": "ignore"}}, "'add', 'incr' and 'incr_version' always raise"),
        ({"on_error": {"read": "ignore"}}, "'read': 'raise' or 'miss'"),
    ],
    ids=repr,
)
def test_an_invalid_option_is_refused_with_the_alternative(
    options: dict[str, Any], message: str
) -> None:
    assert message in refused(**options)


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("", "expected a URL"),
        (None, "expected a URL"),
        ("localhost:6379", "expected a URL"),
        ([URL, URL], "several servers"),
        (f"{URL},redis://127.0.0.1:6380/0", "several servers"),
        ("127.0.0.1:11211", "LOCATION is not a URL; expected a URL such as 'redis://host:6379/0'"),
        ("redis://127.0.0.1/0?cache_config=x", "client-side caching"),
        ("redis://127.0.0.1/0?retry_on_timeout=1", "may have run"),
    ],
    ids=repr,
)
def test_a_location_must_be_the_url_of_one_server(location: Any, message: str) -> None:
    assert message in refused(location)


def test_an_unknown_option_names_only_options_that_exist() -> None:
    message = refused(no_such=1)
    _, _, known = message.partition("expected one of ")
    assert set(known.split(", ")) == set(RedisCache.OPTIONS)
    assert "SERIALIZER" not in known


def test_all_mistakes_are_reported_at_once() -> None:
    message = refused("nowhere", SERIALIZER="x", signed=1)
    assert "LOCATION" in message
    assert "SERIALIZER" in message
    assert "signed" in message


@pytest.mark.parametrize(
    ("location", "options"),
    [
        (f"redis://user:{SECRET}@host:6379x/0", {}),
        (f"redis://user:{SECRET}/more@host:6379/0", {}),
        (f"redis://:{SECRET}?x@host:6379/0", {"no_such": 1}),
        (f"http://user:{SECRET}@host", {}),
        (f"redis://host?password={SECRET}&db=x", {}),
        (f"redis://host/0?password=p@{SECRET}", {"no_such": 1}),
        ([f"redis://:{SECRET}@one", f"redis://:{SECRET}@two"], {}),
        (URL, {"PASSWORD": SECRET.encode()}),
        (URL, {"USERNAME": [SECRET]}),
        (URL, {"CONNECTION_POOL_KWARGS": {"password": SECRET, "retry": 1}}),
        (URL, {"SENTINEL_KWARGS": [SECRET]}),
    ],
    ids=lambda value: re.sub(SECRET, "SECRET", repr(value)),
)
def test_no_refusal_shows_a_password(location: Any, options: dict[str, Any]) -> None:
    assert SECRET not in refused(location, **options)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"redis://user:{SECRET}@host:6379/1?db=2", "redis://host:6379/1"),
        (f"unix://user@/run/redis.sock?password={SECRET}", "unix:///run/redis.sock"),
        (f"redis://:{SECRET}/more@host:6379/0", "redis://…"),
        (f"redis://host/0?password=p@{SECRET}", "redis://…"),
        ("rediss://[::1]:6379/0", "rediss://[::1]:6379/0"),
    ],
)
def test_a_url_is_shown_without_secrets(url: str, shown: str) -> None:
    assert redacted(url) == shown


def test_neither_cache_nor_store_show_a_password() -> None:
    cache = RedisCache(f"redis://user:{SECRET}@127.0.0.1:1/0", {"OPTIONS": {"PASSWORD": SECRET}})
    for shown in (repr(cache), repr(cache._store), repr(cache._store.executor)):  # noqa: SLF001
        assert SECRET not in shown


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        ("raise", ErrorPolicy()),
        ("miss", ErrorPolicy(read=True)),
        ({}, ErrorPolicy()),
        ({"read": "miss", "set": "ignore"}, ErrorPolicy(read=True, set=True)),
        ({"delete": "ignore", "touch": "raise"}, ErrorPolicy(delete=True)),
    ],
    ids=repr,
)
def test_on_error_is_read_by_kind(value: Any, meaning: ErrorPolicy) -> None:
    assert read_error_policy(value) == meaning


def store(location: str = URL, **options: Any) -> Any:
    return RedisCache(location, {"OPTIONS": options})._store  # noqa: SLF001


def test_equal_options_share_a_store_and_different_ones_do_not() -> None:
    assert store() is store()
    assert store(CONNECTION_POOL_KWARGS={"client_name": "a"}) is store(
        CONNECTION_POOL_KWARGS={"client_name": "a"}
    )
    stores = {
        store(),
        store("redis://127.0.0.1:6379/1"),
        store(SOCKET_TIMEOUT=1),
        store(SOCKET_TIMEOUT=True + 1.5),
        store(max_connections=3),
        store(PASSWORD="one"),  # noqa: S106
        store(PASSWORD="two"),  # noqa: S106
        store(CONNECTION_POOL_KWARGS={"client_name": "a"}),
        store(CONNECTION_POOL_KWARGS={"client_name": "b"}),
        store(CONNECTION_POOL_KWARGS={"socket_keepalive_options": {1: 2}}),
    }
    assert len(stores) == 10


def test_redis_values_are_signed_by_default() -> None:
    assert RedisCache(URL, {}).options["signed"] is True
    assert RedisCache(URL, {"OPTIONS": {"signed": False}}).options["signed"] is False
