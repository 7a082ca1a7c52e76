import json
import math
import os
import pickle
import struct
import zlib
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django.fixtures import Settings

from cacheapp.backends.core.codec import SERIALIZERS, Codec, Rejected
from cacheapp.errors import ValueRefused

KEY = "prefix:1:key"

# The machine may be busy, so no deadline; what fails is shown, so no database.
quick = hypothesis.settings(max_examples=40, deadline=None, database=None)

finite = st.floats(allow_nan=False, allow_infinity=False)
leaves: dict[str, st.SearchStrategy[Any]] = {
    "json": st.none() | st.booleans() | st.integers() | finite | st.text(),
    "msgpack": st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary(),
}
leaves["pickle"] = leaves["json"] | leaves["msgpack"] | st.complex_numbers(allow_nan=False)
names: dict[str, st.SearchStrategy[Any]] = {
    "json": st.text(),
    "msgpack": st.text(st.characters(exclude_categories=["Cs"])) | st.integers(0, 9) | st.binary(),
    "pickle": st.text() | st.tuples(st.integers(), st.text()),
}


def values(serializer: str) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves[serializer],
        lambda inner: st.lists(inner) | st.dictionaries(names[serializer], inner),
        max_leaves=10,
    )


def codec(serializer: str = "pickle", compress: int | None = None, *, signed: bool = True) -> Codec:
    return Codec(serializer, compress, signed=signed)


def types(value: Any) -> Any:
    """The types all the way down: `==` takes True for 1 and 1 for 1.0."""
    if isinstance(value, list):
        return [types(part) for part in value]
    if isinstance(value, dict):
        return [(type(name), types(part)) for name, part in value.items()]
    return type(value)


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
@pytest.mark.parametrize("compress", [None, 0], ids=["plain", "compressed"])
@pytest.mark.parametrize("serializer", SERIALIZERS)
@quick
@given(data=st.data())
def test_every_value_comes_back_exactly(
    *, serializer: str, compress: int | None, signed: bool, data: st.DataObject
) -> None:
    value = data.draw(values(serializer))
    under_test = codec(serializer, compress, signed=signed)
    back = under_test.decode(KEY, under_test.encode(KEY, value))
    assert back == value
    assert types(back) == types(value)


@quick
@given(value=st.integers())
def test_integers_stay_integers_for_the_store_to_count(value: int) -> None:
    assert codec().encode(KEY, value) == value
    assert codec().decode(KEY, value) == value


@quick
@given(st.binary())
def test_no_other_bytes_are_accepted(noise: bytes) -> None:
    with pytest.raises(Rejected):
        codec().decode(KEY, noise)


class Subclass(str):
    """A str, and yet not one."""

    __slots__ = ()


looped: list[Any] = []
looped.append(looped)
deep: list[Any] = []
for _ in range(100_000):
    deep = [deep]


@pytest.mark.parametrize(
    ("serializer", "value"),
    [
        pytest.param("json", (1, 2), id="json tuple"),
        pytest.param("json", [(1, 2)], id="json inner tuple"),
        pytest.param("json", {1: 2}, id="json int name"),
        pytest.param("json", b"bytes", id="json bytes"),
        pytest.param("json", math.nan, id="json nan"),
        pytest.param("json", [math.inf], id="json inf"),
        pytest.param("json", {1, 2}, id="json set"),
        pytest.param("json", Subclass("text"), id="json subclass"),
        pytest.param("json", looped, id="json cycle"),
        pytest.param("json", deep, id="json depth"),
        pytest.param("json", [10**5000], id="json digits"),
        pytest.param("msgpack", (1, 2), id="msgpack tuple"),
        pytest.param("msgpack", {(1, 2): 3}, id="msgpack tuple name"),
        pytest.param("msgpack", [2**64], id="msgpack big int"),
        pytest.param("msgpack", "\ud800", id="msgpack surrogate"),
        pytest.param("msgpack", bytearray(b"x"), id="msgpack bytearray"),
        pytest.param("msgpack", looped, id="msgpack cycle"),
        pytest.param("msgpack", deep, id="msgpack depth"),
        pytest.param("pickle", lambda: None, id="pickle lambda"),
        pytest.param("pickle", (n for n in range(3)), id="pickle generator"),
    ],
)
def test_a_value_that_would_change_is_refused(serializer: str, value: Any) -> None:
    with pytest.raises(ValueRefused, match=serializer):
        codec(serializer).encode(KEY, value)


def test_a_value_shared_inside_a_value_is_no_cycle() -> None:
    part = ["part"]
    under_test = codec("json")
    assert under_test.decode(KEY, under_test.encode(KEY, [part, part])) == [part, part]


def encoded(value: Any = "value", serializer: str = "pickle", **options: Any) -> bytes:
    payload = codec(serializer, **options).encode(KEY, value)
    assert isinstance(payload, bytes)
    return payload


@pytest.mark.parametrize("index", [0, 1, 16, 17, -1], ids=lambda index: f"byte {index}")
def test_a_changed_byte_is_rejected(index: int) -> None:
    forged = bytearray(encoded())
    forged[index] ^= 0x01
    with pytest.raises(Rejected):
        codec().decode(KEY, bytes(forged))


def test_a_payload_moved_from_another_key_is_rejected() -> None:
    with pytest.raises(Rejected, match="signature"):
        codec().decode("prefix:1:other", encoded())


