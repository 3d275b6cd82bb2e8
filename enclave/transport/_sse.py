"""`SSEDecoder`: Server-Sent Events as objects of httpx-sse, for whoever reads an event stream of their own.

The SDK's own streams use the `BlockDecoder` beneath it. So a stream does not load httpx, which httpx-sse imports.
"""

from __future__ import annotations

from httpx_sse import ServerSentEvent

from ._blocks import Block, BlockDecoder
from ._settings import DEFAULT_MAX_EVENT_BYTES


class SSEDecoder:
    """Turns the bytes of an event stream into `httpx_sse.ServerSentEvent` objects.

    An event that the stream leaves unfinished is discarded, as the specification says.

    Args:
        max_event_bytes: how many bytes the fields of one event, its unfinished line included, may take.

    Raises:
        TypeError, ValueError: `max_event_bytes` is no whole number above 0.
    """

    __slots__ = ("_blocks", "_last_event_id")

    def __init__(self, *, max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES) -> None:
        if not isinstance(max_event_bytes, int) or isinstance(max_event_bytes, bool):
            raise TypeError(f"max_event_bytes: expected a whole number, got {type(max_event_bytes).__name__}")
        if max_event_bytes <= 0:
            raise ValueError(f"max_event_bytes: must be positive, got {max_event_bytes}")
        self._blocks = BlockDecoder(max_event_bytes)
        self._last_event_id = ""

    @property
    def last_event_id(self) -> str:
        """The id in force after the last finished block, for ``Last-Event-ID``. Empty if there is none."""
        return self._last_event_id

    @property
    def retry_ms(self) -> int | None:
        """The reconnection time that the stream asked for, in milliseconds. None if it asked for none."""
        return self._blocks.retry_ms

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Take in the next bytes and give the events that they complete, in order.

        Raises:
            EventTooLargeError: an event exceeds `max_event_bytes`. The events before it are given out first, by this
                call. The error then comes from the next call, and from every one after it.
        """
        events = [event for block in self._blocks.feed(data) if (event := self._event_of(block)) is not None]
        if self._blocks.failure is not None and not events:
            raise self._blocks.failure
        return events

    def _event_of(self, block: Block) -> ServerSentEvent | None:
        if block.event_id is not None:
            # Decoded once, and not for every event after it: a long id would multiply the size of a read.
            self._last_event_id = block.event_id.decode("utf-8", "replace")
        if block.data is None:
            return None
        return ServerSentEvent(
            event=block.event.decode("utf-8", "replace"),
            data=block.data.decode("utf-8", "replace"),
            id=self._last_event_id,
            retry=block.retry_ms,
        )
