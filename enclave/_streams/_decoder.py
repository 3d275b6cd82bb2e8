"""Frames from the bytes of one connection: whole reads at once where they are plain, event by event where they are not.

A read is plain when its blocks have one shape (see `_plain`). One regular expression takes the JSON texts out and one
msgspec call decodes them, at about a tenth of the cost of decoding event by event. A stretch that is not plain, or that
does not decode, is halved until what remains of it is small. That is decoded event by event, by the rules of SSE. Both
ways give the same frames on every input and at every split.

Why counting suffices to prove a bulk decode right: each text begins with ``{``, ends with ``}`` and is followed by a
newline, which JSON allows only between values. So the boundaries between texts are boundaries between values, each text
holds at least one value, and as many values as texts means exactly one value in each.
"""

from __future__ import annotations

from enclave.errors import ProtocolError
from enclave.transport import DEFAULT_MAX_EVENT_BYTES, Block, BlockDecoder
from enclave.types import EndFrame, PhaseFrame, StreamFrame, UnknownFrame

from . import _plain
from ._frames import decode_frame, decode_frames
from ._history import REPLAYING, History, HistoryMismatch, UnprovenContinuation
from ._warnings import UnknownFrameLog

_MAX_HELD_BYTES = 128 * 1024  # of an unfinished block that waits to be decoded in bulk with its end
_MIN_BULK_BYTES = 2048  # a smaller stretch that does not decode in bulk is not halved any further
_MILESTONES = frozenset({EndFrame, PhaseFrame})


