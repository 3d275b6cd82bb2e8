"""Making a connection: look-up, race, socket options, TLS, within the time that the caller gives for all of them."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable

import anyio
from anyio.lowlevel import RunVar

from enclave._loop import one_per_loop, runs_on_asyncio
from enclave.errors import ConfigurationError, ConnectTimeoutError
from enclave.transport._exceptions import FOREIGN, raise_mapped
from enclave.transport._time_limit import TimeLimit

from ._connection import MAX_READ_BYTES, Connection
from ._origin import Origin
from ._race import connect_to_any
from ._reactor import HAS_EPOLL, Reactor
from ._resolver import Address, Resolver
from ._socket_stream import SocketStream
from ._stream import PlainStream, RawSocket, Stream
from ._tls import TLSSessions, TLSStream

KEEPALIVE_IDLE_SECONDS = 30
KEEPALIVE_INTERVAL_SECONDS = 10
KEEPALIVE_PROBES = 3
"""A peer that vanished silently, behind a NAT say, is noticed after idle + interval * probes = 60 seconds."""

# One for each event loop: two of them may run at once in two threads, and would read into each other's bytes.
_read_buffer_of_loop: RunVar[memoryview] = RunVar("enclave read buffer")
_reactor_of_loop: RunVar[Reactor] = RunVar("enclave reactor")


def default_ssl_context() -> ssl.SSLContext:
    """The system's trust as httpx sees it: ``SSL_CERT_FILE``, ``SSL_CERT_DIR``, else certifi. Takes about 100 ms.

    Raises:
        ConfigurationError: ``SSL_CERT_FILE`` names no file of certificates.
    """
    import httpx  # noqa: PLC0415 - slow to load, and plain HTTP does without

    try:
        return httpx.create_ssl_context()
    except OSError as error:
        reason = str(error)
    raise ConfigurationError(f"SSL_CERT_FILE={os.environ.get('SSL_CERT_FILE')!r:.200}: {reason}")


class Dialer:
    """Connects to one origin. It builds the TLS context when the first connection needs it."""

    def __init__(self, origin: Origin, ssl_context: Callable[[], ssl.SSLContext]) -> None:
        self._origin = origin
        self._resolver = Resolver(origin)
        self._make_context = ssl_context
        self._context: ssl.SSLContext | None = None
        self._context_lock = anyio.Lock()
        self._sessions = TLSSessions()

    async def dial(self, seconds: float | None, limit: TimeLimit) -> Connection:
        """A new connection, handshake included. Called within the time limit, as one step of `seconds`.

        Raises:
            ConnectError: no address answered, or the TLS handshake failed. CertificateError: the server is not trusted.
            And the limit raises ConnectTimeoutError: it took longer than `seconds`.
        """
        tried: list[Address] = []

        def late(seconds: float) -> ConnectTimeoutError:
            hint = "" if tried or self._origin.address else ": its name was not looked up by then"
            return ConnectTimeoutError(f"no connection to {self._peer(tried)} within {seconds:g} s{hint}")

        limit.step(seconds, late)
        try:
            return await self._connect(tried)
        except FOREIGN as error:
            raise_mapped(error, f"cannot connect to {self._peer(tried)}", connecting=True)
        except ValueError as error:  # a name that DNS or TLS cannot carry
            problem = str(error)
        raise ConfigurationError(f"cannot connect to {self._origin.peer}: {problem}")

    async def _connect(self, tried: list[Address]) -> Connection:
        context = await self._ssl_context() if self._origin.is_tls else None
        plain = await self._own(await self._open_socket(tried))
        try:
            _set_options(plain.socket)
            stream: Stream = plain
            if context is not None:
                stream = await TLSStream.handshake(plain, context, self._origin.server_name, self._sessions)
            return Connection(stream, plain.socket, self._origin.peer)
        except BaseException:
            plain.close()
            raise

    async def _open_socket(self, tried: list[Address]) -> socket.socket:
        addresses = await self._resolver.addresses()
        try:
            return await connect_to_any(addresses, tried)
        except BaseException:
            self._resolver.forget(addresses)
            raise

    async def _own(self, raw: socket.socket) -> PlainStream:
        """The stream of a connected socket, on whichever loop is running."""
        try:
            if not runs_on_asyncio():
                return SocketStream(raw, _read_buffer(), _reactor())
            from ._asyncio_stream import AsyncioStream  # noqa: PLC0415 - brings in asyncio, which trio does without

            return await AsyncioStream.wrap(raw, _read_buffer())
        except BaseException:
            raw.close()
            raise

    async def _ssl_context(self) -> ssl.SSLContext:
        if self._context is None:
            # Made once for all who come meanwhile, and in a thread: reading the authorities takes about 100 ms.
            async with self._context_lock:
                if self._context is None:
                    try:
                        self._context = await anyio.to_thread.run_sync(self._make_context)
                    except RuntimeError:  # an interpreter that is about to end starts no thread any more
                        self._context = self._make_context()
        return self._context

    def _peer(self, tried: list[Address]) -> str:
        """Host and port, and for a name the addresses that were tried."""
        if not tried or self._origin.address:
            return self._origin.peer
        return f"{self._origin.peer} ({', '.join(map(str, tried))})"


def _read_buffer() -> memoryview:
    """What all connections of the running event loop are read into, of this client and others: nothing stays in it."""
    return one_per_loop(_read_buffer_of_loop, lambda: memoryview(bytearray(MAX_READ_BYTES)))


def _reactor() -> Reactor | None:
    return one_per_loop(_reactor_of_loop, Reactor) if HAS_EPOLL else None


def _set_options(raw: RawSocket) -> None:
    # Nagle's algorithm would hold back the second write of a request until the first is acknowledged.
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
