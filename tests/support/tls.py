"""A throwaway authority, certificates of its making, contexts that trust it, and the server's end without a stream."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import TypeVar

import anyio
import trustme

from tests.support.wire import Peer

T = TypeVar("T")

BROKEN_RECORD = b"\x17\x03\x03\x00\x20" + bytes(32)


@cache
def authority() -> trustme.CA:
    return trustme.CA()


def server_tls(*names: str, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """What a server of these names serves with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    authority().issue_cert(*(names or ("localhost", "127.0.0.1"))).configure_cert(context)
    return context


def trusting() -> ssl.SSLContext:
    """What a client trusts such a server with."""
    context = ssl.create_default_context()
    authority().configure_trust(context)
    return context


class TLSPeer:
    """The server's end of TLS on a plain connection: the script sends the encrypted bytes as it likes."""

    def __init__(self, peer: Peer, context: ssl.SSLContext) -> None:
        self.peer = peer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    async def handshake(self, *, split: int | None = None) -> None:
        await self._call(self.tls.do_handshake, split)
        await self.send(self._outgoing.read(), split=split)  # with the tickets of TLS 1.3

    async def request(self, *, split: int | None = None) -> bytes:
        """The handshake, and then the head of a request."""
        await self.handshake(split=split)
        return await self.next_request()

    async def next_request(self) -> bytes:
        head = b""
        while b"\r\n\r\n" not in head:
            head += await self._call(lambda: self.tls.read(65_536))
        return head

    def records(self, data: bytes, size: int = 16_384) -> bytes:
        """The encrypted bytes of records of this size."""
        for start in range(0, len(data), size):
            self.tls.write(data[start : start + size])
        return self._outgoing.read()

    def goodbye(self) -> bytes:
        """The encrypted bytes of TLS's closing message."""
        with suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self._outgoing.read()

    def alert(self) -> bytes:
        """The encrypted bytes of a fatal alert: what the server says to a record that it cannot decrypt."""
        self._incoming.write(BROKEN_RECORD)
        with suppress(ssl.SSLError):
            self.tls.read(1)
        return self._outgoing.read()

    async def client_says_goodbye(self) -> bool:
        """Whether the client ends TLS before it ends the connection."""
        try:
            return not await self._call(lambda: self.tls.read(65_536))
        except (ssl.SSLEOFError, ConnectionError):
            return False

    async def send(self, data: bytes, *, split: int | None = None) -> None:
        """Send encrypted bytes, so many in one write."""
        for start in range(0, len(data), split or len(data) or 1):
            await self.peer.stream.send(data[start : start + (split or len(data))])

    async def _call(self, function: Callable[[], T], split: int | None = None) -> T:
        while True:
            try:
                return function()
            except ssl.SSLWantReadError:
                await self.send(self._outgoing.read(), split=split)
            data = await self._receive()
            if data:
                self._incoming.write(data)
            else:
                self._incoming.write_eof()

    async def _receive(self) -> bytes:
        try:
            return await self.peer.stream.receive()
        except anyio.EndOfStream:
            return b""
