"""The ASGI wrapper: it answers the lifespan protocol and leaves every request to the application."""

from collections.abc import Mapping
from typing import Any

from pytest_django.fixtures import Settings

from cacheapp.asgi import Receive, Scope, Send, with_downloads


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"  # as Django's, which refuses everything else
    await send({"type": "http.response.start", "status": (await receive())["status"]})


async def responses(scope: Scope, *messages: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    sent: list[Mapping[str, Any]] = []
    waiting = iter(messages)

    async def receive() -> Mapping[str, Any]:
        return next(waiting)

    async def send(message: Mapping[str, Any]) -> None:
        sent.append(message)

    await with_downloads(application)(scope, receive, send)
    assert next(waiting, None) is None
    return sent


async def test_it_answers_the_lifespan_protocol_and_returns_at_its_end(settings: Settings) -> None:
    settings.CACHEAPP = {**settings.CACHEAPP, "DOWNLOAD_ROOT": None}  # nothing starts here
    sent = await responses(
        {"type": "lifespan"}, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}
    )
    assert [each["type"] for each in sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]


async def test_requests_reach_the_application() -> None:
    sent = await responses({"type": "http"}, {"status": 204})
    assert sent == [{"type": "http.response.start", "status": 204}]
