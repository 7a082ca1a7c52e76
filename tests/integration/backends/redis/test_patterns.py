"""Our globs match what Redis's globs match."""

import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cacheapp.backends.core.patterns import glob_to_regex
from cacheapp.processes.servers import RedisServer

_KEYS = [
    "",
    *"abc-]^\\*",
    "aa",
    "ab",
    "abc",
    "a-c",
    "a]",
    "]]",
    "^a",
    "a\\",
    "[a",
    "a*",
    "[]",
    "-]",
]


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(pattern=st.text(alphabet="abc-]^\\*?[", max_size=8))
def test_a_glob_matches_what_redis_matches(redis_server: RedisServer, pattern: str) -> None:
    with redis.Redis(unix_socket_path=str(redis_server.socket), db=9) as client:
        client.mset({f"glob:{key}": 1 for key in _KEYS})
        by_redis = {key.decode()[5:] for key in client.keys(f"glob:{pattern}")}
    matches = glob_to_regex(pattern).fullmatch
    assert {key for key in _KEYS if matches(key)} == by_redis