class FrameDecoder:
    """Turns the bytes of one connection into frames that are new to its stream's history.

    Args:
        history: what the stream has received so far. The decoder brings it up to date.
        max_event_bytes: bound of one event, as for `SSEDecoder`.
        unknown_frames: is told of every frame that cannot be read, and how many frames came before it.
    """

    __slots__ = (
        "_blocks",
        "_frames",
        "_goes_alone",
        "_held",
        "_history",
        "_max_event_bytes",
        "_max_held_bytes",
        "_shape",
        "_unknown_frames",
        "ended",
        "failure",
    )

    def __init__(
        self,
        history: History,
        *,
        max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES,
        unknown_frames: UnknownFrameLog | None = None,
    ) -> None:
        self.ended = False
        """Whether nothing can follow what was given out: an `EndFrame` was, or `failure` says why not."""
        self.failure: ProtocolError | None = None
        """The error that stands behind the frames given out so far."""
        self._history = history
        self._max_event_bytes = max_event_bytes
        self._max_held_bytes = min(_MAX_HELD_BYTES, max_event_bytes)
        self._unknown_frames = unknown_frames
        self._blocks = BlockDecoder(max_event_bytes)
        self._held = b""  # the start of a block that waits for the rest
        self._shape: _plain.Shape | None = None  # of the latest plain region, None after anything else
        # Whether the next bytes must go event by event: the rest of a block, or an event that is to prove something.
        self._goes_alone = True
        self._frames: list[StreamFrame] | None = None  # what the read under way has completed

    @property
    def retry_ms(self) -> int | None:
        """The reconnection time the server asked for on this connection, in milliseconds."""
        return self._blocks.retry_ms

    @property
    def has_begun_event(self) -> bool:
        """Whether a part of an event has come, and its end has not."""
        return bool(self._held) or self._blocks.has_begun_block

    def feed(self, data: bytes) -> list[StreamFrame]:
        """Take in the next bytes and give the frames that they complete, in order. Look at `ended` afterwards."""
        if self.ended:
            return []
        # Most reads of a live stream hold whole blocks like the latest ones, and need nothing else.
        shape = None if self._held or b"\r" in data or not data.endswith(b"\n\n") else self._shape
        try:
            if shape is None or not self._take_plain(data, shape):
                self._take(data)
        except (HistoryMismatch, UnprovenContinuation) as error:
            self._fail(error)
        # Not kept, for a stream may be silent for hours after its latest frames.
        frames, self._frames = self._frames, None
        return frames or []

    def _take(self, data: bytes) -> None:
        held, self._held = self._held, b""
        data = held + data if held else data
        while self._goes_alone and data and not self.ended:
            end = _plain.end_of_first_event(data) or len(data)
            self._take_exactly(data[:end])
            data = data[end:]
        if data and not self.ended:
            self._take_blocks(data, may_hold=not held)

    def _take_blocks(self, data: bytes, *, may_hold: bool) -> None:
        end = _plain.end_of_last_block(data)
        if end:
            self._take_lines(data[:end] if end < len(data) else data)
            data = data[end:]
        elif not may_hold:
            # A long event. From here on its fragments are kept, since joining them at every read costs quadratic time.
            self._take_exactly(data)
            return
        # A carriage return can end an event without a blank line of LFs. Such an event must not wait for the next read.
        if b"\r" in data or len(data) > self._max_held_bytes or self._goes_alone:
            self._take_exactly(data)
        else:
            self._held = data

    def _take_lines(self, blocks: bytes) -> None:
        """Take whole blocks, whatever their line ends are."""
        if b"\r" not in blocks:
            self._take_region(blocks)
        elif blocks.count(b"\r") == blocks.count(b"\r\n"):
            self._take_region(blocks.replace(b"\r\n", b"\n"))
        else:
            self._take_exactly(blocks)

    def _take_region(self, region: bytes) -> None:
        if self.ended:
            return
        shape = _plain.shape_of(region)
        if shape is not None and self._take_plain(region, shape):
            return
        middle = _plain.middle_of(region) if len(region) > _MIN_BULK_BYTES else 0
        if middle:
            self._take_region(region[:middle])
            self._take_region(region[middle:])
        else:
            self._take_exactly(region)

    def _take_plain(self, region: bytes, shape: _plain.Shape) -> bool:
        """Decode a region at once. False, and nothing done, if it is not wholly plain, or not wholly sound."""
        texts = shape.texts_of(region) if len(region) <= self._max_event_bytes else None
        if texts is None:
            return False
        # The data of the events, each with a newline after it: one input for the decoder and for the checksum.
        joined = b"\n".join(texts) + b"\n" if len(texts) > 1 else texts[0] + b"\n"
        frames = decode_frames(joined, len(texts))
        if frames is None:
            return False
        if self._history.state is REPLAYING:
            # The end of the session would come too early here, and has to be met alone.
            if EndFrame in map(type, frames) or not self._history.skip_region(joined, len(frames)):
                return False
        else:
            if not _MILESTONES.isdisjoint(map(type, frames)):
                frames = self._up_to_the_end(frames)
            self._history.admit_region(region, shape, joined, len(frames), texts[-1])
            # The usual read is one region, and its list of frames is given out without copying it.
            if self._frames:
                self._frames += frames
            else:
                self._frames = frames
        self._shape = shape
        return True

    def _up_to_the_end(self, frames: list[StreamFrame]) -> list[StreamFrame]:
        end = next((index for index, frame in enumerate(frames) if self._is_end(frame)), len(frames))
        return frames[: end + 1]

    def _is_end(self, frame: StreamFrame) -> bool:
        if isinstance(frame, PhaseFrame) and frame.phase.is_terminal:
            self._history.has_ended_workload = True
        self.ended = isinstance(frame, EndFrame)
        return self.ended

    def _take_exactly(self, data: bytes) -> None:
        """Decode event by event."""
        self._shape = None
        if self.ended:
            return
        for block in self._blocks.feed(data):
            self._take_block(block)
            if self.ended:
                return
        self._goes_alone = not self._blocks.at_block_start or self._history.wants_single_event
        if self._blocks.failure is not None:
            self._fail(self._blocks.failure)

    def _take_block(self, block: Block) -> None:
        if block.data is None:
            if block.event_id is not None:
                self._history.note_id(block.event_id)
            return
        # Invalid UTF-8 is replaced before the checksum, so that a replay is compared by what callers were given.
        data = block.data if block.data.isascii() else block.data.decode("utf-8", "replace").encode()
        event = block.event.decode("utf-8", "replace")
        may_end = b'"end"' in data or event == "end"
        if may_end and self._history.is_replaying and isinstance(decode_frame(data, event), EndFrame):
            self._history.refuse_end()
        if not self._history.admit(data, block.event, block.event_id):
            return
        frame = decode_frame(data, event)
        if self._unknown_frames is not None and isinstance(frame, UnknownFrame):
            self._unknown_frames.note(frame, self._history.count - 1)
        self._is_end(frame)
        if self._frames is None:
            self._frames = [frame]
        else:
            self._frames.append(frame)

    def _fail(self, error: ProtocolError) -> None:
        self.failure = error
        self.ended = True
