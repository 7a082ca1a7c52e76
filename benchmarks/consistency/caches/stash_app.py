"""What a Gunicorn needs so that it runs the arbiter of `dirty.stash`: an application of each kind."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gunicorn.dirty.app import DirtyApp


class Anything(DirtyApp):  # type: ignore[misc]  # no type hints
    """A dirty application that tells where the arbiter listens."""

    def init(self) -> None:
        """Write the path of the socket to the file that the environment names."""
        path = Path(os.environ["STASH_SOCKET_FILE"])
        path.with_suffix(".new").write_text(os.environ["GUNICORN_DIRTY_SOCKET"])
        path.with_suffix(".new").rename(path)


def application(_environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    """Answer every request with nothing."""
    start("204 No Content", [])
    return [b""]
