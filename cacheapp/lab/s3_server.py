"""A real S3 API on loopback, moto's, in a process of its own: `… s3_server FD`."""

import sys
from typing import Any

from moto.moto_server.werkzeug_app import create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class _Handler(WSGIRequestHandler):
    """Keeps connections open, as S3 does."""

    protocol_version = "HTTP/1.1"

    def log_request(self, *_: Any) -> None:
        """Log nothing."""


def main(descriptor: int) -> None:
    """Serve until the process ends."""
    # Without moto's dispatcher, which searches its services on disk for every request.
    make_server(
        "127.0.0.1",
        0,
        create_backend_app("s3"),
        threaded=True,
        request_handler=_Handler,
        fd=descriptor,
    ).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))