def test_key_and_body_cannot_be_shifted_into_each_other() -> None:
    body = pickle.dumps("value", pickle.HIGHEST_PROTOCOL)
    payload = encoded()
    assert payload.endswith(body)
    with pytest.raises(Rejected, match="signature"):
        codec().decode(KEY + "x", payload)


def test_an_unsigned_payload_is_rejected_where_values_are_signed() -> None:
    with pytest.raises(Rejected, match="header"):
        codec().decode(KEY, encoded(signed=False))


def test_the_payload_cannot_choose_its_serializer() -> None:
    with pytest.raises(Rejected, match="header"):
        codec("json", signed=False).decode(KEY, encoded(signed=False))


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
def test_an_empty_payload_is_rejected(*, signed: bool) -> None:
    with pytest.raises(Rejected):
        codec(signed=signed).decode(KEY, b"")


def test_a_forged_pickle_is_rejected_before_it_is_unpickled(tmp_path: Any) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    raw = pickle.dumps(Bomb())
    for forged in (raw, encoded()[:17] + raw, encoded()[:1] + raw, b"\xa0" + raw):
        with pytest.raises(Rejected):
            codec().decode(KEY, forged)
    assert not (tmp_path / "ran").exists()
    codec(signed=False).decode(KEY, b"\xa0" + raw)  # without a signature, it does run
    assert (tmp_path / "ran").exists()


def test_a_damaged_compressed_body_is_rejected() -> None:
    payload = encoded("x" * 1000, compress=0, signed=False)
    for damaged in (
        payload[:-5],
        payload[:1] + b"noise",
        payload[:1] + zlib.compress(b"no pickle"),
    ):
        with pytest.raises(Rejected):
            codec(signed=False).decode(KEY, damaged)


def test_only_what_becomes_smaller_is_compressed() -> None:
    assert len(encoded("x" * 10_000, compress=100)) < 200
    noise = os.urandom(10_000)
    assert len(encoded(noise, compress=100)) == len(encoded(noise))
    assert codec(compress=100).decode(KEY, encoded(noise, compress=100)) == noise


def test_what_was_written_compressed_is_read_by_a_cache_that_does_not_compress() -> None:
    assert codec().decode(KEY, encoded("x" * 1000, compress=0)) == "x" * 1000


def test_values_signed_with_an_older_secret_key_are_read_until_it_leaves_the_fallbacks(
    settings: Settings,
) -> None:
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "old", []
    old = encoded()
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "new", ["older", "old"]
    assert codec().decode(KEY, old) == "value"
    assert encoded() != old
    settings.SECRET_KEY_FALLBACKS = []
    with pytest.raises(Rejected, match="signature"):
        codec().decode(KEY, old)


def test_the_keys_are_those_of_the_moment_when_the_codec_was_built(settings: Settings) -> None:
    settings.SECRET_KEY = "first"  # noqa: S105
    under_test = codec()
    payload = under_test.encode(KEY, "value")
    settings.SECRET_KEY = "second"  # noqa: S105
    assert under_test.decode(KEY, payload) == "value"
    with pytest.raises(Rejected):
        codec().decode(KEY, payload)


@quick
@given(st.floats())
def test_msgpack_keeps_every_float_to_the_bit(value: float) -> None:
    under_test = codec("msgpack")
    back = under_test.decode(KEY, under_test.encode(KEY, value))
    assert struct.pack("d", back) == struct.pack("d", value)


def test_json_is_readable_by_others_behind_its_header() -> None:
    payload = encoded({"a": [1, 2.5, None]}, "json", signed=False)
    assert json.loads(payload[1:]) == {"a": [1, 2.5, None]}


@pytest.mark.parametrize(
    "value", ["\ud83d\ude00", "\ud800", {"\udbff\udfff": 1}, "\x00☃"], ids=ascii
)
def test_json_keeps_surrogates_apart(value: Any) -> None:
    under_test = codec("json")
    assert under_test.decode(KEY, under_test.encode(KEY, value)) == value


class _Costly:
    """A sound value that its reader has no room for."""

    def __init__(self, error: type[Exception]) -> None:
        self._error = error

    def __reduce__(self) -> Any:
        return _no_room, (self._error,)


def _no_room(error: type[Exception]) -> None:
    raise error


@pytest.mark.parametrize("error", [MemoryError, RecursionError])
def test_a_reader_without_room_does_not_call_the_value_foreign(error: type[Exception]) -> None:
    under_test = codec()
    with pytest.raises(error):
        under_test.decode(KEY, under_test.encode(KEY, _Costly(error)))


class _TooLarge(Exception):
    pass


@pytest.mark.parametrize("compress", [None, 0], ids=["bare", "compressed"])
def test_a_large_value_is_refused_before_it_is_signed(
    monkeypatch: pytest.MonkeyPatch, compress: int | None
) -> None:
    def check(length: int) -> None:
        if length > 2**21:
            raise _TooLarge

    signing = codec(compress=compress)
    large = os.urandom(2**21 + 1)
    assert signing.decode(KEY, signing.encode(KEY, bytes(2**20), check)) == bytes(2**20)
    monkeypatch.setattr(signing, "_macs", [None])  # signing with it would fail
    with pytest.raises(_TooLarge):
        signing.encode(KEY, large, check)
