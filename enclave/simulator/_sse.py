"""Server-Sent Events: how a session's log is put on the wire. Imports anyio; knows nothing of phases.

A stream reads the shared log by index, so a slow reader holds back nothing but itself. It ends after the last frame of
a closed log, when the client goes away, or as a `StreamFault` says.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import msgspec

from ._faults import StreamFault
from ._log import FrameLog
from ._server import AbortConnection, ClientGone, Message

MAX_WRITE_BYTES = 65_536
MAX_ID_DIGITS = 18
UNLIMITED_FRAMES = 1_000_000_000
HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


_Receive = Callable[[], Awaitable[Message]]
_Send = Callable[[Message], Awaitable[None]]


class Framing(msgspec.Struct, frozen=True, kw_only=True):
    """How frames are written as SSE. Every choice is valid SSE; clients must not care.

    Raises:
        ValueError: `newline` is none of LF, CR and CRLF, or a number is negative.
    """

    ids: bool = True
    """An ``id`` on every frame, from ``"1"``; without ids `Last-Event-ID` is ignored and a reader gets every frame."""
    newline: str = "\n"
    """The line end: ``"\\n"``, ``"\\r"`` or ``"\\r\\n"``."""
    event_names: bool = False
    """An ``event`` field with the frame's kind."""
    kind_in_event_only: bool = False
    """The kind stands in the ``event`` field and not in the JSON."""
    comments: bool = False
    """A comment line before every frame."""
    bom: bool = False
    """A byte order mark at the start of the stream."""
    data_lines: int = 1
    """Over how many ``data`` lines a frame is spread, where its JSON has places to break it."""
    chunk_bytes: int = 0
    """The size of each write in bytes, frames cut anywhere; 0 writes what is there."""
    frames_per_write: int = 0
    """The most frames in one write; 0 writes what is there."""
    retry_ms: int | None = None
    """A ``retry`` field at the start of the stream, in milliseconds."""

    def __post_init__(self) -> None:
        if self.newline not in ("\n", "\r", "\r\n"):
            raise ValueError(f"newline: expected LF, CR or CRLF, got {self.newline!r}")
        for name in ("chunk_bytes", "frames_per_write"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: must not be negative, got {getattr(self, name)}")
        if self.data_lines < 1:
            raise ValueError(f"data_lines: must be at least 1, got {self.data_lines}")

    def preamble(self) -> bytes:
        """What stands before the first frame."""
        end = self.newline.encode()
        retry = b"retry: %d%b%b" % (self.retry_ms, end, end) if self.retry_ms is not None else b""
        return (b"\xef\xbb\xbf" if self.bom else b"") + retry

    def comment(self, text: bytes) -> bytes:
        """A comment, as heartbeats are."""
        return b": %b%b" % (text, self.newline.encode() * 2)

    def event(self, number: int, frame: bytes) -> bytes:
        """One event; `number` counts the session's frames from 1."""
        end = self.newline.encode()
        if self == _PLAIN:
            return b"id: %d\ndata: %b\n\n" % (number, frame)
        lines = [b": frame %d" % number] if self.comments else []
        if self.ids:
            lines.append(b"id: %d" % number)
        if self.event_names or self.kind_in_event_only:
            frame, kind = _kind(frame, remove=self.kind_in_event_only)
            lines += [b"event: " + kind] if kind else []
        lines += [b"data: " + part for part in _split(frame, self.data_lines)]
        return end.join([*lines, b"", b""])


_PLAIN = Framing()


def _kind(frame: bytes, *, remove: bool) -> tuple[bytes, bytes]:
    try:
        document = msgspec.json.decode(frame)
        kind = document["kind"].encode()
    except (msgspec.DecodeError, UnicodeError, KeyError, TypeError, AttributeError):
        return frame, b""
    if remove:
        del document["kind"]
        frame = msgspec.json.encode(document)
    return frame, kind


def _split(frame: bytes, lines: int) -> list[bytes]:
    """Break JSON text where a line break changes nothing: before a quote that opens a key of the outermost object."""
    if lines == 1:
        return frame.splitlines() if b"\n" in frame or b"\r" in frame else [frame]
    try:
        document = msgspec.json.decode(frame)
        items = [msgspec.json.encode(key) + b":" + msgspec.json.encode(value) for key, value in document.items()]
    except (msgspec.DecodeError, UnicodeError, AttributeError):
        return [frame]
    parts = [b"{", *[item + b"," for item in items[:-1]], *items[-1:], b"}"]
    return [*parts[: lines - 1], b"".join(parts[lines - 1 :])] if len(parts) > lines else parts


def parse_last_event_id(value: str | None, framing: Framing, log: FrameLog) -> int:
    """The index of the first frame to send; 0 replays everything, also for an id this log never gave out."""
    if not framing.ids or value is None or not (value.isascii() and value.isdigit() and len(value) <= MAX_ID_DIGITS):
        return 0
    index = int(value)
    return index if index <= len(log) else 0


class EventStream:
    """One reader of one log: an ASGI response."""

    def __init__(
        self,
        log: FrameLog,
        *,
        index: int,
        framing: Framing,
        heartbeat_seconds: float,
        faults: list[StreamFault],
    ) -> None:
        self._log = log
        self._index = index
        self._framing = framing
        self._heartbeat_seconds = heartbeat_seconds
        self._faults = faults
        self._sent_frames = 0
        self._failure: Exception | None = None

    async def respond(self, receive: _Receive, send: _Send) -> None:
        """Write until the end. Raises `AbortConnection` or `ClientGone` plainly, never in a group."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch, receive, group.cancel_scope)
            try:
                await self._write(send)
            except (AbortConnection, ClientGone) as failure:
                self._failure = failure
            group.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure

    async def _watch(self, receive: _Receive, scope: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._failure = ClientGone("the client closed the stream")
        scope.cancel()

    async def _write(self, send: _Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": self._framing.preamble(), "more_body": True})
        while await self._meet_faults(send):
            frames = self._log.read(self._index, max_bytes=MAX_WRITE_BYTES, max_frames=self._frames_now())
            if frames:
                await self._send_frames(send, frames)
            elif self._log.closed:
                break
            else:
                await self._wait(send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _frames_now(self) -> int:
        if self._faults:
            return 1  # a fault is due at an exact frame
        return self._framing.frames_per_write or UNLIMITED_FRAMES

    async def _send_frames(self, send: _Send, frames: list[bytes]) -> None:
        number = self._index + 1
        data = b"".join([self._framing.event(number + offset, frame) for offset, frame in enumerate(frames)])
        self._index += len(frames)
        self._sent_frames += len(frames)
        await self._send_data(send, data)

    async def _send_data(self, send: _Send, data: bytes) -> None:
        size = self._framing.chunk_bytes or len(data) or 1
        for start in range(0, len(data), size):
            await send({"type": "http.response.body", "body": data[start : start + size], "more_body": True})

    async def _wait(self, send: _Send) -> None:
        with anyio.move_on_after(self._heartbeat_seconds):
            await self._log.wait_beyond(self._index)
            return
        await self._send_data(send, self._framing.comment(b"heartbeat"))

    async def _meet_faults(self, send: _Send) -> bool:
        """Let every fault that is due happen; False to end the response here, in order."""
        for fault in [fault for fault in self._faults if fault.after_frames <= self._sent_frames]:
            if fault.needs_frame and not await self._frame_is_there(send):
                continue
            self._faults.remove(fault)
            if not await self._meet(fault, send):
                return False
        return True

    async def _frame_is_there(self, send: _Send) -> bool:
        while len(self._log) <= self._index and not self._log.closed:
            await self._wait(send)
        return len(self._log) > self._index

    async def _meet(self, fault: StreamFault, send: _Send) -> bool:
        if fault.after_bytes:
            (frame,) = self._log.read(self._index, max_bytes=1, max_frames=1)
            cut = self._framing.event(self._index + 1, frame)[: fault.after_bytes]
            await self._send_data(send, cut)
        if fault.data:
            await self._send_data(send, fault.data)
        if fault.seconds:
            await anyio.sleep(fault.seconds)
        if fault.action in ("drop", "reset"):
            raise AbortConnection(reset=fault.action == "reset")
        return fault.action != "end"
