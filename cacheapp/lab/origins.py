"""What the experiments download from: a slow origin, and a real S3 API behind a slow line."""

import contextlib
import importlib.util
import socket
import sys
from collections.abc import Iterator
from typing import Any, Self

from cacheapp.extras import needed_for
from cacheapp.processes.servers import Server, ServerFailed, child_env

BUCKET = "article"
_MODULES = "cacheapp.lab"


class Listening(Server):
    """A module that serves on a socket which is made here: no port is raced for."""

    def __init__(self, module: str, *arguments: str) -> None:
        super().__init__()
        self._module = module
        self._arguments = arguments
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Start it; the first request waits until it listens."""
        number = self._listener.fileno()
        self._spawn(
            [sys.executable, "-m", f"{_MODULES}.{self._module}", str(number), *self._arguments],
            env=child_env(),
            pass_fds=[number],
        )
        return self

    def stop(self) -> None:
        """Stop it; safe to call twice."""
        self._listener.close()
        super().stop()


@contextlib.contextmanager
def slow_origin() -> Iterator[Listening]:
    """Serve files that take as long to arrive as their path says: `/SECONDS/…`."""
    with Listening("slow_server") as server:
        yield server.start()


def s3_can_be_had() -> bool:
    """Return whether moto, which the tests install, is here."""
    try:
        return all(map(importlib.util.find_spec, ("moto.moto_server", "werkzeug", "flask_cors")))
    except ModuleNotFoundError:  # not even its parent
        return False


@contextlib.contextmanager
def slow_bucket(files: int, seconds: float) -> Iterator[str]:
    """Serve a bucket with objects `0`, `1`, … each of whose GETs takes `seconds`; yield its endpoint."""
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415 (an extra)

    with Listening("s3_server") as store:
        store.start()
        client = s3_client(store.url)
        try:
            client.create_bucket(Bucket=BUCKET)
            for number in range(files):
                client.put_object(Bucket=BUCKET, Key=str(number), Body=bytes(16_384))
        except BotoCoreError as exc:
            raise ServerFailed(f"moto's server: {exc}\n{store.output()[-2000:]}") from exc
        finally:
            client.close()
        with Listening("slow_server", str(store.port), str(seconds)) as line:
            yield line.start().url


def s3_client(endpoint: str, connections: int = 10) -> Any:
    """Return a client of a server that takes any credentials. Costs 50 ms and more: make one."""
    with needed_for("An experiment with S3", "lab"):
        from botocore.config import Config  # noqa: PLC0415 (an extra)
        from botocore.session import Session  # noqa: PLC0415 (the same)

    return Session().create_client(
        "s3",
        "us-east-1",
        endpoint_url=endpoint,
        aws_access_key_id="any",
        aws_secret_access_key="any",  # noqa: S106 (moto asks for none)
        config=Config(
            max_pool_connections=connections,
            s3={"addressing_style": "path"},
            retries={"max_attempts": 0},
            read_timeout=60,
        ),
    )
