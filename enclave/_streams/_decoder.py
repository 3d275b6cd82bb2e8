"""Frames from the bytes of one connection: whole reads at once where they are plain, event by event where they are not.

A read is plain when its blocks have one shape (see `_plain`). One regular expression takes the JSON texts out and one
msgspec call decodes them, at about a tenth of the cost of decoding event by event. Everything else, down to single
events inside a read, goes through `SSEDecoder`; both ways give the same frames on every input and at every split.

Why counting suffices to prove a bulk decode right: each text begins with ``{``, ends with ``}`` and is followed by a
newline, which JSON allows only between values. So the boundaries between texts are boundaries between values, each text
holds at least one value, and as many values as texts means exactly one value in each.
"""

from __future__ import annotations

import dataclasses
import re
from collections import deque
from collections.abc import Callable
from typing import cast
from zlib import crc32

import msgspec

from enclave.errors import EventTooLargeError, ProtocolError
from enclave.transport import DEFAULT_MAX_EVENT_BYTES, SSEDecoder
from enclave.types import EndFrame, StreamFrame, UnknownFrame

from . import _plain
from ._frames import decode_frame, known_frames
from ._position import HistoryMismatch, Position, UnprovenContinuation

_MAX_RECENT_IDS = 256
_MAX_RECENT_REGIONS = 8  # whose ids are not looked for until somebody asks; of each its end is kept
_MAX_HELD_BYTES = 128 * 1024  # of an unfinished block that waits to be decoded in bulk with its end


