"""A server of raw bytes: a script holds each connection, and sends exactly what it likes, when it likes.

It shares no code with the SDK or the simulator, so every framing and every fault can be had, valid or not.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import TypeVar

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.from_thread import start_blocking_portal
from anyio.streams.tls import TLSListener

T = TypeVar("T")


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

    async def send(self, *pieces: bytes) -> None:
        """One write a piece."""
        for piece in pieces:
            await self.stream.send(piece)

    async def trickle(self, data: bytes, seconds: float) -> None:
        """One byte a write, so many seconds apart."""
        for position in range(len(data)):
            await self.stream.send(data[position : position + 1])
            await anyio.sleep(seconds)

    async def closed_by_client(self) -> None:
        """Wait until the client is gone."""
        try:
            while True:
                await self.stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return

    def reset(self) -> None:
        """Make the close that follows a reset instead of an orderly end."""
        reset_on_close(self.stream.extra(SocketAttribute.raw_socket))


def reset_on_close(raw: socket.socket) -> None:
    """Make the close of a socket a reset."""
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Server:
    """Where the server listens, and what came to it."""

    def __init__(self, scheme: str, host: str, port: int) -> None:
        self.origin = f"{scheme}://{host}:{port}"
        self.port = port
        self.connections = 0
        self.open_connections = 0
        self.requests: list[bytes] = []


Script = Callable[[Peer, Server], Awaitable[None]]


@asynccontextmanager
async def serve(
    script: Script, *, local_host: str = "127.0.0.1", name: str | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    """Run the script for each connection, which is closed when its script returns.

    `name` stands in the origin instead of the address.
    """
    listener = await anyio.create_tcp_listener(local_host=local_host)
    port = listener.extra(SocketAttribute.local_port)
    host = name or (f"[{local_host}]" if ":" in local_host else local_host)
    server = Server("https" if tls else "http", host, port)
    wrapped = listener if tls is None else TLSListener(listener, tls, standard_compatible=False)

    async def handle(stream: ByteStream) -> None:
        server.connections += 1
        server.open_connections += 1
        try:
            async with stream:
                await script(Peer(stream, server.connections), server)
        except (anyio.BrokenResourceError, anyio.EndOfStream, anyio.ClosedResourceError):
            return  # the client left. What it made of the exchange is what the test asserts
        finally:
            server.open_connections -= 1

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(wrapped.serve, handle)
        try:
            yield server
        finally:
            tasks.cancel_scope.cancel()


@contextmanager
def in_thread(serving: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Serve in a thread with an event loop of its own.

    For plain tests, for those that cancel every task of their loop, and for those that measure or starve it.
    """
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(serving) as served:
        yield served


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


def flooding(head: bytes, piece: bytes) -> Script:
    """The first request gets `head`, and then as much of `piece` as is taken."""

    async def script(peer: Peer, _: Server) -> None:
        await peer.request()
        await peer.send(head)
        while True:
            await peer.send(piece)

    return script


@contextmanager
def silent_listener() -> Iterator[int]:
    """A port that takes connections, by the kernel alone, and never a byte more than fits its buffers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(5)
        yield listener.getsockname()[1]


@contextmanager
def refused_port(host: str = "127.0.0.1") -> Iterator[int]:
    """A port that refuses connections for as long as the block lasts."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as bound:
        bound.bind((host, 0))
        yield bound.getsockname()[1]  # bound, not listening: connecting is refused
