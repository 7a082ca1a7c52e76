"""Commands are packed as redis-py packs them, without its conversions where none is needed."""

from typing import Any

import pytest
from redis.connection import HiredisRespSerializer

from cacheapp.backends.redis.connection_pool import _Packer


@pytest.mark.parametrize(
    "command",
    [
        (b"GET", b"key"),
        (b"SET", b"a key", b"\r\n", b"PX", b"1"),
        (b"PING",),
        (b"CLIENT SETINFO", b"LIB-NAME", b"x"),
        ("CLIENT SETINFO", "LIB-NAME", "x"),
        (b"SET", b"key", memoryview(b"value"), "PX", bytearray(b"1")),
    ],
    ids=lambda command: str(command[0]),
)
def test_a_command_is_packed_as_by_redis_py(command: tuple[Any, ...]) -> None:
    packed = _Packer().pack(*command)
    assert packed == HiredisRespSerializer().pack(*command)


def test_numbers_are_packed_in_decimal() -> None:
    assert _Packer().pack(b"SET", b"key", 12, 0.5) == [
        b"*4\r\n$3\r\nSET\r\n$3\r\nkey\r\n$2\r\n12\r\n$3\r\n0.5\r\n"
    ]
