"""Reads a response's body: piece by piece, decompressed, within bounds."""

from __future__ import annotations

from collections.abc import Iterator

from anyio.lowlevel import checkpoint

from enclave.errors import ResponseTooLargeError

from ._encoding import Inflater, inflater_for
from ._messages import Body, PulledBody, Response
from ._time_limit import TimeLimit

_NO_PIECES: Iterator[bytes] = iter(())


def body_of(response: Response, *, read_seconds: float | None = None) -> Body:
    """The body of a response as the server meant it. A read raises MalformedResponseError if that cannot be undone.

    Args:
        response: the response, with its body unread.
        read_seconds: how long a read may take where it cannot be cancelled and done again. Elsewhere whoever reads a
            stream limits many reads at once.
    """
    body = response.body
    inflater = inflater_for(response.header(b"content-encoding"))
    if not body.read_is_repeatable and read_seconds is not None:
        body = _LimitedBody(body, read_seconds)
    return body if inflater is None else _InflatedBody(body, inflater)


async def read_all(body: Body, max_bytes: int) -> bytes:
    """The whole body.

    Raises:
        ResponseTooLargeError: it exceeds `max_bytes`. And what `Body.read` raises.
    """
    # Counted after decompression: a bomb is small on the wire.
    pieces: list[bytes] = []
    size = 0
    while piece := await body.read():
        size += len(piece)
        if size > max_bytes:
            raise ResponseTooLargeError(f"the response's body exceeds max_response_bytes={max_bytes}")
        pieces.append(piece)
    return b"".join(pieces)


async def read_start(body: Body, max_bytes: int) -> bytes:
    """At most the first `max_bytes`. A longer body is cut without complaint."""
    pieces: list[bytes] = []
    size = 0
    while size < max_bytes and (piece := await body.read()):
        size += len(piece)
        pieces.append(piece)
    return b"".join(pieces)[:max_bytes]


class _Wrapped(PulledBody):
    """A body, changed in how it is read."""

    __slots__ = ("_body",)

    def __init__(self, body: Body) -> None:
        self._body = body

    @property
    def read_is_repeatable(self) -> bool:
        """See `Body.read_is_repeatable`."""
        return self._body.read_is_repeatable

    @property
    def is_complete(self) -> bool:
        """See `Body.is_complete`."""
        return self._body.is_complete

    async def aclose(self) -> None:
        """See `Body.aclose`."""
        await self._body.aclose()


class _LimitedBody(_Wrapped):
    """A read fails with `APITimeoutError` if it takes too long."""

    __slots__ = ("_seconds",)

    def __init__(self, body: Body, seconds: float) -> None:
        super().__init__(body)
        self._seconds = seconds

    async def read(self) -> bytes:
        with TimeLimit(self._seconds, "no bytes came"):
            return await self._body.read()


class _InflatedBody(_Wrapped):
    """What was compressed comes decompressed."""

    __slots__ = ("_inflater", "_pieces")

    def __init__(self, body: Body, inflater: Inflater) -> None:
        super().__init__(body)
        self._inflater = inflater
        self._pieces = _NO_PIECES

    async def read(self) -> bytes:
        # One small read can inflate to very many pieces, and other tasks must have their turn.
        await checkpoint()
        piece = next(self._pieces, b"")
        while not piece and (data := await self._body.read()):
            self._pieces = self._inflater.feed(data)
            piece = next(self._pieces, b"")
        return piece
