"""A stream: how a session's log reaches one reader. Imports anyio, and knows nothing of phases.

A stream reads the shared log by index, so a slow reader holds back nothing but itself. It ends after the last frame of
a closed log, when the client goes away, or as a `StreamFault` says.
"""

from __future__ import annotations

import anyio

from ._differences import Difference, rewrite_frame
from ._faults import StreamFault
from ._framing import Framing
from ._log import FrameLog
from ._server import AbortConnection, ClientGone, Exchange, Reply

MAX_WRITE_BYTES = 65_536
MAX_ID_DIGITS = 18
UNLIMITED_FRAMES = 1_000_000_000
STREAM_HEAD = Reply(
    headers={"content-type": "text/event-stream", "cache-control": "no-cache", "x-accel-buffering": "no"}
)


def resume_index(last_event_id: str | None, framing: Framing, log: FrameLog) -> int:
    """The index of the first frame to send. It is 0, which replays everything, for an id that this log never sent."""
    if not framing.ids or last_event_id is None:
        return 0
    # Ids are decimal numbers. `isdigit` alone would let other digits than ASCII through.
    if not (last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) <= MAX_ID_DIGITS):
        return 0
    index = int(last_event_id)
    return index if index <= len(log) else 0


def first_index(last_event_id: str | None, framing: Framing, log: FrameLog, differences: list[Difference]) -> int:
    """The index of the first frame to send."""
    if "live_only_stream" in differences or _only_heartbeats(differences, log):
        return len(log)
    return resume_index(last_event_id, framing, log)


def _only_heartbeats(differences: list[Difference], log: FrameLog) -> bool:
    return "heartbeats_only_stream" in differences and log.closed


class EventStream:
    """One reader of one log."""

    def __init__(
        self,
        log: FrameLog,
        *,
        index: int,
        framing: Framing,
        heartbeat_seconds: float,
        faults: list[StreamFault],
        differences: list[Difference],
    ) -> None:
        self._log = log
        self._index = index
        self._framing = framing
        self._heartbeat_seconds = heartbeat_seconds
        self._faults = faults
        self._differences = differences
        self._stays_open = "stream_stays_open" in differences or _only_heartbeats(differences, log)
        self._sent_frames = 0
        self._failure: Exception | None = None

    async def respond(self, exchange: Exchange) -> None:
        """Write until the end. Raises `AbortConnection` or `ClientGone` plainly, never in a group."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch, exchange, group.cancel_scope)
            # An exception that left the task group would come out inside an ExceptionGroup.
            try:
                await self._write(exchange)
            except (AbortConnection, ClientGone) as failure:
                self._failure = failure
            group.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure

    async def _watch(self, exchange: Exchange, scope: anyio.CancelScope) -> None:
        # A stream may be silent for long, and only a read notices that the client has left meanwhile.
        await exchange.client_left()
        self._failure = ClientGone("the client closed the stream")
        scope.cancel()

    async def _write(self, exchange: Exchange) -> None:
        await exchange.begin(STREAM_HEAD)
        await exchange.send(self._framing.preamble())
        # The log is looked at again after each write, because it may have grown while a slow reader was waited for.
        while await self._meet_faults(exchange):
            frames = self._log.read(self._index, max_bytes=MAX_WRITE_BYTES, max_frames=self._frames_now())
            if frames:
                await self._send_frames(exchange, frames)
            elif self._log.closed and not self._stays_open:
                break
            else:
                await self._wait(exchange)
        await exchange.end()

    def _frames_now(self) -> int:
        if self._faults:
            return 1  # a fault is due after an exact number of frames
        return self._framing.frames_per_write or UNLIMITED_FRAMES

    async def _send_frames(self, exchange: Exchange, frames: list[bytes]) -> None:
        number = self._index + 1
        data = b"".join([self._event(number + offset, frame) for offset, frame in enumerate(frames)])
        self._index += len(frames)
        self._sent_frames += len(frames)
        await self._send(exchange, data)

    def _event(self, number: int, frame: bytes) -> bytes:
        if not self._differences:
            return self._framing.event(number, frame)
        changed = rewrite_frame(self._differences, frame)
        return b"" if changed is None else self._framing.event(number, changed)

    async def _send(self, exchange: Exchange, data: bytes) -> None:
        size = self._framing.chunk_bytes or len(data) or 1
        for start in range(0, len(data), size):
            await exchange.send(data[start : start + size])

    async def _wait(self, exchange: Exchange) -> None:
        """Wait for the next frame. Send a heartbeat if there is none in time."""
        with anyio.move_on_after(self._heartbeat_seconds):
            if self._log.closed:  # only a stream that stays open waits for frames that cannot come
                await anyio.sleep_forever()
            await self._log.wait_beyond(self._index)
            return
        await self._send(exchange, self._framing.comment(b"heartbeat"))

    async def _meet_faults(self, exchange: Exchange) -> bool:
        """Let every fault that is due happen. Returns False where the response must end here, in good order."""
        for fault in [fault for fault in self._faults if fault.after_frames <= self._sent_frames]:
            if fault.after_bytes and not await self._next_frame_is_there(exchange):
                continue
            self._faults.remove(fault)
            if not await self._meet(fault, exchange):
                return False
        return True

    async def _next_frame_is_there(self, exchange: Exchange) -> bool:
        """Wait for the frame that a fault will cut in two. There is none if the log is closed first."""
        while len(self._log) <= self._index and not self._log.closed:
            await self._wait(exchange)
        return len(self._log) > self._index

    async def _meet(self, fault: StreamFault, exchange: Exchange) -> bool:
        if fault.after_bytes:
            (frame,) = self._log.read(self._index, max_bytes=1, max_frames=1)
            await self._send(exchange, self._event(self._index + 1, frame)[: fault.after_bytes])
        if fault.data:
            await self._send(exchange, fault.data)
        if fault.seconds:
            await anyio.sleep(fault.seconds)
        if fault.action in ("drop", "reset"):
            raise AbortConnection(reset=fault.action == "reset")
        return fault.action != "end"