class FrameDecoder:
    """Turns the bytes of one connection into batches of frames, and keeps the position that a resume needs.

    Args:
        max_event_bytes: bound of one event, as for `SSEDecoder`.
        position: where the stream stood when an earlier connection broke.
        replays: whether this connection starts again from the first frame. The frames up to `position` are then
            compared with what was received and not given out again. Otherwise the server was asked to go on after
            ``position.last_event_id``; if it starts from the first event all the same, that is noticed, and treated
            alike.
        on_unknown: is told of every frame that cannot be read, and how many frames came before it.
    """

    def __init__(
        self,
        *,
        max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES,
        position: Position | None = None,
        replays: bool = False,
        on_unknown: Callable[[UnknownFrame, int], None] | None = None,
    ) -> None:
        self.ended = False
        """Whether nothing can follow what was given out: an `EndFrame` was, or `failure` says why not."""
        self.failure: ProtocolError | None = None
        """The error that stands behind the frames given out so far."""
        self._on_unknown = on_unknown
        self._exact = SSEDecoder(max_event_bytes=max_event_bytes)
        self._max_event_bytes = max_event_bytes
        self._max_held_bytes = min(_MAX_HELD_BYTES, max_event_bytes)
        self._rest = b""
        self._frames: list[StreamFrame] = []
        self._before = position or Position()
        self._count = self._before.count
        self._checksum = self._before.checksum
        self._first_event_id = self._before.first_event_id
        self._awaits_continuation = bool(self._before.count) and not replays
        self._is_unproven = False
        self._replay_left = 0
        # The latest ids, for `Position.doubt_about`: of events decoded exactly, and behind them those of the regions
        # that were decoded in bulk, which are only looked for when a position is asked for.
        self._recent_ids = deque(self._before.recent_ids, maxlen=_MAX_RECENT_IDS)
        self._recent_regions: deque[bytes] = deque(maxlen=_MAX_RECENT_REGIONS)
        self._owes_id = False  # whether the exact decoder has yet to learn the id that the last of them set
        # Of the latest region decoded in bulk; None once anything was decoded exactly.
        self._shape: _plain.Shape | None = None
        if replays:
            self._start_replay()

    def _start_replay(self) -> None:
        self._replay_left = self._before.count
        self._count = self._checksum = 0

    @property
    def position(self) -> Position:
        """Where the stream stands after the bytes fed so far; until a replay is through, where it stood before."""
        if self._replay_left:
            return self._before
        if self._is_unproven:
            return dataclasses.replace(self._before, id_is_current=False)
        self._gather_ids()
        last_event_id = self._exact.last_event_id if self._exact.saw_id else self._before.last_event_id
        current = self._exact.id_is_current
        id_is_current = self._before.id_is_current if current is None else current
        recent_ids = tuple(self._recent_ids)
        return Position(self._count, self._checksum, self._first_event_id, last_event_id, id_is_current, recent_ids)

    @property
    def retry_ms(self) -> int | None:
        """The reconnection time the server asked for on this connection, in milliseconds."""
        return self._exact.retry_ms

    @property
    def is_replaying(self) -> bool:
        """Whether all that has come so far repeats what an earlier connection gave."""
        return self._replay_left > 0

    def feed(self, data: bytes) -> list[StreamFrame]:
        """Take in the next bytes and give the frames that they complete, in order. Look at `ended` afterwards."""
        self._frames = []
        if self._shape is not None and not self._rest and self._feed_alike(data, self._shape):
            return self._frames
        held, self._rest = self._rest, b""
        data = held + data if held else data
        while data and not self.ended and self._needs_exact():
            end = 0 if self._replay_left else _plain.end_of_first_event(data)
            self._feed_exact(data[:end] if end else data)
            data = data[end:] if end else b""
        if data and not self.ended:
            self._feed_blocks(data, may_hold=not held)
        return self._frames

    def _feed_alike(self, data: bytes, shape: _plain.Shape) -> bool:
        """Decode a read that holds whole blocks like the latest ones, as those of a live stream mostly do."""
        if self.ended or not data.endswith(b"\n\n") or len(data) > self._max_event_bytes or b"\r" in data:
            return False
        return self._feed_shaped(data, shape)

    def _needs_exact(self) -> bool:
        # The first event of all is looked at: its id is what tells a server that ignores `Last-Event-ID`.
        if not self._count or self._replay_left or self._awaits_continuation:
            return True
        return not self._exact.at_block_start

    def _feed_blocks(self, data: bytes, *, may_hold: bool) -> None:
        end = _plain.end_of_last_block(data)
        if end:
            self._feed_region(data[:end] if end < len(data) else data)
            data = data[end:]
        elif not may_hold:
            self._feed_exact(data)  # a long event: from here on the exact decoder keeps its fragments
            return
        # A carriage return can end an event without a blank line of LFs; such an event must not wait for the next read.
        if b"\r" in data or len(data) > self._max_held_bytes or self._needs_exact():
            self._feed_exact(data)
        else:
            self._rest = data

    def _feed_region(self, region: bytes) -> None:
        is_plain = len(region) <= self._max_event_bytes
        if b"\r" in region:
            is_plain = is_plain and region.count(b"\r") == region.count(b"\r\n")
            region = region.replace(b"\r\n", b"\n") if is_plain else region
        if not is_plain:
            self._feed_exact(region)
        elif not self._feed_bulk(region):
            self._feed_mixed(region)

    def _feed_bulk(self, region: bytes) -> bool:
        shape = _plain.shape_of(region)
        return shape is not None and self._feed_shaped(region, shape)

    def _feed_shaped(self, region: bytes, shape: _plain.Shape) -> bool:
        texts = _plain.texts_of(shape, region)
        if texts is None or not self._decode_texts(texts):
            return False
        self._shape = shape
        self._note_region(region, all_have_ids=shape.has_ids)
        return True

    def _feed_mixed(self, region: bytes) -> None:
        """Take the plain blocks in runs, whatever their shapes, and what lies between them exactly."""
        run: list[re.Match[bytes]] = []
        position = 0
        for match in _plain.ANY_PLAIN_BLOCK.finditer(region):
            if match.start() != position:
                self._feed_run(run, region)
                run = []
                self._feed_exact(region[position : match.start()])
            run.append(match)
            position = match.end()
        self._feed_run(run, region)
        if position < len(region):
            self._feed_exact(region[position:])

    def _feed_run(self, run: list[re.Match[bytes]], region: bytes) -> None:
        """Decode a run of plain blocks in bulk, halving it around whatever does not decode."""
        if not run or self.ended:
            return
        if self._decode_texts([match[1] for match in run]):
            self._note_region(region[run[0].start() : run[-1].end()], all_have_ids=False)
            return
        if len(run) == 1:
            self._feed_exact(run[0][0])
            return
        middle = len(run) // 2
        self._feed_run(run[:middle], region)
        self._feed_run(run[middle:], region)

    def _decode_texts(self, texts: list[bytes]) -> bool:
        joined = b"\n".join(texts) + b"\n" if len(texts) > 1 else texts[0] + b"\n"
        try:
            if not joined.isascii():
                joined.decode()  # msgspec does not look at the text of fields it skips, but the checksum covers it
            frames = known_frames.decode_lines(joined)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        if len(frames) != len(texts):
            return False
        if EndFrame in map(type, frames):
            del frames[[type(frame) for frame in frames].index(EndFrame) + 1 :]
        self._count += len(frames)
        self._checksum = crc32(joined, self._checksum)
        self._give(cast(list[StreamFrame], frames))
        return True

    def _note_region(self, region: bytes, *, all_have_ids: bool) -> None:
        """Remember the ids of a region that was decoded in bulk, which the exact decoder has not seen."""
        if self.ended:
            return
        kept = _plain.tail_of(region) if all_have_ids else b""
        if kept:
            self._recent_regions.append(kept)
            self._owes_id = True  # then only the last region counts, and only if somebody asks
            return
        self._gather_ids()
        last = _plain.last_id(region)
        if last is not None:
            self._recent_ids.extend(_plain.latest_ids_of(region))
            self._exact.skip_to_id(last[0])
        if last is None or not last[1]:
            self._exact.skip_event_without_id()

    def _settle_id(self) -> None:
        """Tell the exact decoder the id that was set last."""
        last = _plain.last_id(self._recent_regions[-1]) if self._owes_id else None
        self._owes_id = False
        if last is not None:
            self._exact.skip_to_id(last[0])

    def _gather_ids(self) -> None:
        self._settle_id()
        for region in self._recent_regions:
            self._recent_ids.extend(_plain.ids_of(region))
        self._recent_regions.clear()

    def _feed_exact(self, data: bytes) -> None:
        if self.ended:
            return
        self._gather_ids()
        self._shape = None
        try:
            for event in self._exact.feed(data):
                self._take_event(event.data.encode(), event.event, event.id)
                if self.ended:
                    return
            self._exact.feed(b"")  # an error that waits behind the events
        except (EventTooLargeError, HistoryMismatch, UnprovenContinuation) as error:
            self.failure = error
            self.ended = True

    def _take_event(self, data: bytes, event: str, event_id: str) -> None:
        if self._awaits_continuation:
            self._check_continuation(event_id)
        elif not self._count:
            self._first_event_id = self._first_event_id or event_id
        if event_id:
            self._recent_ids.append(event_id)
        self._count += 1
        self._checksum = crc32(data + b"\n", self._checksum)
        if self._replay_left:
            self._take_replayed(data, event)
            return
        frame = decode_frame(data, event)
        if self._on_unknown is not None and isinstance(frame, UnknownFrame):
            self._on_unknown(frame, self._count - 1)
        self._give([frame])

    def _check_continuation(self, event_id: str) -> None:
        """Look at the first event of a connection that was asked to go on after an id: does it?"""
        self._awaits_continuation = False
        if event_id and event_id == self._before.first_event_id:
            self._start_replay()
            return
        doubt = self._before.doubt_about(event_id)
        if doubt:
            self._is_unproven = True
            raise UnprovenContinuation(doubt)

    def _take_replayed(self, data: bytes, event: str) -> None:
        self._replay_left -= 1
        if b'"end"' in data or event == "end":
            self._refuse_early_end(data, event)
        if not self._replay_left and self._checksum != self._before.checksum:
            raise HistoryMismatch("the server's replay differs from the frames received before")

    def _refuse_early_end(self, data: bytes, event: str) -> None:
        if isinstance(decode_frame(data, event), EndFrame):
            came = self._count - 1
            raise HistoryMismatch(f"the server's replay has {came} of the {self._before.count} frames received before")

    def _give(self, frames: list[StreamFrame]) -> None:
        """Give frames out; an `EndFrame` among them is the last."""
        self.ended = isinstance(frames[-1], EndFrame)
        self._frames += frames
