"""What counts as foreign, and what as trouble of the reader."""

import collections
import dataclasses
import pickle
import signal
import sys
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import pytest

from cacheapp.backends.core.codec import Codec, Rejected

KEY = "prefix:1:key"


def _body(serializer: str, body: bytes) -> bytes:
    codec = Codec(serializer, None, signed=False)
    return codec.unsigned_head + body


def decode(serializer: str, body: bytes) -> Any:
    return Codec(serializer, None, signed=False).decode(KEY, _body(serializer, body))


class Point(NamedTuple):
    """Arguments."""

    x: int
    y: int


class WithTupleOfArguments:
    """Its arguments are a class's instance, which an examination does not build."""

    def __getnewargs_ex__(self) -> Any:
        return Point(1, 2), collections.OrderedDict(z=3)

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Any:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        raise LookupError("no room")

    def __getstate__(self) -> Any:
        return {"a": 1}


@pytest.mark.parametrize(
    ("serializer", "body"),
    [
        pytest.param("pickle", b"", id="pickle empty"),
        pytest.param("pickle", b"noise", id="pickle noise"),
        pytest.param("pickle", pickle.dumps([1, "text"])[:-3], id="pickle truncated"),
        pytest.param("pickle", b"\x80\x05.", id="pickle without a value"),
        pytest.param("pickle", b"\x80\x05h\x05.", id="pickle of a memo that is not there"),
        pytest.param("pickle", b"\x80\x05]N}]N\x86s.", id="pickle that assigns to None"),
        pytest.param("pickle", b"\x80\x05}]Ns.", id="pickle of an unhashable name"),
        pytest.param("pickle", b"\x80\x7f.", id="pickle of a later protocol"),
        pytest.param("pickle", b"\x80\x05Pname\n.", id="pickle with a persistent id"),
        pytest.param("json", b"", id="json empty"),
        pytest.param("json", b'{"a": [1, 2', id="json truncated"),
        pytest.param("json", b'"\xff"', id="json not utf-8"),
        pytest.param("msgpack", b"", id="msgpack empty"),
        pytest.param("msgpack", msgpack.packb([1, "text"])[:-1], id="msgpack truncated"),
        pytest.param("msgpack", b"\xc1", id="msgpack noise"),
        pytest.param("msgpack", b"\x01\x02", id="msgpack two values"),
        pytest.param("msgpack", b"\xa1\xff", id="msgpack not utf-8"),
        pytest.param("msgpack", b"\x81\x90\x01", id="msgpack unhashable name"),
        pytest.param("msgpack", b"\x91" * 2000, id="msgpack too deep"),
    ],
)
def test_a_malformed_body_is_rejected(serializer: str, body: bytes) -> None:
    with pytest.raises(Rejected):
        decode(serializer, body)


@pytest.mark.parametrize(
    ("body", "gone"),
    [
        pytest.param(b"cos.path\nnever_there\n.", "os.path.never_there", id="name"),
        pytest.param(b"ccacheapp.never_there\nname\n.", "cacheapp.never_there", id="module"),
        pytest.param(b"ccacheapp.gone.more\nname\n.", "cacheapp.gone", id="package"),
        pytest.param(b"cos.never_there\nname\n.", "os.never_there", id="module of a module"),
        pytest.param(b"\x80\x05\x8c\x02os\x8c\x08gone.too\x93.", "os.gone.too", id="nested name"),
    ],
)
def test_a_class_that_is_certainly_gone_is_rejected(body: bytes, gone: str) -> None:
    with pytest.raises(Rejected, match=f"{gone} no longer exists"):
        decode("pickle", body)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        pytest.param(b"cnever_installed\nname\n.", ModuleNotFoundError, id="package not here"),
        pytest.param(b"cnever.installed\nname\n.", ModuleNotFoundError, id="its module"),
        pytest.param(b"c__main__\nOfAnotherProgram\n.", AttributeError, id="other main module"),
        pytest.param(b"\x80\x05\x82\x05.", ValueError, id="extension not registered here"),
    ],
)
def test_what_another_process_may_read_raises(body: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        decode("pickle", body)


def test_a_module_that_is_being_imported_may_still_define_the_class(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "reads_early.py").write_text(
        f"from {__name__} import decode\n"
        "try:\n"
        "    decode('pickle', b'creads_early\\nLater\\n.')\n"
        "except AttributeError as exc:\n"
        "    error = exc\n"
        "class Later:\n"
        "    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import reads_early  # type: ignore[import-not-found]  # noqa: PLC0415 (made by this test)

    assert "Later" in str(reads_early.error)
    assert decode("pickle", b"creads_early\nLater\n.") is reads_early.Later


def test_a_namespace_package_may_have_the_module_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "in_parts").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError):
        decode("pickle", b"cin_parts.other\nname\n.")


def test_an_integer_beyond_this_processs_limit_raises() -> None:
    before = sys.get_int_max_str_digits()
    with pytest.raises(ValueError, match="Exceeds the limit"):
        decode("json", b"[" + b"1" * (before + 1) + b"]")


def test_an_error_of_a_classs_own_code_raises() -> None:
    body = pickle.dumps(WithTupleOfArguments(), pickle.HIGHEST_PROTOCOL)
    with pytest.raises(LookupError, match="no room"):
        decode("pickle", body)


@dataclasses.dataclass
class Slow:
    """Unpickling it is interrupted by a signal, whose handler raises."""

    error: type[Exception]

    def __reduce__(self) -> Any:
        return _interrupt, ()


def _interrupt() -> None:
    signal.raise_signal(signal.SIGUSR1)


@pytest.mark.parametrize("error", [EOFError, ValueError, AttributeError, pickle.UnpicklingError])
def test_an_exception_of_a_handler_is_no_sign_of_a_malformed_body(error: type[Exception]) -> None:
    def handler(_number: int, _frame: object) -> None:
        raise error("from a handler")

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(error, match="from a handler"):
            decode("pickle", pickle.dumps(Slow(error), pickle.HIGHEST_PROTOCOL))
    finally:
        signal.signal(signal.SIGUSR1, before)
