"""A response read from a socket: its head, and where its body ends."""

import array
import fcntl
import http.client
import socket
import struct
import sys
import termios
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from cacheapp.downloads.http import blocking_socket
from cacheapp.downloads.http import response as response_module
from cacheapp.downloads.http.blocking_socket import BlockingSocket
from cacheapp.downloads.http.response import HEAD_BYTES, StrictHTTPResponse
from cacheapp.processes.waiting import until
from tests.origin import unsent


def _answer(text: str, *, body: bytes = b"") -> StrictHTTPResponse:
    """Return the response of a server that then closes the connection."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(text.replace("\n", "\r\n").encode("latin-1") + body)
        theirs.shutdown(socket.SHUT_WR)
        response = StrictHTTPResponse(ours, method="GET")
        try:
            response.begin()
        except BaseException:
            response.close()
            raise
        return response


def _refusal(text: str) -> str:
    with pytest.raises(http.client.HTTPException) as caught:
        _answer(text)
    return str(caught.value)


def test_fields_are_found_by_their_names_in_lower_case_and_the_last_one_counts() -> None:
    with _answer('HTTP/1.1 200 OK\nETag:  "v\xe9" \nx-a: 1\nX-A: 2\nX-Empty:\n\n') as response:
        assert (response.status, response.reason) == (200, "OK")
        assert response.fields == {"etag": '"v\xe9"', "x-a": "2", "x-empty": ""}


def test_informational_responses_are_skipped() -> None:
    hints = "HTTP/1.1 103 Early Hints\nLink: </a>\n\n" * 3
    text = f"HTTP/1.1 100 Continue\n\n{hints}HTTP/1.1 200 OK\nContent-Length: 2\n\n"
    with _answer(text, body=b"hi") as response:
        assert (response.status, response.lengths, response.read()) == (200, ["2"], b"hi")


def test_a_folded_line_belongs_to_the_one_before() -> None:
    with _answer("HTTP/1.1 200 OK\nX-A: b\n  c\n\n") as response:
        assert response.fields == {"x-a": "b c"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("HTTP/1.1 200 OK\nno field\n\n", "line 'no field'", id="no-colon"),
        pytest.param("HTTP/1.1 200 OK\n: x\n\n", "line ': x'", id="no-name"),
        pytest.param("HTTP/1.1 200 OK\nA : x\n\n", "line 'A : x'", id="space-before-colon"),
        pytest.param("HTTP/1.1 200 OK\n folded\n\n", "line 'folded'", id="fold-of-nothing"),
        pytest.param("HTTP/1.1 200 OK\nA: b\n", "the response head is truncated", id="cut"),
        pytest.param("HTTP/1.1 200 OK\nA: b\r c\n\n", r"line 'A: b\r c'", id="lone-cr"),
        pytest.param("HTTP/1.1 200 OK\nA: b\r\n\n", r"line 'A: b\r'", id="cr-at-the-end"),
        pytest.param("HTTP/1.1 200 OK\nA: b\0\n\n", r"line 'A: b\x00'", id="nul"),
        pytest.param("HTTP/1.1 200 OK\nA: b\n \x1b[0m\n\n", r"line ' \x1b[0m'", id="fold-of-esc"),
        pytest.param("HTTP/1.1 200 OK\nA\x7f: b\n\n", r"line 'A\x7f: b'", id="delete-in-name"),
        pytest.param("HTTP/2 200 OK\n\n", "HTTP/2", id="another-protocol"),
        pytest.param("ICY 200 OK\n\n", "ICY", id="no-http"),
        pytest.param("HTTP/1.1 20x OK\n\n", "20x", id="no-status"),
    ],
)
def test_an_invalid_response_is_refused(text: str, message: str) -> None:
    assert message in _refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("HTTP/1.1 200 OK\n" + "X-A: b\n" * 10_000 + "\n", id="many-fields"),
        pytest.param(f"HTTP/1.1 200 OK\nX-A: {'b' * 65_000}\nX-B: {'c' * 1000}\n\n", id="long"),
        pytest.param("HTTP/1.1 100 Continue\n\n" * 5000, id="many-answers"),
    ],
)
def test_a_head_is_bounded(text: str) -> None:
    assert _refusal(text) == f"the response head has more than {HEAD_BYTES} bytes"


def test_the_trailer_is_bounded_too() -> None:
    text = "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n"
    with _answer(text, body=b"2\r\nhi\r\n0\r\nX-A: b\r\n\r\n") as response:
        assert response.read() == b"hi"
    body = b"2\r\nhi\r\n0\r\n" + b"X-A: b\r\n" * 10_000 + b"\r\n"
    with (
        _answer(text, body=body) as response,
        pytest.raises(http.client.HTTPException, match="head has more than"),
    ):
        response.read()


CHUNKED = "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n"


def _read_all(response: StrictHTTPResponse) -> bytes:
    """Read like a transfer."""
    found, buffer = b"", bytearray(64)
    while count := response.readinto(buffer):
        found += buffer[:count]
    return found


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"5\r\nhello\r\n0\r\n\r\n", id="plain"),
        pytest.param(b"0005\r\nhello\r\n0000\r\n\r\n", id="zeros-before"),
        pytest.param(b"5 \r\nhello\r\n0  \r\n\r\n", id="spaces-behind"),
        pytest.param(b'5;a=b; c="0"\r\nhello\r\n0;d\r\n\r\n', id="extensions"),
        pytest.param(b"2\nhe\r\n3\nllo\r\n0\n\n", id="line-feeds-alone"),
        pytest.param(b"5\r\nhello\r\n0\r\nX-A: b\r\nX-B: c\r\n\r\n", id="trailer"),
    ],
)
def test_a_chunked_body_ends_with_its_last_chunk(body: bytes) -> None:
    with _answer(CHUNKED, body=body) as response:
        assert _read_all(response) == b"hello"
        assert not response.has_surplus


@pytest.mark.parametrize("whole", [b"0005\r\nhello\r\n0005;a=b\r\nthere\r\n0\r\nX-A: b\r\n\r\n"])
def test_a_chunked_body_that_is_cut_anywhere_is_never_whole(whole: bytes) -> None:
    for length in range(len(whole)):
        with (
            _answer(CHUNKED, body=whole[:length]) as response,
            pytest.raises(http.client.IncompleteRead),
        ):
            _read_all(response)
    with _answer(CHUNKED, body=whole) as response:
        assert _read_all(response) == b"hellothere"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"5\r\nhelloXX0\r\n\r\n", "a chunk ends with b'XX'; expected CR LF"),
        (b"5\r\nhello\n\n0\r\n\r\n", r"a chunk ends with b'\n\n'; expected CR LF"),
        (b"0x5\r\nhello\r\n0\r\n\r\n", r"a chunk's size is b'0x5\r\n'; expected hex digits"),
        (b"1_0\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n", "a chunk's size is b'1_0"),
        (b"-0\r\n\r\n", "a chunk's size is b'-0"),
        (b"+5\r\nhello\r\n0\r\n\r\n", "a chunk's size is b'+5"),
        (b" 5\r\nhello\r\n0\r\n\r\n", "a chunk's size is b' 5"),
        (b"\r\n\r\n", r"a chunk's size is b'\r\n'"),
        (b"0" * 17 + b"\r\n\r\n", "a chunk's size is b'00000000000000000"),
        (b"0;\r0\r\n\r\n", r"a chunk's size is b'0;\r0\r\n'"),
        (b"5;" + b"x" * 70_000 + b"\r\nhello\r\n0\r\n\r\n", "a chunk's size is b'5;xxx"),
    ],
    ids=lambda value: repr(value[:9]) if isinstance(value, bytes) else "",
)
def test_an_invalid_chunk_is_refused(body: bytes, message: str) -> None:
    with (
        _answer(CHUNKED, body=body) as response,
        pytest.raises(http.client.HTTPException) as caught,
    ):
        _read_all(response)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "body"),
    [
        pytest.param("HTTP/1.1 200 OK\nContent-Length: 5\n\n", b"hello", id="length"),
        pytest.param("HTTP/1.1 200 OK\nContent-Length: 0\n\n", b"", id="empty"),
        pytest.param(CHUNKED, b"5\r\nhello\r\n0\r\n\r\n", id="chunks"),
    ],
)
@pytest.mark.parametrize("more", [b"", b"H", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_what_was_read_ahead_of_the_end_is_noticed(text: str, body: bytes, more: bytes) -> None:
    with _answer(text, body=body + more) as response:
        _read_all(response)
        assert response.has_surplus is bool(more)


def test_looking_for_a_surplus_waits_for_nothing() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(30)
        theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        with StrictHTTPResponse(ours, method="GET") as response:
            response.begin()
            assert _read_all(response) == b"hello"  # and the server keeps the connection open
            assert not response.has_surplus


@pytest.mark.parametrize(
    ("fields", "chunked", "length", "closes"),
    [
        pytest.param("Content-Length: 5", False, 5, False, id="length"),
        pytest.param("Transfer-Encoding: Chunked", True, None, False, id="chunks"),
        pytest.param("Transfer-Encoding: chunked\nContent-Length: 5", True, None, True, id="both"),
        pytest.param("Transfer-Encoding: gzip, chunked", False, None, True, id="a-coding"),
        pytest.param("Transfer-Encoding: chunked\n" * 2 + "A: b", False, None, True, id="twice"),
        pytest.param("A: b", False, None, True, id="neither"),
        pytest.param("Content-Length: 5\nConnection: close", False, 5, True, id="last"),
        pytest.param("Content-Length: -5", False, None, True, id="no-length"),
    ],
)
def test_where_a_body_ends_and_whether_anything_follows(
    fields: str, *, chunked: bool, length: int | None, closes: bool
) -> None:
    with _answer(f"HTTP/1.1 200 OK\n{fields}\n\n") as response:
        assert (response.chunked, response.length, response.will_close) == (chunked, length, closes)


@pytest.mark.parametrize(("said", "closes"), [("close", True), ("Keep-Alive", False), ("", True)])
def test_an_http_1_0_connection_is_kept_only_with_keep_alive(said: str, *, closes: bool) -> None:
    with _answer(f"HTTP/1.0 200 OK\nContent-Length: 1\nConnection: {said}\n\n") as response:
        assert response.will_close is closes


def test_a_response_without_a_body_has_none_whatever_it_announces() -> None:
    with _answer("HTTP/1.1 304 Not Modified\nContent-Length: 5\n\n") as response:
        assert response.length == 0


@pytest.fixture
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return both ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    with ours, theirs:
        yield ours, theirs


def _begun(ours: socket.socket, silence_s: float) -> StrictHTTPResponse:
    blocking = BlockingSocket(ours)
    blocking.begin(silence_s)
    response = StrictHTTPResponse(ours, method="GET")
    response.read_with(blocking.readinto)
    response.begin()
    return response


def _unread(sock: socket.socket) -> int:
    found = array.array("i", [0])
    fcntl.ioctl(sock, termios.FIONREAD, found)
    return found[0]


def _until_taken(ours: socket.socket, theirs: socket.socket) -> None:
    """Wait until our end has read all: before, what the other has sent may be on its way for a moment."""
    until(lambda: not unsent(theirs) and not _unread(ours), "all to be taken")


@pytest.mark.parametrize("size", [65_537, 200_000, 262_144])
@pytest.mark.parametrize("chunked", [False, True], ids=["counted", "chunked"])
def test_a_long_body_that_comes_in_bits_is_read_by_a_few_calls(
    connected: tuple[socket.socket, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    *,
    chunked: bool,
) -> None:
    for module in (blocking_socket, response_module):  # on a busy machine the bits take longer
        monkeypatch.setattr(module, "GATHER_S", 60.0)
    ours, theirs = connected
    body = bytes(n % 251 for n in range(size))
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    theirs.sendall(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode())
    theirs.sendall(f"{size:x}\r\n".encode() if chunked else b"")
    response = _begun(ours, 30)

    def send() -> None:
        for at in range(0, size, 10_000):
            theirs.sendall(body[at : at + 10_000])
            _until_taken(ours, theirs)
        theirs.sendall(b"\r\n0\r\n\r\n" if chunked else b"")

    calls = 0

    def count(_frame: object, event: str, called: Any) -> None:
        nonlocal calls
        calls += event == "c_call" and called.__name__ == "recv_into"

    sender = threading.Thread(target=send)
    sender.start()
    view = memoryview(bytearray(2**18))
    sys.setprofile(count)
    try:
        found = response.readinto(view)
        ended = response.readinto(view[found:]) if found < len(view) else 0
    finally:
        sys.setprofile(None)
    sender.join()
    with response:
        assert (found, ended, bytes(view[:found]) == body) == (size, 0, True)
        assert calls <= 4  # of 7 to 27 pieces; the last piece may arrive with the read-ahead


@pytest.mark.parametrize("silence_s", [0.1, 0.8])
def test_silence_in_a_long_body_is_noticed_and_what_came_before_is_returned(
    connected: tuple[socket.socket, socket.socket], silence_s: float
) -> None:
    ours, theirs = connected
    theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + bytes(100_000))
    with _begun(ours, silence_s) as response:
        found, error = _read_until_error(response)
    assert len(found) == 100_000
    assert isinstance(error, TimeoutError)
    assert _unread(ours) == 0


@pytest.mark.parametrize("size", [100, 8000, 9000, 200_000])
@pytest.mark.parametrize("chunk", [0, 700, 50_000], ids=["counted", "small-chunks", "large-chunks"])
def test_all_bytes_that_arrived_before_a_reset_are_read_and_then_the_error_is_raised(
    connected: tuple[socket.socket, socket.socket], size: int, chunk: int
) -> None:
    ours, theirs = connected
    body = bytes(n % 251 for n in range(size))
    framing = "Transfer-Encoding: chunked" if chunk else f"Content-Length: {size + 1}"
    theirs.sendall(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode())
    for at in range(0, size, chunk or size):
        piece = body[at : at + (chunk or size)]
        theirs.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if chunk else piece)
    with _begun(ours, 30) as response:
        resetting = threading.Thread(target=_reset_once_read, args=(ours, theirs))
        resetting.start()
        found, error = _read_until_error(response)
    resetting.join()
    assert found == body
    assert isinstance(error, ConnectionResetError)


def _read_until_error(response: StrictHTTPResponse) -> tuple[bytes, Exception | None]:
    found, view = b"", memoryview(bytearray(2**18))
    try:
        while count := response.readinto(view):
            found += view[:count]
    except (OSError, http.client.HTTPException) as exc:
        return found, exc
    return found, None


def _reset_once_read(ours: socket.socket, theirs: socket.socket) -> None:
    _until_taken(ours, theirs)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()


def test_a_shutdown_wakes_the_thread_that_waits_for_a_long_body(
    connected: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = connected
    theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + bytes(100_000))
    found: list[int] = []
    with _begun(ours, 3600) as response:
        view = memoryview(bytearray(2**18))
        reader = threading.Thread(target=lambda: found.append(response.readinto(view)))
        reader.start()
        _until_taken(ours, theirs)
        ours.shutdown(socket.SHUT_RDWR)
        reader.join(60)
        assert not reader.is_alive()
    assert found == [100_000]
