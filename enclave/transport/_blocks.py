"""The blocks of Server-Sent Events by the WHATWG rules, without I/O: bytes in, blocks out, at any split.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation

The encoding is always UTF-8, and invalid bytes are replaced. Only LF, CR and CRLF end a line. One leading BOM is
skipped. An ``id`` counts even in a block without data. Whatever is held back is bounded.

`SSEDecoder` and the SDK's own streams are built on this. The text stays bytes, and each block tells whether it set an
id of its own.
"""

from __future__ import annotations

from typing import NamedTuple

from enclave.errors import EventTooLargeError

_BOM = b"\xef\xbb\xbf"
_MAX_RETRY_MS = 10**12 - 1  # thirty years. A longer number would only serve to make int() slow


class Block(NamedTuple):
    """A finished block that has data, or sets the id, or both."""

    data: bytes | None
    """The data lines, joined by newlines. None for a block without any, which is no event."""
    event: bytes
    """The name of the event, empty if it has none."""
    event_id: bytes | None
    """The id that this block sets. None if it sets none, and the id before it stays in force."""
    retry_ms: int | None


class BlockDecoder:
    """Turns the bytes of an event stream into blocks.

    After a `failure` nothing more is given out.
    """

    __slots__ = (
        "_block_retry_ms",
        "_bytes",
        "_data",
        "_event",
        "_event_id",
        "_lines",
        "_max_event_bytes",
        "failure",
        "retry_ms",
    )

    def __init__(self, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes
        self._lines = _Lines()
        self.failure: EventTooLargeError | None = None
        """Why there can be no further block. What was given out before it is sound."""
        self.retry_ms: int | None = None
        """The reconnection time that the stream asked for, in milliseconds. None if it asked for none."""
        self._begin_block()

    def _begin_block(self) -> None:
        # The fields of the block whose blank line has not come.
        self._data: list[bytes] | None = None
        self._event = b""
        self._event_id: bytes | None = None
        self._block_retry_ms: int | None = None
        self._bytes = 0

    @property
    def at_block_start(self) -> bool:
        """Whether the next byte begins a block, so that nothing is held back from the bytes so far."""
        return self._lines.at_line_start and self._block_is_empty

    @property
    def has_begun_block(self) -> bool:
        """Whether a part of a block has come, and its blank line has not."""
        return self._lines.unfinished_bytes > 0 or not self._block_is_empty

    @property
    def _block_is_empty(self) -> bool:
        return self._bytes == 0 and self._block_retry_ms is None

    def feed(self, data: bytes) -> list[Block]:
        """Take in the next bytes and give the blocks that they complete, in order."""
        blocks: list[Block] = []
        if self.failure is not None:
            return blocks
        for line in self._lines.split(data):
            if not line:
                block = self._finish_block()
                if block is not None:
                    blocks.append(block)
            elif self._exceeds(len(line)):
                return blocks
            else:
                self._take_line(line)
        # The unfinished line counts too, for it may never end.
        self._exceeds(self._lines.unfinished_bytes)
        return blocks

    def _exceeds(self, line_bytes: int) -> bool:
        if self._bytes + line_bytes > self._max_event_bytes:
            self.failure = EventTooLargeError(self._max_event_bytes)
        return self.failure is not None

    def _take_line(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            if self._data is None:
                self._data = [value]
            else:
                self._data.append(value)
        elif name == b"event":
            self._event = value
        elif name == b"id" and b"\0" not in value:
            self._event_id = value
        else:
            if name == b"retry" and value.isdigit():  # ASCII only, for bytes, and no sign or underscore
                self.retry_ms = self._block_retry_ms = _bounded_int(value)
            return  # or a comment (its name is empty), a field that the specification does not know, an id to ignore
        self._bytes += len(name) + 1 + len(value)

    def _finish_block(self) -> Block | None:
        """The block, and start the next one. None if it neither has data nor sets the id."""
        block = None
        if self._data or self._event_id is not None:
            data = b"\n".join(self._data) if self._data else None
            block = Block(data, self._event, self._event_id, self._block_retry_ms)
        # Comments, which heartbeats are, leave nothing to clear.
        if not self._block_is_empty:
            self._begin_block()
        return block


class _Lines:
    """Cuts bytes into lines, and keeps the line whose end has not come."""

    __slots__ = ("_after_cr", "_head", "_unfinished")

    def __init__(self) -> None:
        self._head: bytes | None = b""  # the first bytes, until they can be told from a BOM
        # Not a list of pieces, which a server that sends byte by byte would make expensive.
        self._unfinished = bytearray()
        self._after_cr = False

    @property
    def at_line_start(self) -> bool:
        """Whether the next byte begins a line. After a CR it may still be the LF that belongs to it."""
        return not self._unfinished and not self._after_cr and self._head is None

    @property
    def unfinished_bytes(self) -> int:
        return len(self._unfinished)

    def split(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes, without their ends."""
        if self._head is not None:
            data = self._skip_bom(data)
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if not data:
            return []
        # Bytes are cut at LF, CR and CRLF and at nothing else. Text would be cut at U+2028 and others as well.
        lines = data.splitlines()
        rest = lines.pop() if data[-1] not in b"\r\n" else b""
        self._after_cr = data.endswith(b"\r")
        if lines and self._unfinished:
            lines[0] = bytes(self._unfinished + lines[0])
            self._unfinished = bytearray()
        self._unfinished += rest
        return lines

    def _skip_bom(self, data: bytes) -> bytes:
        data = (self._head or b"") + data
        if len(data) < len(_BOM) and _BOM.startswith(data):
            self._head = data
            return b""
        self._head = None
        return data.removeprefix(_BOM)


def _bounded_int(digits: bytes) -> int:
    digits = digits.lstrip(b"0") or b"0"
    return int(digits) if len(digits) <= len(str(_MAX_RETRY_MS)) else _MAX_RETRY_MS
