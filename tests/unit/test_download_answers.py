"""The head of an answer, as a socket brings it."""

import http.client
import socket

import pytest

from cacheapp.downloads.answers import HEAD_BYTES, HTTPAnswer


def _answer(text: str, *, body: bytes = b"") -> HTTPAnswer:
    """Return the answer that a server sends before it closes the connection."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(text.replace("\n", "\r\n").encode("latin-1") + body)
        theirs.shutdown(socket.SHUT_WR)
        answer = HTTPAnswer(ours, method="GET")
        try:
            answer.begin()
        except BaseException:
            answer.close()
            raise
        return answer


def _refusal(text: str) -> str:
    with pytest.raises(http.client.HTTPException) as caught:
        _answer(text)
    return str(caught.value)


def test_fields_are_found_by_their_names_in_lower_case_and_the_last_one_counts() -> None:
    with _answer('HTTP/1.1 200 OK\nETag:  "v\xe9" \nx-a: 1\nX-A: 2\nX-Empty:\n\n') as answer:
        assert (answer.status, answer.reason) == (200, "OK")
        assert answer.fields == {"etag": '"v\xe9"', "x-a": "2", "x-empty": ""}


def test_informational_answers_that_go_before_are_skipped() -> None:
    hints = "HTTP/1.1 103 Early Hints\nLink: </a>\n\n" * 3
    text = f"HTTP/1.1 100 Continue\n\n{hints}HTTP/1.1 200 OK\nContent-Length: 2\n\n"
    with _answer(text, body=b"hi") as answer:
        assert (answer.status, answer.lengths, answer.read()) == (200, ["2"], b"hi")


def test_a_folded_line_belongs_to_the_one_before() -> None:
    with _answer("HTTP/1.1 200 OK\nX-A: b\n  c\n\n") as answer:
        assert answer.fields == {"x-a": "b c"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("HTTP/1.1 200 OK\nno field\n\n", "line 'no field'", id="no-colon"),
        pytest.param("HTTP/1.1 200 OK\n: x\n\n", "line ': x'", id="no-name"),
        pytest.param("HTTP/1.1 200 OK\nA : x\n\n", "line 'A : x'", id="space-before-colon"),
        pytest.param("HTTP/1.1 200 OK\n folded\n\n", "line 'folded'", id="fold-of-nothing"),
        pytest.param("HTTP/1.1 200 OK\nA: b\n", "the answer's head breaks off", id="cut"),
        pytest.param("HTTP/2 200 OK\n\n", "HTTP/2", id="another-protocol"),
        pytest.param("ICY 200 OK\n\n", "ICY", id="no-http"),
        pytest.param("HTTP/1.1 20x OK\n\n", "20x", id="no-status"),
    ],
)
def test_what_is_no_answer_is_refused(text: str, message: str) -> None:
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
    assert _refusal(text) == f"the answer's head has more than {HEAD_BYTES} bytes"


def test_what_comes_after_the_last_chunk_is_bounded_too() -> None:
    text = "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n"
    with _answer(text, body=b"2\r\nhi\r\n0\r\nX-A: b\r\n\r\n") as answer:
        assert answer.read() == b"hi"
    body = b"2\r\nhi\r\n0\r\n" + b"X-A: b\r\n" * 10_000 + b"\r\n"
    with (
        _answer(text, body=body) as answer,
        pytest.raises(http.client.HTTPException, match="head has more than"),
    ):
        answer.read()


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
    with _answer(f"HTTP/1.1 200 OK\n{fields}\n\n") as answer:
        assert (answer.chunked, answer.length, answer.will_close) == (chunked, length, closes)


@pytest.mark.parametrize(("said", "closes"), [("close", True), ("Keep-Alive", False), ("", True)])
def test_an_old_server_keeps_a_connection_only_if_it_says_so(said: str, *, closes: bool) -> None:
    with _answer(f"HTTP/1.0 200 OK\nContent-Length: 1\nConnection: {said}\n\n") as answer:
        assert answer.will_close is closes


def test_an_answer_without_a_body_has_none_whatever_it_announces() -> None:
    with _answer("HTTP/1.1 304 Not Modified\nContent-Length: 5\n\n") as answer:
        assert answer.length == 0
