"""A server that says exactly what a test scripts, byte for byte, over real sockets."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import pytest
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSListener

from enclave.transport._messages import Headers, Request, Response, Timeouts
from enclave.transport.http11 import OriginTransport

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

anyio_stops_reading_when_cancelled = pytest.mark.skipif(
    tuple(int(part) for part in version("anyio").split(".")[:2]) < (4, 16),
    reason="before 4.16, anyio on asyncio reads on after a cancelled receive, and takes a reset for an end",
)


def open_sockets() -> int:
    """How many descriptors of this process are sockets. Event loops keep others of their own, as long as they like."""
    count = 0
    for descriptor in Path("/dev/fd").iterdir():
        with suppress(OSError):  # the one that lists the directory is closed by now
            count += stat.S_ISSOCK(os.fstat(int(descriptor.name)).st_mode)
    return count


class Peer:
    """The server's end of one connection."""

    def __init__(self, stream: ByteStream, number: int) -> None:
        self.stream = stream
        self.number = number
        self._buffer = b""

    async def request(self) -> bytes | None:
        """The next request's head and Content-Length body, or None when the client closed."""
        try:
            while b"\r\n\r\n" not in self._buffer:
                self._buffer += await self.stream.receive()
            head, _, rest = self._buffer.partition(b"\r\n\r\n")
            length = 0
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            while len(rest) < length:
                rest += await self.stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return None
        self._buffer = rest[length:]
        return head + b"\r\n\r\n" + rest[:length]

    async def receive_all_until(self, ending: bytes) -> bytes:
        while not self._buffer.endswith(ending):
            self._buffer += await self.stream.receive()
        data, self._buffer = self._buffer, b""
        return data

    async def send(self, data: bytes) -> None:
        await self.stream.send(data)

    async def closed_by_client(self) -> None:
        """Wait until the client is gone."""
        try:
            while True:
                await self.stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return

    def reset(self) -> None:
        """Make the close that follows a reset instead of an orderly end."""
        raw = self.stream.extra(SocketAttribute.raw_socket)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Server:
    def __init__(self, scheme: str, host: str, port: int) -> None:
        self.origin = f"{scheme}://{host}:{port}"
        self.port = port
        self.connections = 0
        self.requests: list[bytes] = []


Script = Callable[[Peer, Server], Awaitable[None]]


@asynccontextmanager
async def serve(
    script: Script, *, local_host: str = "127.0.0.1", name: str | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    listener = await anyio.create_tcp_listener(local_host=local_host)
    port = listener.extra(SocketAttribute.local_port)
    host = name or (f"[{local_host}]" if ":" in local_host else local_host)
    server = Server("https" if tls else "http", host, port)
    wrapped = listener if tls is None else TLSListener(listener, tls, standard_compatible=False)

    async def handle(stream: ByteStream) -> None:
        async with stream:
            server.connections += 1
            try:
                await script(Peer(stream, server.connections), server)
            except (anyio.BrokenResourceError, anyio.EndOfStream, anyio.ClosedResourceError):
                return  # the client left; what it made of the exchange is what the test asserts

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(wrapped.serve, handle)
        try:
            yield server
        finally:
            tasks.cancel_scope.cancel()


def answering(*answers: bytes, close: bool = False) -> Script:
    """Each request on a connection gets the next of the answers, the last one again and again."""

    async def script(peer: Peer, server: Server) -> None:
        turn = 0
        while (request := await peer.request()) is not None:
            server.requests.append(request)
            await peer.send(answers[min(turn, len(answers) - 1)])
            turn += 1
            if close and turn >= len(answers):
                return

    return script


@contextmanager
def silent_listener() -> Iterator[int]:
    """A port that takes connections, by the kernel alone, and never a byte more than fits its buffers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(5)
        yield listener.getsockname()[1]


class Answer(NamedTuple):
    """A response that was read to its end."""

    response: Response
    content: bytes

    @property
    def status(self) -> int:
        return self.response.status


class Client:
    """Sends requests over our transport and reads their responses."""

    def __init__(self, transport: OriginTransport, seconds: float | None = 5.0) -> None:
        self.transport = transport
        self.seconds = seconds

    def request(
        self,
        method: str,
        target: str = "/",
        *,
        headers: Headers | None = None,
        content: bytes | None = None,
        is_stream: bool = False,
        **timeouts: float | None,
    ) -> Request:
        each = Timeouts(self.seconds, self.seconds, self.seconds, self.seconds)._replace(**timeouts)
        return Request(method, target, headers or [], content=content, is_stream=is_stream, timeouts=each)

    async def send(self, method: str, target: str = "/", **options: Any) -> Response:
        return await self.transport.send(self.request(method, target, **options))

    @asynccontextmanager
    async def stream(self, method: str = "GET", target: str = "/", **options: Any) -> AsyncIterator[Response]:
        response = await self.send(method, target, **options)
        try:
            yield response
        finally:
            await response.body.aclose()

    async def exchange(self, method: str, target: str = "/", **options: Any) -> Answer:
        async with self.stream(method, target, **options) as response:
            return Answer(response, await read_all(response))

    async def get(self, target: str = "/", **options: Any) -> Answer:
        return await self.exchange("GET", target, **options)

    async def post(self, target: str = "/", **options: Any) -> Answer:
        return await self.exchange("POST", target, **{"content": b"", **options})


async def read_all(response: Response) -> bytes:
    pieces = []
    while piece := await response.body.read():
        pieces.append(piece)
    return b"".join(pieces)


@asynccontextmanager
async def client_of(server: Server | str, *, seconds: float | None = 5.0, **options: Any) -> AsyncIterator[Client]:
    transport = OriginTransport(server if isinstance(server, str) else server.origin, **options)
    try:
        yield Client(transport, seconds)
    finally:
        with anyio.CancelScope(shield=True):
            await transport.aclose()


def pool_of(client: Client):
    return client.transport._pool


def assert_whole(client: Client) -> None:
    """Every slot is free, nobody waits, and the only open connections are idle ones."""
    pool = pool_of(client)
    assert pool.slots.free == pool.slots.total
    assert pool.slots.waiting == 0
    assert set(pool.idle) == pool.open


@contextmanager
def flood(head: bytes, piece: bytes) -> Iterator[str]:
    """The origin of a server that answers with `head` and then as much of `piece` as is taken.

    In a thread of its own: a server in the client's event loop would give way to the client.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):  # until the client leaves
                connection.recv(65_536)
                connection.sendall(head)
                while True:
                    connection.sendall(piece)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()
