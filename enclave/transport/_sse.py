"""Server-Sent Events by the WHATWG rules, without I/O: bytes in, events out, at any split of the bytes.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation

Where this differs from other decoders: the encoding is always UTF-8 with replacement, only LF, CR and CRLF end a line,
one leading BOM is skipped, an ``id`` counts even in a block without data, and every byte held back is bounded.
"""

from __future__ import annotations

from httpx_sse import ServerSentEvent

from enclave.errors import EventTooLargeError

from ._settings import DEFAULT_MAX_EVENT_BYTES

_BOM = b"\xef\xbb\xbf"
_MAX_RETRY_MS = 10**12 - 1  # thirty years; a longer number would only serve to make int() slow


class SSEDecoder:
    """Turns the bytes of an event stream into `httpx_sse.ServerSentEvent` objects.

    Args:
        max_event_bytes: how many bytes the fields of one event, its unfinished line included, may take.

    An event that the stream leaves unfinished is discarded, as the specification says.
    """

    def __init__(self, *, max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES) -> None:
        if max_event_bytes <= 0:
            raise ValueError(f"max_event_bytes: must be positive, got {max_event_bytes}")
        self._max_event_bytes = max_event_bytes
        self._head: bytes | None = b""  # the first bytes, until they can be told from a BOM
        self._unfinished = bytearray()  # the line whose end has not come; not pieces, which a trickle makes expensive
        self._after_cr = False
        self._overflow: EventTooLargeError | None = None
        self._id: bytes | None = None
        self._committed_id: bytes | None = None
        self._id_is_current: bool | None = None
        self._retry_ms: int | None = None
        self._start_block()

    def _start_block(self) -> None:
        self._data: list[bytes] = []
        self._event = b""
        self._block_retry_ms: int | None = None
        self._block_has_id = False
        self._block_bytes = 0

    @property
    def last_event_id(self) -> str:
        """The id in force after the last finished block, for ``Last-Event-ID``; empty where there is none."""
        return (self._committed_id or b"").decode("utf-8", "replace")

    @property
    def saw_id(self) -> bool:
        """Whether a finished block had an ``id`` line, be it an empty one (which means: no id from here on)."""
        return self._committed_id is not None

    @property
    def id_is_current(self) -> bool | None:
        """Whether no event came after the block that set the id in force; None before the first event or id."""
        return self._id_is_current

    @property
    def retry_ms(self) -> int | None:
        """The reconnection time the stream asked for, in milliseconds; None where it did not."""
        return self._retry_ms

    @property
    def at_block_start(self) -> bool:
        """Whether the next byte begins a block, so that nothing is held back from the bytes so far."""
        return not (
            self._block_bytes
            or self._unfinished
            or self._after_cr
            or self._head is not None
            or self._block_retry_ms is not None
            or self._overflow
        )

    def skip_to_id(self, event_id: bytes) -> None:
        """Note the id of a block that was decoded elsewhere; only between two blocks."""
        self._id = self._committed_id = event_id
        self._id_is_current = True

    def skip_event_without_id(self) -> None:
        """Note that an event without an id of its own was decoded elsewhere; only between two blocks."""
        self._id_is_current = False

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Take in the next bytes and give the events that they complete, in order.

        Raises:
            EventTooLargeError: an event exceeds `max_event_bytes`. Events before it are given out first, by this call;
                the error then comes from the next one, and from every one after it.
        """
        if self._overflow:
            raise self._overflow
        if self._head is not None:
            data = self._skip_bom(data)
        events: list[ServerSentEvent] = []
        try:
            self._take_lines(data, events)
        except EventTooLargeError as error:
            self._overflow = error
            if not events:
                raise
        return events

    def _skip_bom(self, data: bytes) -> bytes:
        data = (self._head or b"") + data
        if len(data) < len(_BOM) and _BOM.startswith(data):
            self._head = data
            return b""
        self._head = None
        return data.removeprefix(_BOM)

    def _take_lines(self, data: bytes, events: list[ServerSentEvent]) -> None:
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if not data:
            return
        lines = data.splitlines()  # of bytes: LF, CR and CRLF, and nothing else
        unfinished = lines.pop() if data[-1] not in b"\r\n" else b""
        self._after_cr = data.endswith(b"\r")
        for line in lines:
            event = self._take_line(line)
            if event:
                events.append(event)
        if unfinished:
            self._unfinished += unfinished
            self._check_bound(len(self._unfinished))

    def _take_line(self, line: bytes) -> ServerSentEvent | None:
        if self._unfinished:
            line = bytes(self._unfinished + line)
            self._unfinished = bytearray()
        if not line:
            return self._dispatch()
        self._check_bound(len(line))
        name, _, value = line.partition(b":")
        self._take_field(name, value.removeprefix(b" "))
        return None

    def _take_field(self, name: bytes, value: bytes) -> None:
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._event = value
        elif name == b"id":
            if b"\0" in value:
                return
            self._id = value
            self._block_has_id = True
        elif name == b"retry":
            if value.isdigit():  # bytes.isdigit is ASCII only, and refuses signs and underscores
                self._retry_ms = self._block_retry_ms = _bounded_int(value)
            return
        else:
            return  # a comment (empty name) or a field that the specification does not know
        self._block_bytes += len(name) + 1 + len(value)

    def _check_bound(self, line_bytes: int) -> None:
        if self._block_bytes + line_bytes > self._max_event_bytes:
            raise EventTooLargeError(self._max_event_bytes)

    def _dispatch(self) -> ServerSentEvent | None:
        self._committed_id = self._id
        if self._block_has_id or self._data:
            self._id_is_current = self._block_has_id
        event = None
        if self._data:
            event = ServerSentEvent(
                event=self._event.decode("utf-8", "replace"),
                data=b"\n".join(self._data).decode("utf-8", "replace"),
                id=self.last_event_id,
                retry=self._block_retry_ms,
            )
        self._start_block()
        return event


def _bounded_int(digits: bytes) -> int:
    digits = digits.lstrip(b"0") or b"0"
    return int(digits) if len(digits) <= len(str(_MAX_RETRY_MS)) else _MAX_RETRY_MS
