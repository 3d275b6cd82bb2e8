"""Standard input and standard output, so that both can be cancelled.

The MCP SDK reads and writes in worker threads, which nothing can cancel. A server that was told to end would wait for
the host to write another line, or to read what is in the pipe. Not for Windows, where the SDK's way is used.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Self

import anyio
import anyio.lowlevel

logger = logging.getLogger(__name__)

READ_BYTES = 65_536
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_WRITE_BYTES = 4096  # as much as fits into a pipe that is writable at all, so that a write never blocks


class StdinLines:
    """An async iterator over the lines of a descriptor. A line without an end, or beyond all bounds, ends it."""

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
                logger.error("a message on standard input exceeds %d bytes, so the server stops", MAX_MESSAGE_BYTES)
                raise StopAsyncIteration
            await _ready(anyio.wait_readable, self._descriptor)
            data = os.read(self._descriptor, READ_BYTES)
            if not data:
                raise StopAsyncIteration
            self._take(data)
        return _whole_characters(self._lines.pop().decode("utf-8", "replace"))

    def _take(self, data: bytes) -> None:
        # Joined once, when the line ends. To append to one buffer would copy a long line with every read.
        first, *rest = data.split(b"\n")
        self._parts.append(first)
        self._parts_bytes += len(first)
        if rest:
            unfinished = rest.pop()
            self._lines = [*reversed(rest), b"".join(self._parts)]
            self._parts, self._parts_bytes = [unfinished], len(unfinished)


class StdoutText:
    """Writes text to a descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    async def write(self, text: str) -> None:
        """Write all of the text. This waits as long as the host does not read."""
        rest = memoryview(text.encode())
        while rest:
            await _ready(anyio.wait_writable, self._descriptor)
            rest = rest[os.write(self._descriptor, rest[:_WRITE_BYTES]) :]

    async def flush(self) -> None:
        """Nothing is left in a buffer."""


async def _ready(wait: Callable[[int], Awaitable[None]], descriptor: int) -> None:
    try:
        await wait(descriptor)
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
        await anyio.lowlevel.checkpoint()  # a regular file or /dev/null is always ready, so nothing can wait for it


def _whole_characters(line: str) -> str:
    """The same JSON, with U+FFFD in place of half a surrogate pair. The SDK would drop such a message unanswered."""
    if "\\ud" not in line.lower():
        return line
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):  # the SDK has an answer to what is not JSON
        return line
    text = json.dumps(message, ensure_ascii=False)
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
