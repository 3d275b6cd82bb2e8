"""Lines of standard input, read so that reading can be cancelled. Imports anyio only.

The MCP SDK reads in a worker thread, which nothing can cancel: told to end by a signal, the server would wait for the
host to write another line. Not for Windows, where the SDK's way is used.
"""

from __future__ import annotations

import errno
import logging
import os
from typing import Self

import anyio
import anyio.lowlevel

logger = logging.getLogger(__name__)

READ_BYTES = 65_536
MAX_MESSAGE_BYTES = 16 * 1024 * 1024


class StdinLines:
    """An async iterator over the lines of a descriptor. A line that has no end, or one beyond all bounds, ends it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: list[bytes] = []  # the next one last
        self._parts: list[bytes] = []
        self._parts_bytes = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        """The next line."""
        while not self._lines:
            if self._parts_bytes > MAX_MESSAGE_BYTES:
                logger.error("a message on standard input exceeds %d bytes; stopping", MAX_MESSAGE_BYTES)
                raise StopAsyncIteration
            await self._readable()
            data = os.read(self._descriptor, READ_BYTES)
            if not data:
                raise StopAsyncIteration
            self._take(data)
        return self._lines.pop().decode("utf-8", "replace")

    async def _readable(self) -> None:
        try:
            await anyio.wait_readable(self._descriptor)
        except OSError as error:  # a regular file or /dev/null: always readable, so nothing can wait for it
            if error.errno != errno.EPERM:
                raise
            await anyio.lowlevel.checkpoint()

    def _take(self, data: bytes) -> None:
        first, *rest = data.split(b"\n")
        self._parts.append(first)
        self._parts_bytes += len(first)
        if rest:
            unfinished = rest.pop()
            self._lines = [*reversed(rest), b"".join(self._parts)]
            self._parts, self._parts_bytes = [unfinished], len(unfinished)
