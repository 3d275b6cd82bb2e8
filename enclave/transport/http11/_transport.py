"""The transport itself: checks a request, finds it a connection, and wraps the answer for httpx."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import httpx

from ._body import BODY_EXTENSION, ResponseBody
from ._connection import Connection
from ._dial import Dialer, default_ssl_context
from ._exchange import Exchange
from ._parser import ResponseHead
from ._pool import Lease, Pool
from ._request import Outgoing, Timeouts, prepare

STREAM_EXTENSION = "enclave.stream"
"""Key in ``request.extensions``: true for a response that lasts, which gets a connection of its own."""

_MAX_PORT = 65_535


class OriginTransport(httpx.AsyncBaseTransport):
    """HTTP/1.1 to one origin. It may be made anywhere, also outside an event loop, and belongs to one event loop.

    A request that carries the extension ``"enclave.stream"`` gets a connection of its own, outside all limits; the
    others share at most `max_connections`. Timeouts are httpx's, from ``request.extensions["timeout"]``.
    """

    def __init__(
        self,
        origin: httpx.URL | str,
        *,
        ssl_context: Callable[[], ssl.SSLContext] | None = None,
        max_connections: int = 20,
        keepalive_seconds: float = 4.0,
        max_header_bytes: int = 65_536,
    ) -> None:
        """Configure; nothing is connected or built yet.

        Args:
            origin: scheme, host and port; the rest of the URL is ignored.
            ssl_context: builds the TLS context, called once, in a worker thread, when the first ``https`` connection
                is made; ALPN is then set to HTTP/1.1 on the context. `default_ssl_context` if not given.
            max_connections: how many requests may be in flight at once; the others wait, first come first served.
            keepalive_seconds: how long an idle connection may be used again. Common servers drop them after 5 s; what
                a server promises in ``Keep-Alive: timeout=`` shortens it.
            max_header_bytes: bound of a response's header section, 1xx included, and of its trailers.

        Raises:
            ValueError: the origin is not an ``http`` or ``https`` URL with a host, or has a port that cannot be.
        """
        origin = httpx.URL(origin)
        if origin.scheme not in {"http", "https"} or not origin.host:
            raise ValueError("an origin is an http or https URL with a host")
        if (origin.port or 0) > _MAX_PORT:
            raise ValueError(f"port {origin.port} does not exist")
        self._origin = _origin_of(origin)
        self._max_header_bytes = max_header_bytes
        dialer = Dialer(origin, ssl_context or default_ssl_context)
        self._pool = Pool(
            dialer.dial, peer=dialer.peer, max_connections=max_connections, keepalive_seconds=keepalive_seconds
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; the response has its head, and a body to be read or closed by the caller.

        Raises:
            httpx.TransportError: and nothing else, what the request's own body stream raises aside.
        """
        if _origin_of(request.url) != self._origin:
            raise httpx.UnsupportedProtocol("this transport speaks to one origin only, and the request is for another")
        outgoing = prepare(request)
        timeouts = Timeouts.of(request)
        is_stream = bool(request.extensions.get(STREAM_EXTENSION))
        lease = await (self._pool.lease_stream(timeouts) if is_stream else self._pool.lease(timeouts))
        try:
            exchange, head = await self._exchange(lease, outgoing, timeouts)
        except BaseException:
            await lease.aclose()
            raise
        keep_alive = outgoing.keep_alive and exchange.sent
        body = ResponseBody(
            lease, exchange.parser, exchange.body_start, read_seconds=timeouts.read, keep_alive=keep_alive
        )
        return _response(head, body)

    async def aclose(self) -> None:
        """Close every connection, also those of responses that are being read. Later requests fail."""
        await self._pool.aclose()

    async def _exchange(self, lease: Lease, outgoing: Outgoing, timeouts: Timeouts) -> tuple[Exchange, ResponseHead]:
        connection = lease.connection or await lease.redial(timeouts.connect)
        exchange = self._new_exchange(connection, outgoing, timeouts)
        try:
            return exchange, await exchange.run()
        except (httpx.NetworkError, httpx.RemoteProtocolError):
            # The server may close an idle connection at the very moment it is used again.
            if not (lease.reused and exchange.unanswered and outgoing.repeatable):
                raise
        exchange = self._new_exchange(await lease.redial(timeouts.connect), outgoing, timeouts)
        return exchange, await exchange.run()

    def _new_exchange(self, connection: Connection, outgoing: Outgoing, timeouts: Timeouts) -> Exchange:
        return Exchange(connection, outgoing, timeouts, self._max_header_bytes)


def _origin_of(url: httpx.URL) -> tuple[bytes, bytes, int | None]:
    scheme = url.raw_scheme
    return scheme, url.raw_host, url.port or {b"http": 80, b"https": 443}.get(scheme)


def _response(head: ResponseHead, body: ResponseBody) -> httpx.Response:
    return httpx.Response(
        head.status,
        headers=head.headers,
        stream=body,
        extensions={"http_version": head.http_version, "reason_phrase": head.reason, BODY_EXTENSION: body},
    )
