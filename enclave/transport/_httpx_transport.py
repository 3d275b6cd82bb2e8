"""An adapter for httpx's transports: the one that the caller passed as ``transport=``, or those that use a proxy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Self, cast

import anyio
import httpx

from enclave.errors import (
    APIConnectionError,
    APITimeoutError,
    ConfigurationError,
    ConnectError,
    ConnectTimeoutError,
    MalformedResponseError,
    ProtocolError,
    UsageError,
)

from ._exceptions import EXCEPTION_MAP, Row, raise_mapped
from ._messages import PulledBody, Request, Response
from ._time_limit import TimeLimit

_CLOSE_SECONDS = 5.0
_MAX_UNWOUND_PIECES = 10_000  # more than any HTTP library holds of one network read

HTTPX_EXCEPTION_MAP: tuple[Row, ...] = tuple(
    (foreign, ours, ours)  # httpx's own classes tell whether there was a connection
    for foreign, ours in (
        (httpx.ConnectTimeout, ConnectTimeoutError),
        (httpx.PoolTimeout, ConnectTimeoutError),
        (httpx.TimeoutException, APITimeoutError),
        (httpx.ConnectError, ConnectError),
        (httpx.ProxyError, ConnectError),
        (httpx.UnsupportedProtocol, ConfigurationError),
        (httpx.LocalProtocolError, UsageError),
        (httpx.InvalidURL, ConfigurationError),
        (httpx.DecodingError, MalformedResponseError),
        (httpx.TooManyRedirects, ProtocolError),
        (httpx.CookieConflict, ProtocolError),
        (httpx.HTTPError, APIConnectionError),
        (httpx.StreamError, APIConnectionError),
    )
)
"""Most specific first. A caller's transport may also let exceptions of anyio and of the system out."""

_ROWS = (*HTTPX_EXCEPTION_MAP, *EXCEPTION_MAP)


class HttpxTransport:
    """Sends requests through httpx transports: one for streams, one for all else, which may be the same.

    Args:
        origin_url: scheme, host and port of the control plane.
        for_requests: what carries requests.
        for_streams: what carries streams, which each need a connection for long.
        through: what stands between, to begin messages with, as in ``"through the proxy http://proxy:3128"``.
    """

    def __init__(
        self,
        origin_url: str,
        for_requests: httpx.AsyncBaseTransport,
        for_streams: httpx.AsyncBaseTransport,
        *,
        through: str = "",
    ) -> None:
        self._origin_url = origin_url
        self._for_requests = for_requests
        self._for_streams = for_streams
        self._through = through

    async def send(self, request: Request) -> Response:
        """Send a request. See `Transport.send`."""
        transport = self._for_streams if request.is_stream else self._for_requests
        outgoing = self._outgoing(request)
        request.delivery.may_have_begun = True  # httpx does not tell when it has a connection
        limit = request.time_limit()
        try:
            with limit:
                response = await transport.handle_async_request(outgoing)
        except Exception as error:  # noqa: BLE001 - what is not of the network passes through as it is
            raise_mapped(error, self._through, connecting=False, rows=_ROWS)
        return Response(
            response.status_code,
            response.reason_phrase.encode("latin-1", "replace"),
            response.headers.raw,
            HttpxBody(response, self._through, None if request.is_stream else limit),
        )

    async def aclose(self) -> None:
        """Close the transports."""
        await self._for_requests.aclose()
        if self._for_streams is not self._for_requests:
            await self._for_streams.aclose()

    def _outgoing(self, request: Request) -> httpx.Request:
        timeouts = request.timeouts
        seconds = {
            "connect": timeouts.connect,
            "read": None if request.is_stream else timeouts.read,
            "write": timeouts.write,
            "pool": timeouts.acquire,
        }
        try:
            outgoing = httpx.Request(
                request.method,
                self._origin_url + request.target,
                headers=request.headers,
                content=request.content,
                extensions={"timeout": seconds},
            )
        except httpx.InvalidURL as error:
            # The path is quoted, so it is too long for httpx. What makes a path long is an id that a server gave.
            raise ProtocolError(f"the transport cannot send a path of {len(request.target)} bytes: {error}") from None
        # httpx would send the body through an async generator. If the server answers early or the caller is cancelled,
        # the generator is left suspended, and trio warns of it when it is collected.
        outgoing.stream = _RequestBody(request.content or b"")
        if request.credential is not None:
            # Not a variable: tracebacks that render local variables would show it.
            outgoing.headers["Authorization"] = f"Bearer {request.credential.reveal()}"
        return outgoing


class _RequestBody(httpx.AsyncByteStream):
    """The body of a request, in one piece. Not a generator, so that nothing is left to close."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Pieces([self._content] if self._content else [])


class _Pieces:
    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._pieces:
            raise StopAsyncIteration
        return self._pieces.pop()


class HttpxBody(PulledBody):
    """The body of a response of an httpx transport. Its reads cannot be cancelled and done again."""

    is_complete = False
    read_is_repeatable = False

    def __init__(self, response: httpx.Response, through: str, limit: TimeLimit | None) -> None:
        # Not `aiter_raw`, which closes at the end of the body: unshielded, so that a cancellation would cut it short.
        self._stream = cast(httpx.AsyncByteStream, response.stream)
        self._pieces: AsyncIterator[bytes] = aiter(self._stream)
        self._through = through
        self._limit = limit
        self._suspended = False

    async def read(self) -> bytes:
        """The next bytes, empty at the end of the body. See `Body.read`."""
        if self._limit is None:
            return await self._read()
        with self._limit.rest():
            return await self._read()

    async def _read(self) -> bytes:
        self._suspended = False
        try:
            async for data in self._pieces:
                if data:
                    self._suspended = True
                    return data
        except Exception as error:  # noqa: BLE001 - what is not of the network passes through as it is
            raise_mapped(error, self._through, connecting=False, rows=_ROWS)
        return b""

    async def aclose(self) -> None:
        """Close the response, cancelled or not, within a deadline."""
        with anyio.move_on_after(_CLOSE_SECONDS, shield=True):
            if self._suspended:
                await self._unwind()
            await self._stream.aclose()

    async def _unwind(self) -> None:
        # httpx and httpcore read through nested async generators. Left suspended, the inner ones would be finalised by
        # the garbage collector, in a task of its own under asyncio and with a warning under trio. A cancelled read
        # leaves each of them through its own clean-up, from the inside out. One that has pieces at hand gives those
        # without ever waiting, and so is not cancelled. It is read to its end.
        with anyio.CancelScope() as scope:
            scope.cancel()
            for _ in range(_MAX_UNWOUND_PIECES):
                if not await self._read():
                    break
