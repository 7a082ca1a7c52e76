"""Wrap the ASGI application: a server's workers start downloads at once and hand over in time.

    application = with_downloads(get_asgi_application())

For servers that end their workers by a signal, such as Uvicorn: nothing else of Python runs then.
Where a server has no lifespan protocol, downloads start with the first request and end with the
process.
"""

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from asgiref.sync import sync_to_async

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def with_downloads(application: Application) -> Application:
    """Return the application with the lifespan protocol, which Django's lacks."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        else:
            await application(scope, receive, send)

    return wrapped


async def _lifespan(receive: Receive, send: Send) -> None:
    from cacheapp.downloads import (  # noqa: PLC0415 (the settings may not be loaded yet)
        release_downloads,
        start_downloads,
    )

    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await sync_to_async(start_downloads)()
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await sync_to_async(release_downloads)(os.getpid())
            await send({"type": "lifespan.shutdown.complete"})
            return
