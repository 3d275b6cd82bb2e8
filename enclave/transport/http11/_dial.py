"""Making a connection: name look-up, happy eyeballs, socket options, TLS. The only module that opens sockets."""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
from collections.abc import Callable

import anyio
import httpx
from anyio.abc import ByteStream, SocketAttribute, SocketStream
from anyio.streams.tls import TLSStream

from enclave._tasks import runs_on_asyncio

from ._connection import MAX_READ_BYTES, Connection, RawSocket
from ._errors import FOREIGN, translate

KEEPALIVE_IDLE_SECONDS = 30
KEEPALIVE_INTERVAL_SECONDS = 10
KEEPALIVE_PROBES = 3
"""A peer that vanished silently, behind a NAT say, is noticed after idle + interval * probes = 60 seconds."""


def default_ssl_context() -> ssl.SSLContext:
    """The system's trust as httpx sees it: ``SSL_CERT_FILE``, ``SSL_CERT_DIR``, else certifi. Takes about 100 ms."""
    return httpx.create_ssl_context()


class Dialer:
    """Connects to one origin; builds the TLS context once, when the first connection needs it."""

    def __init__(self, origin: httpx.URL, ssl_context: Callable[[], ssl.SSLContext]) -> None:
        self.host = origin.host
        self.port = origin.port or (443 if origin.scheme == "https" else 80)
        self.peer = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        """Host and port, for messages."""
        self._tls = origin.scheme == "https"
        self._make_context = ssl_context
        self._context: ssl.SSLContext | None = None
        self._context_lock = anyio.Lock()
        self._scratch: memoryview | None = None

    async def dial(self, seconds: float | None) -> Connection:
        """A new connection, handshake included.

        Raises:
            httpx.ConnectTimeout: it took longer than `seconds`.
            httpx.ConnectError: no address answered, or the TLS handshake failed.
        """
        try:
            with anyio.move_on_after(seconds):
                return await self._connect()
        except FOREIGN as error:
            raise translate(error, "connect", self.peer) from error
        raise httpx.ConnectTimeout(f"no connection to {self.peer} within {seconds:g} s")

    async def _connect(self) -> Connection:
        context = await self._ssl_context() if self._tls else None
        stream = await self._open_socket()
        try:
            raw: RawSocket = stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - not Django
            _set_options(raw)
            if context is None:
                return Connection(stream, raw, self.peer, socket_stream=stream)
            tls = await TLSStream.wrap(
                stream, hostname=self.host, ssl_context=context, server_side=False, standard_compatible=False
            )
            return Connection(tls, raw, self.peer, socket_stream=stream)
        except BaseException:
            await anyio.aclose_forcefully(stream)
            raise

    async def _open_socket(self) -> ByteStream:
        family = _family_of_literal(self.host)
        if family is None:
            stream = await anyio.connect_tcp(self.host, self.port)
            return await self._own(await _take_socket(stream)) if runs_on_asyncio() else stream
        # One known address leaves nothing to race: happy eyeballs would triple what a connection costs.
        raw = socket.socket(family, socket.SOCK_STREAM)
        try:
            await _connect_socket(raw, (self.host, self.port))
        except BaseException:
            raw.close()
            raise
        return await self._own(raw)

    async def _own(self, raw: socket.socket) -> ByteStream:
        """The stream of a connected socket, on whichever loop is running."""
        try:
            if not runs_on_asyncio():
                return await SocketStream.from_socket(raw)
            from ._asyncio_stream import AsyncioStream  # noqa: PLC0415 - brings in asyncio, which trio does without

            self._scratch = self._scratch or memoryview(bytearray(MAX_READ_BYTES))
            return await AsyncioStream.wrap(raw, self._scratch)
        except BaseException:
            raw.close()
            raise

    async def _ssl_context(self) -> ssl.SSLContext:
        async with self._context_lock:
            if self._context is None:
                context = await anyio.to_thread.run_sync(self._make_context)
                context.set_alpn_protocols(["http/1.1"])
                self._context = context
            return self._context


def _family_of_literal(host: str) -> socket.AddressFamily | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return socket.AF_INET6 if address.version == 6 else socket.AF_INET  # noqa: PLR2004 - IPv6


async def _connect_socket(raw: socket.socket, address: tuple[str, int]) -> None:
    raw.setblocking(False)
    try:
        raw.connect(address)
    except BlockingIOError:
        await anyio.wait_writable(raw)
        code = raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code)) from None


async def _take_socket(stream: SocketStream) -> socket.socket:
    """The connection of a stream, by a descriptor of its own; the stream closes its own, and all that it holds."""
    try:
        theirs: RawSocket = stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - not Django
        family: socket.AddressFamily = stream.extra(SocketAttribute.family)  # noqa: S610
        raw = socket.fromfd(theirs.fileno(), family, socket.SOCK_STREAM)
    except BaseException:
        await anyio.aclose_forcefully(stream)
        raise
    try:
        raw.setblocking(False)
        await stream.aclose()
    except BaseException:
        raw.close()
        raise
    return raw


def _set_options(raw: RawSocket) -> None:
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE_SECONDS),
        ("TCP_KEEPALIVE", KEEPALIVE_IDLE_SECONDS),  # macOS has this in its place
        ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_SECONDS),
        ("TCP_KEEPCNT", KEEPALIVE_PROBES),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            raw.setsockopt(socket.IPPROTO_TCP, option, value)
