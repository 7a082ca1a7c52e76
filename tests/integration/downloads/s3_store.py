"""A real S3 API (moto's server), with credentials for it."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
from botocore.session import Session
from moto.moto_server.werkzeug_app import create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import WSGIRequestHandler, make_server

from cacheapp.processes.waiting import until

Asked = list[tuple[str, str, dict[str, str]]]


class Handler(WSGIRequestHandler):
    """Keeps connections open, and records method, path and headers of each request."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are written separately
    asked: ClassVar[Asked] = []  # appending is atomic

    def make_environ(self) -> Any:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.asked.append((self.command, self.path, headers))
        if "continuation-token" in self.path:
            until(lambda: any("list-type" not in path for _, path, _ in self.asked), "a file")
        return super().make_environ()

    def run_wsgi(self) -> None:
        """Respond in one write: werkzeug waits for 10 ms and closes each connection."""
        if self.command != "GET":
            super().run_wsgi()
            return
        told: list[Any] = []

        def start_response(status: str, headers: Any, *_: object) -> Callable[[bytes], object]:
            told[:] = [int(status.partition(" ")[0]), headers]
            return self.wfile.write

        body = b"".join(self.server.app(self.make_environ(), start_response))
        status, headers = told
        self.send_response(status)
        for name, value in headers:
            if name.lower() != "content-length":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, *_: Any) -> None:
        """Do not log each request."""


class Store:
    """A moto server with buckets, and the requests it received."""

    def __init__(self) -> None:
        # Bypasses moto's dispatcher, which searches its services on disk for every request.
        self._server = make_server(
            "127.0.0.1", 0, create_backend_app("s3"), threaded=True, request_handler=Handler
        )
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self.client = Session().create_client("s3", "us-east-1", endpoint_url=self.endpoint)
        self.client.create_bucket(Bucket="files")

    def put(self, key: str, body: bytes) -> None:
        """Store an object without HTTP, which would be slow for thousands of them."""
        s3_backends["123456789012"]["aws"].put_object("files", key, body)

    def spoil(self, key: str) -> None:
        """Flip one bit of the stored object, like a faulty disk; checksums and ETag stay."""
        found = s3_backends["123456789012"]["aws"].get_object("files", key)
        assert found is not None
        value = found.value
        found.value = bytes([value[0] ^ 1]) + value[1:]  # type: ignore[misc]

    def stop(self) -> None:
        self.client.close()
        self._server.shutdown()
        self._server.server_close()


CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}


@contextmanager
def running_store(credentials: Mapping[str, str] = CREDENTIALS) -> Iterator[Store]:
    """Run a store; while it runs, no other credentials than these are found."""
    places = {"AWS_CONFIG_FILE": "/nonexistent", "AWS_EC2_METADATA_DISABLED": "true"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**credentials, **places}.items():
            patch.setenv(name, value)
        store = Store()
        yield store
        store.stop()
