import socket
import threading

import pytest

from cacheapp.downloads.http import resolver
from cacheapp.processes.waiting import until


def test_many_threads_look_a_name_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    go_on = threading.Event()

    def slow(host: str, port: int, *_: object) -> list[tuple[object, ...]]:
        asked.append(host)
        assert go_on.wait(60)
        return [("found", port)]

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    lookup = resolver.Resolver()
    found: list[object] = []
    threads = [
        threading.Thread(target=lambda: found.append(lookup.resolve("a.example", 80)))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    until(lambda: asked, "the look-up to begin")
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert found == [[("found", 80)]] * 20
    assert asked == ["a.example"]


def test_a_name_is_looked_up_again_after_some_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    responses = iter([[("first",)], [("second",)]])
    monkeypatch.setattr("cacheapp.clock.monotonic_s", lambda: now[0])
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: next(responses))
    lookup = resolver.Resolver()
    assert lookup.resolve("a.example", 80) == [("first",)]
    now[0] += resolver.KEEP_S - 0.1
    assert lookup.resolve("a.example", 80) == [("first",)]
    now[0] += 0.2
    assert lookup.resolve("a.example", 80) == [("second",)]


def test_a_failed_look_up_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise socket.gaierror("not now")

    lookup = resolver.Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(socket.gaierror):
        lookup.resolve("a.example", 80)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [("found",)])
    assert lookup.resolve("a.example", 80) == [("found",)]
