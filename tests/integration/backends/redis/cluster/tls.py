"""A cluster that speaks only TLS, with the configuration, the user and the options of docs/howto/redis.md.

The server's own TLS, if a server here is built with it. Else each node is behind a gateway that ends TLS at
the port that the node announces, as before the servers of a provider: all that a client sees is the same.
"""

import asyncio
import contextlib
import functools
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import trustme

from cacheapp.processes.ports import free_port
from cacheapp.processes.redis_cluster import ClusterServer, PrivateCluster
from cacheapp.processes.servers import ServerFailed, find_redis_server

PAGE = Path(__file__).parents[5] / "docs/howto/redis.md"
NAME = "LOCALHOST"
"""What the nodes announce. redis-py replaces `localhost` by an address."""
SECRET = "s3cr3t"  # noqa: S105


def block(marker: str) -> str:
    """Return the block of the page that contains the marker."""
    blocks: list[str] = re.findall(r"```\w*\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (found,) = [each for each in blocks if marker in each]
    return found


def documented_entry() -> dict[str, Any]:
    """Return the entry of CACHES with TLS."""
    found: dict[str, Any] = {}
    with mock.patch.dict(os.environ, REDIS_PASSWORD=SECRET):
        exec(block("ssl_ca_certs"), found)  # noqa: S102 (it is our page)
    entry: dict[str, Any] = found["CACHES"]["default"]
    return entry


def documented_rights() -> list[str]:
    """Return the rule of the user, without its password."""
    user, name, on, _password, *rights = block("user mysite").split()
    assert (user, name, on) == ("user", "mysite", "on")
    return rights


def server_with_tls() -> str | None:
    """Return a server that is built with TLS: the one that tests use, on PATH, or in REDIS_SERVERS."""
    named = os.environ.get("REDIS_SERVERS", "").split(os.pathsep)
    on_path = [shutil.which(name) for name in ("redis-server", "valkey-server")]
    return next(
        (each for each in (find_redis_server(), *on_path, *named) if each and _has_tls(each)), None
    )


@functools.cache
def _has_tls(binary: str) -> bool:
    """It ends at once, because it has no certificate or because it has no TLS."""
    command = [binary, "--port", "0", "--tls-port", str(free_port()), "--save", ""]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return "tls-cert-file" in done.stdout


class Certificates:
    """The files that the page names, in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority, self.another = trustme.CA(), trustme.CA()
        self.authority.cert_pem.write_to_path(str(directory / "ca.pem"))
        self.another.cert_pem.write_to_path(str(directory / "another.pem"))
        self._write("client", self.authority.issue_cert("client"))
        self._write("node", self.authority.issue_cert("localhost"))
        past = datetime.now(UTC) - timedelta(days=1)
        expired = self.authority.issue_cert(
            "localhost", not_before=past - timedelta(1), not_after=past
        )
        self._write("expired", expired)

    def _write(self, name: str, issued: trustme.LeafCert) -> None:
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        (self.directory / f"{name}.pem").write_bytes(chain)
        issued.private_key_pem.write_to_path(str(self.directory / f"{name}.key"))

    def path(self, name: str) -> str:
        """Return the path of a file."""
        return str(self.directory / name)

    def moved(self, text: str) -> str:
        """Return a path of the page as one of this directory."""
        return self.path(Path(text).name) if text.startswith("/etc/") else text


class TLSNode(ClusterServer):
    """A node with the configuration of the page, at another port and with another name."""

    def __init__(self, certificates: Certificates, *args: Any, binary: str) -> None:
        super().__init__(*args)
        self._binary = binary
        found = dict(line.split(maxsplit=1) for line in block("tls-port").splitlines())
        found |= {"tls-port": str(self.port), "cluster-announce-hostname": NAME}
        for name, value in found.items():
            self._options = [*self._options, f"--{name}", certificates.moved(value)]


class NodeBehindGateway(ClusterServer):
    """A node without TLS at another address, which announces a name at which the gateway is."""

    host = "127.0.0.2"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._options = [
            *(*self._options, "--bind-source-addr", self.host, "--cluster-announce-hostname", NAME),
            *("--cluster-preferred-endpoint-type", "hostname"),
        ]


class Gateway:
    """Ends TLS at 127.0.0.1, and forwards to the same ports of another address. Runs in a thread.

    It has each port from the moment at which the node draws it: another program may draw it too, as
    long as it is free at this address.
    """

    def __init__(self, certificates: Certificates) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_verify_locations(certificates.path("ca.pem"))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listeners: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []

    def reserve(self, port: int) -> None:
        """Bind a port, where `start` accepts connections."""
        self._listeners.append(socket.create_server(("127.0.0.1", port), backlog=100))

    def start(self) -> None:
        """Accept connections at all ports."""
        self._loop = asyncio.new_event_loop()
        self._loop.set_debug(False)  # it would log each handshake that fails
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        for listener in self._listeners:
            asyncio.run_coroutine_threadsafe(self._listen(listener), self._loop).result(60)

    async def _listen(self, listener: socket.socket) -> None:
        serve = functools.partial(self._serve, listener.getsockname()[1])
        server = await asyncio.start_server(serve, sock=listener, ssl=self.context)
        self._servers.append(server)

    async def _serve(
        self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writers = [writer]
        try:
            far_reader, far_writer = await asyncio.open_connection(NodeBehindGateway.host, port)
            writers.append(far_writer)
            await asyncio.gather(_forward(reader, far_writer), _forward(far_reader, writer))
        except (OSError, asyncio.CancelledError):  # the node is down; `stop`
            pass
        finally:
            for each in writers:
                each.transport.abort()

    def stop(self) -> None:
        """End all connections, if it was started."""
        loop, self._loop = self._loop, None
        if loop is None:
            for listener in self._listeners:
                listener.close()
            self._listeners.clear()
            return

        async def end() -> None:
            for server in self._servers:
                server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            for _ in range(3):  # the transports close their sockets in the next rounds of the loop
                await asyncio.sleep(0)

        asyncio.run_coroutine_threadsafe(end(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join(60)
        loop.close()


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(2**16):
        writer.write(data)
    writer.close()


class TLSCluster(PrivateCluster):
    """Three primaries with a replica each, which clients reach by name and over TLS alone."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.certificates = Certificates(directory)
        self.binary = server_with_tls()
        self._gateway = Gateway(self.certificates)

    def _new_node(self, number: int) -> ClusterServer:
        parameters = (number, self._node_timeout_ms, self._options, self._password)
        if self.binary:
            return TLSNode(self.certificates, *parameters, binary=self.binary)
        node = NodeBehindGateway(*parameters)
        try:
            self._gateway.reserve(node.port)
        except OSError as exc:
            node.stop()
            raise ServerFailed(f"another program has taken port {node.port}") from exc
        return node

    def start(self) -> "TLSCluster":
        """Start the servers, with the user of the page on every node."""
        super().start()
        if not self.binary:
            self._gateway.start()
            self.use_certificate("node")
        self.require_client_certificates(required=True)
        self.grant()
        return self

    def grant(self, *changes: str) -> None:
        """Give the user the rights of the page, with changes."""
        for node in self.nodes:
            words = ("reset", "on", f">{SECRET}", *documented_rights(), *changes)
            node.command("ACL", "SETUSER", "mysite", *words)

    def require_client_certificates(self, *, required: bool) -> None:
        """Have new connections need a certificate, or not."""
        self._gateway.context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_NONE
        for node in self.nodes if self.binary else ():
            node.command("CONFIG", "SET", "tls-auth-clients", "yes" if required else "no")

    def use_certificate(self, name: str) -> None:
        """Have the nodes show this certificate to new clients."""
        files = [self.certificates.path(f"{name}.{ending}") for ending in ("pem", "key")]
        self._gateway.context.load_cert_chain(*files)
        for node in self.nodes if self.binary else ():
            node.command("CONFIG", "SET", "tls-cert-file", files[0], "tls-key-file", files[1])

    @contextlib.contextmanager
    def showing(self, name: str) -> Iterator[None]:
        """Show another certificate for a while."""
        self.use_certificate(name)
        try:
            yield
        finally:
            self.use_certificate("node")

    def stop(self) -> None:
        """Stop the nodes, and the gateway."""
        super().stop()
        self._gateway.stop()
