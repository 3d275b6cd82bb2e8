"""The transport itself: finds a request a connection, sends it, and gives the head of the answer."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from anyio.lowlevel import checkpoint_if_cancelled

from enclave.errors import APIConnectionError, APITimeoutError, ConfigurationError, EnclaveError
from enclave.transport._messages import Request, Response

from ._body import ResponseBody
from ._dial import Dialer, default_ssl_context
from ._exchange import Exchange
from ._origin import Origin
from ._parser import ResponseHead
from ._pool import Lease, Pool
from ._request import may_repeat, pieces_of
from ._scheme import SPEAKS_TLS, speaks_tls

DEFAULT_MAX_CONNECTIONS = 100
DEFAULT_KEEPALIVE_SECONDS = 4.0
"""Common servers drop an idle connection after 5 seconds, and a POST must not be what finds that out."""
DEFAULT_MAX_HEADER_BYTES = 65_536


class OriginTransport:
    """HTTP/1.1 to one origin. It may be made anywhere, also outside an event loop, and belongs to one event loop.

    A request whose response is a stream gets a connection of its own, outside all limits. The others share at most
    `max_connections`.
    """

    def __init__(
        self,
        url: str,
        *,
        ssl_context: Callable[[], ssl.SSLContext] = default_ssl_context,
        max_connections: int = DEFAULT_MAX_CONNECTIONS,
        keepalive_seconds: float = DEFAULT_KEEPALIVE_SECONDS,
        max_header_bytes: int = DEFAULT_MAX_HEADER_BYTES,
    ) -> None:
        """Configure. Nothing is connected or built yet.

        Args:
            url: scheme, host and port. The rest of the URL is ignored.
            ssl_context: builds the TLS context, called once, in a worker thread, when the first ``https`` connection
                is made.
            max_connections: how many requests may be in flight at once. The others wait, first come first served.
            keepalive_seconds: how long an idle connection may be used again. What a server promises in
                ``Keep-Alive: timeout=`` shortens it.
            max_header_bytes: bound of a response's header section, 1xx included, and of its trailers.

        Raises:
            ValueError: the URL is not ``http`` or ``https`` with a host, or has a port that cannot be.
        """
        origin = Origin.of(url)
        self._origin = origin
        self._scheme_is_right = False
        self._authority = origin.authority
        self._max_header_bytes = max_header_bytes
        self._pool = Pool(
            Dialer(origin, ssl_context).dial,
            peer=origin.peer,
            max_connections=max_connections,
            keepalive_seconds=keepalive_seconds,
        )

    async def send(self, request: Request) -> Response:
        """Send a request. The response has its head, and a body to be read or closed by the caller.

        Raises:
            APIConnectionError: no head of a response came. ConnectError: nothing was sent.
            ResponseTooLargeError: the head is too long. UsageError: the transport is closed.
            ValueError: the request cannot be sent as HTTP/1.1.
        """
        pieces = pieces_of(request, self._authority)
        timeouts = request.timeouts
        lease = await (self._pool.lease_stream(timeouts) if request.is_stream else self._pool.lease(timeouts))
        try:
            exchange, head = await self._exchange(lease, request, pieces)
        except BaseException:
            # Without a response nobody else gives the connection back.
            await lease.aclose()
            raise
        self._scheme_is_right = True
        body = ResponseBody(
            lease, exchange.parser, exchange.body_start, read_seconds=timeouts.read, keep_alive=exchange.sent
        )
        return Response(head.status, head.reason, head.headers, body)

    async def aclose(self) -> None:
        """Close every connection, also those of responses that are being read. Later requests fail."""
        await self._pool.aclose()

    async def _exchange(
        self, lease: Lease, request: Request, pieces: list[memoryview]
    ) -> tuple[Exchange, ResponseHead]:
        connect_seconds = request.timeouts.connect
        connection = lease.connection or await lease.redial(connect_seconds)
        exchange = Exchange(connection, pieces, request.timeouts, self._max_header_bytes)
        if not may_repeat(request):
            # Once this is noted, the first bytes go out without a wait at which a cancellation could strike.
            await checkpoint_if_cancelled()
        request.delivery.begin()
        try:
            return exchange, await exchange.run()
        except APIConnectionError as error:
            # The server may close an idle connection at the very moment it is used again.
            hung_up = exchange.unanswered and not isinstance(error, APITimeoutError)
            if hung_up and not lease.reused:
                await self._refuse_wrong_scheme(connect_seconds)
            if not (hung_up and lease.reused and may_repeat(request)):
                raise
        connection = await lease.redial(connect_seconds)
        exchange = Exchange(connection, pieces, request.timeouts, self._max_header_bytes)
        return exchange, await exchange.run()

    async def _refuse_wrong_scheme(self, seconds: float | None) -> None:
        """After the server hung up on a request in plain HTTP: find out whether it speaks TLS, where that is not known.

        Raises:
            ConfigurationError: it does.
        """
        if self._origin.is_tls or self._scheme_is_right:
            return
        try:
            connection = await self._pool.dial(seconds)
        except EnclaveError:
            return
        try:
            is_wrong = await speaks_tls(connection)
        finally:
            await self._pool.discard(connection)
        if is_wrong:
            raise ConfigurationError(f"{self._origin.peer}: {SPEAKS_TLS}")
        self._scheme_is_right = True  # or nobody can tell, and it is not asked for again
