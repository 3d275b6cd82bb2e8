"""Reads a response's body piece by piece, decompressed, and closes it without leaving anything suspended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import cast

import anyio
import httpx
from anyio.lowlevel import checkpoint

from enclave.errors import ResponseTooLargeError

from ._encoding import inflater_for
from ._exceptions import time_limit
from .http11 import raw_body

_CLOSE_SECONDS = 5.0
_MAX_UNWOUND_PIECES = 10_000  # more than any HTTP library holds of one network read


class BodyReader:
    """The body of one response. One task reads; the same task closes.

    Args:
        response: what httpx gave for ``stream=True``.
        operation: method and path, for messages.
        read_seconds: how long a read may take where the transport does not see to that itself.
    """

    def __init__(self, response: httpx.Response, operation: str, *, read_seconds: float | None = None) -> None:
        self._response = response
        self._operation = operation
        self._inflater = inflater_for(response.headers.get("content-encoding"), operation)
        self._pieces: Iterator[bytes] = iter(())
        self._own = raw_body(response)
        # Not `aiter_raw`, which closes at the end of the body: unshielded, so that a cancellation would cut it short.
        self._foreign: AsyncIterator[bytes] = aiter(cast(httpx.AsyncByteStream, response.stream))
        self._read_seconds = read_seconds
        self._suspended = False

    @property
    def read_is_repeatable(self) -> bool:
        """Whether a cancelled `read` loses nothing and can be done again."""
        return self._own is not None

    @property
    def is_complete(self) -> bool:
        """Whether the end of the body was reached, as far as can be told without reading."""
        return self._own is not None and self._own.is_complete

    @property
    def fastest_read(self) -> Callable[[], Awaitable[bytes]]:
        """`read`, or what it comes down to where there is no encoding to undo; a stream reads for every few frames."""
        return self._own.read_some if self._own is not None and self._inflater is None else self.read

    async def read(self) -> bytes:
        """The next bytes; empty at the end of the body.

        Raises:
            TimeoutError: nothing came in `read_seconds`. What the transport raises. `MalformedResponseError`: the
                compression cannot be undone.
        """
        if self._inflater is None:
            return await self._read_raw()
        await checkpoint()  # one small read can inflate to very many pieces, and others must have their turn
        piece = next(self._pieces, b"")
        while not piece and (data := await self._read_raw()):
            self._pieces = self._inflater.feed(data)
            piece = next(self._pieces, b"")
        return piece

    async def _read_raw(self) -> bytes:
        if self._own is not None:
            return await self._own.read_some()
        with time_limit(self._read_seconds, "no bytes came"):
            return await self._read_foreign()

    async def _read_foreign(self) -> bytes:
        self._suspended = False
        async for data in self._foreign:
            if data:
                self._suspended = True
                return data
        return b""

    async def read_all(self, max_bytes: int) -> bytes:
        """The whole body.

        Raises:
            ResponseTooLargeError: it exceeds `max_bytes`. And what `read` raises.
        """
        pieces: list[bytes] = []
        size = 0
        while piece := await self.read():
            size += len(piece)
            if size > max_bytes:
                raise ResponseTooLargeError(
                    f"{self._operation}: the response's body exceeds max_response_bytes={max_bytes}"
                )
            pieces.append(piece)
        return b"".join(pieces)

    async def read_start(self, max_bytes: int) -> bytes:
        """At most the first `max_bytes`; a longer body is cut without complaint."""
        pieces: list[bytes] = []
        size = 0
        while size < max_bytes and (piece := await self.read()):
            size += len(piece)
            pieces.append(piece)
        return b"".join(pieces)[:max_bytes]

    async def aclose(self) -> None:
        """Close the response, cancelled or not, within a deadline."""
        if self._own is not None:
            await self._own.aclose()  # needs no protection
            return
        with anyio.move_on_after(_CLOSE_SECONDS, shield=True):
            if self._suspended:
                await self._unwind()
            await self._response.aclose()

    async def _unwind(self) -> None:
        # httpx and httpcore read through nested async generators. Left suspended, the inner ones would be finalised by
        # the garbage collector, in a task of its own under asyncio and with a warning under trio. A cancelled read
        # leaves each of them through its own clean-up, from the inside out. One that has pieces at hand gives those
        # without ever waiting, and so is not cancelled; it is read to its end.
        with anyio.CancelScope() as scope:
            scope.cancel()
            for _ in range(_MAX_UNWOUND_PIECES):
                if not await self._read_foreign():
                    break
