"""Reads a response's body piece by piece, decompressed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

from anyio.lowlevel import checkpoint

from enclave.errors import ResponseTooLargeError

from ._encoding import inflater_for
from ._exceptions import time_limit
from ._messages import Response

_NO_PIECES: Iterator[bytes] = iter(())


class BodyReader:
    """The body of one response. One task reads and closes it.

    Args:
        response: the response, with its body unread.
        read_seconds: how long a read may take where it cannot be cancelled and done again. Elsewhere whoever reads a
            stream limits many reads at once.
    """

    __slots__ = ("_body", "_inflater", "_pieces", "_read_seconds")

    def __init__(self, response: Response, *, read_seconds: float | None = None) -> None:
        self._body = response.body
        self._inflater = inflater_for(response.header(b"content-encoding"))
        self._pieces = _NO_PIECES
        self._read_seconds = None if response.body.read_is_repeatable else read_seconds

    @property
    def read_is_repeatable(self) -> bool:
        """Whether a cancelled `read` loses nothing and can be done again."""
        return self._body.read_is_repeatable

    @property
    def is_complete(self) -> bool:
        """Whether the end of the body was reached, as far as can be told without reading."""
        return self._body.is_complete

    @property
    def fastest_read(self) -> Callable[[], Awaitable[bytes]]:
        """`read`, or what it comes down to where nothing has to be undone. A stream reads for every few frames."""
        return self._body.read if self._inflater is None and self._read_seconds is None else self.read

    async def read(self) -> bytes:
        """The next bytes, empty at the end of the body.

        Raises:
            APIConnectionError: the connection broke, or nothing came in `read_seconds`.
            MalformedResponseError: the compression cannot be undone.
        """
        if self._inflater is None:
            return await self._read_raw()
        # One small read can inflate to very many pieces, and other tasks must have their turn.
        await checkpoint()
        piece = next(self._pieces, b"")
        while not piece and (data := await self._read_raw()):
            self._pieces = self._inflater.feed(data)
            piece = next(self._pieces, b"")
        return piece

    async def _read_raw(self) -> bytes:
        if self._read_seconds is None:
            return await self._body.read()
        with time_limit(self._read_seconds, "no bytes came"):
            return await self._body.read()

    async def read_all(self, max_bytes: int) -> bytes:
        """The whole body.

        Raises:
            ResponseTooLargeError: it exceeds `max_bytes`. And what `read` raises.
        """
        # Counted after decompression: a bomb is small on the wire.
        pieces: list[bytes] = []
        size = 0
        while piece := await self.read():
            size += len(piece)
            if size > max_bytes:
                raise ResponseTooLargeError(f"the response's body exceeds max_response_bytes={max_bytes}")
            pieces.append(piece)
        return b"".join(pieces)

    async def read_start(self, max_bytes: int) -> bytes:
        """At most the first `max_bytes`. A longer body is cut without complaint."""
        pieces: list[bytes] = []
        size = 0
        while size < max_bytes and (piece := await self.read()):
            size += len(piece)
            pieces.append(piece)
        return b"".join(pieces)[:max_bytes]

    async def aclose(self) -> None:
        """Close the response, cancelled or not, within a deadline."""
        await self._body.aclose()
