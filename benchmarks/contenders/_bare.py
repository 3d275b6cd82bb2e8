"""No client either: a task, a socket and a TLS object for each stream, as the event loops themselves offer them."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import anyio

READ_BYTES = 64 * 1024
DIALLED_AT_ONCE = 100
"""As ours. The queue of a server that listens is often as short."""


class Client:
    """Knows of HTTP what a request looks like, and of frames that they hold ``data:``."""

    def __init__(self, base_url: str, *, is_trio: bool) -> None:
        url = urlsplit(base_url)
        self._address = (url.hostname, url.port)
        self._tls = ssl.create_default_context() if url.scheme == "https" else None
        self._turns = anyio.Semaphore(DIALLED_AT_ONCE)
        self._is_trio = is_trio

    async def hold(self, session_id: str, opened: Callable[[], None]) -> None:
        sock: Any = _trio_socket() if self._is_trio else _AsyncioSocket()
        request = f"GET /sessions/{session_id}/stream HTTP/1.1\r\nhost: source\r\n\r\n".encode()
        try:
            async with self._turns:
                await sock.connect(self._address)
                if self._tls is None:
                    await sock.send(request)
                else:
                    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
                    tls = self._tls.wrap_bio(incoming, outgoing, server_hostname=self._address[0])
                    while not _shake_hands(tls):
                        await sock.send(outgoing.read())
                        incoming.write(await _next(sock))
                    tls.write(request)
                    await sock.send(outgoing.read())
            while True:
                data = await _next(sock)
                if self._tls is not None:
                    incoming.write(data)
                    data = _decrypt(tls)
                if b"data:" in data:
                    opened()
        finally:
            sock.close()


async def _next(sock: Any) -> bytes:
    data: bytes = await sock.recv(READ_BYTES)
    if not data:
        raise ConnectionError("the source closed the connection")
    return data


def _shake_hands(tls: ssl.SSLObject) -> bool:
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def _decrypt(tls: ssl.SSLObject) -> bytes:
    data = b""
    try:
        while piece := tls.read(READ_BYTES):
            data += piece
    except ssl.SSLWantReadError:
        pass
    return data


class _AsyncioSocket:
    """With the methods of trio's."""

    def __init__(self) -> None:
        import asyncio  # noqa: PLC0415 - not on trio

        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket()
        self._socket.setblocking(False)

    async def connect(self, address: object) -> None:
        await self._loop.sock_connect(self._socket, address)  # type: ignore[arg-type]

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._socket, data)

    async def recv(self, size: int) -> bytes:
        return await self._loop.sock_recv(self._socket, size)

    def close(self) -> None:
        self._socket.close()


def _trio_socket() -> object:
    import trio  # noqa: PLC0415 - not on asyncio

    return trio.socket.socket()


@asynccontextmanager
async def connect(base_url: str, variant: str, connections: int | None) -> AsyncIterator[Client]:  # noqa: ARG001
    yield Client(base_url, is_trio=variant == "trio")
