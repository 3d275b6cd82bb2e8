"""The transport itself: finds a request a connection, sends it, and gives the head of the answer."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from anyio.lowlevel import checkpoint_if_cancelled

from enclave.errors import APIConnectionError, APITimeoutError, ConfigurationError, EnclaveError
from enclave.transport._messages import Request, Response
from enclave.transport._time_limit import TimeLimit

from ._body import ResponseBody
from ._callbacks import Callbacks, ResponseHead
from ._connection import Connection
from ._dial import Dialer, default_ssl_context
from ._exchange import Exchange
from ._origin import Origin
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
        self._callbacks = Callbacks(max_header_bytes=max_header_bytes)
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
        limit = request.time_limit()
        exchange = Exchange(request, pieces, limit, self._callbacks)
        lease = Lease(self._pool, is_stream=request.is_stream)
        # The first step begins before the block is entered, which saves that the deadline is moved.
        limit.step(timeouts.acquire, self._pool.no_turn if request.is_stream else self._pool.no_slot)
        try:
            try:
                with limit:
                    connection = await lease.connect(timeouts.connect, limit)
                    head = await self._exchange(lease, connection, exchange, request)
            except APITimeoutError as late:
                head = await exchange.run_on(late)
        except BaseException:
            # Without a response nobody else gives the connection back.
            lease.close()
            raise
        self._scheme_is_right = True
        # The body of a stream is limited by whoever reads it.
        body_limit = None if request.is_stream else limit
        body = ResponseBody(lease, exchange, body_limit, read_seconds=timeouts.read)
        return Response(head.status, head.reason, head.headers, body)

    def close_idle(self) -> None:
        """Close the connections that wait for another request."""
        self._pool.close_idle()

    async def aclose(self) -> None:
        """Close every connection, also those of responses that are being read. Later requests fail."""
        await self._pool.aclose()

    async def _exchange(
        self, lease: Lease, connection: Connection, exchange: Exchange, request: Request
    ) -> ResponseHead:
        if not may_repeat(request):
            # Once this is noted, the first bytes go out without a wait at which a cancellation could strike.
            await checkpoint_if_cancelled()
        request.delivery.may_have_begun = True
        try:
            return await exchange.run(connection)
        except APIConnectionError:
            # The server may close an idle connection at the very moment it is used again.
            if exchange.unanswered and not lease.reused:
                exchange.limit.step(None, connection.sent_nothing)
                await self._refuse_wrong_scheme(request.timeouts.connect)
            if not (exchange.unanswered and lease.reused and may_repeat(request)):
                raise
        return await exchange.run(await lease.redial(request.timeouts.connect, exchange.limit))

    async def _refuse_wrong_scheme(self, seconds: float | None) -> None:
        """After the server hung up on a request in plain HTTP: find out whether it speaks TLS, where that is not known.

        Raises:
            ConfigurationError: it does.
        """
        if self._origin.is_tls or self._scheme_is_right:
            return
        try:
            with TimeLimit(seconds, "no connection was made") as limit:
                connection = await self._pool.dial(seconds, limit)
        except EnclaveError:
            return
        try:
            is_wrong = await speaks_tls(connection)
        finally:
            self._pool.discard(connection)
        if is_wrong:
            raise ConfigurationError(f"{self._origin.peer}: {SPEAKS_TLS}")
        self._scheme_is_right = True  # or nobody can tell, and it is not asked for again
