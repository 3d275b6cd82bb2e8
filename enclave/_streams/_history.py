"""What a stream has received of its session, and what proves that a new connection goes on exactly there. Without I/O.

Every connection after the first one either is asked to go on after the id of the last event, or it replays the session
from its first event:

                                    asked to go on                the next event follows
    FOLLOWING ── a connection ──┬──────────────────► PROVING ──────────────────────────────► FOLLOWING
    new events     broke        │                       │ │
                                │                       │ └─ another event ──► `UnprovenContinuation`, then a replay
                                │                       │
                                │                       │ the first event of the session
                                │  asked to replay      ▼            all events came again,
                                └──────────────────► REPLAYING ── and their checksum is the same ──► FOLLOWING
                                                        │
                                                        └─ they differ, or end too early ──► `HistoryMismatch`

A server that ignores ``Last-Event-ID`` replays from the first event. It is told by that event's id and data. Where such
a replay turns out to be none, for the same id and data can come twice, that is doubt as well: `UnprovenContinuation`.

Whatever is not proof is doubt, and doubt costs one replay. Nothing is given out before it is settled, and after it the
ids of this stream are not trusted again.
"""

from __future__ import annotations

import enum
from typing import NoReturn
from zlib import crc32

from enclave.errors import ProtocolError

from ._ids import MAX_ID_BYTES, EventIds
from ._plain import Shape


class HistoryMismatch(ProtocolError):
    """A replay differs from what was received before, so nothing after it can be trusted to follow on."""


class UnprovenContinuation(ProtocolError):
    """Asked to go on after an id, the server sent an event that may not be the next: only a replay can tell."""


class HistoryState(enum.Enum):
    """See the picture at the top of the module."""

    FOLLOWING = enum.auto()
    PROVING = enum.auto()
    REPLAYING = enum.auto()


FOLLOWING, PROVING, REPLAYING = HistoryState


class History:
    """The events of one session that a stream has received, over all its connections."""

    __slots__ = (
        "_checksum",
        "_first_hash",
        "_first_id",
        "_ids",
        "_last_hash",
        "_replayed_checksum",
        "_replayed_count",
        "_was_asked_to_replay",
        "count",
        "has_ended_workload",
        "state",
    )

    def __init__(self) -> None:
        self.state = FOLLOWING
        self.has_ended_workload = False
        """Whether a terminal phase was among the events."""
        self.count = 0
        """How many events have been received, each counted once."""
        self._checksum = 0  # over the data of them all
        # The same of what the latest replay has repeated.
        self._replayed_count = self._replayed_checksum = 0
        self._was_asked_to_replay = False
        self._ids = EventIds()
        self._first_hash = self._last_hash = 0  # of the data of the first and the last event
        self._first_id: bytes | None = None

    @property
    def is_replaying(self) -> bool:
        """Whether all that has come on this connection repeats what an earlier one gave."""
        return self.state is REPLAYING

    @property
    def repeated(self) -> int:
        """How many of the events a connection has repeated that has brought no new one so far."""
        return 0 if self.state is PROVING else self._replayed_count

    @property
    def wants_single_event(self) -> bool:
        """Whether the next event must be looked at alone: the very first one, or the one that is to prove something."""
        return self.state is PROVING or not self.count

    def resume_id(self) -> bytes | None:
        """What the next connection should be asked to go on after, as ``Last-Event-ID``. None for a replay."""
        return self._ids.resume_id() if self.count else None

    def distrust_ids(self) -> None:
        """Resume by replays only from here on."""
        self._ids.give_up()

    def connected(self, *, asked_to_go_on: bool) -> None:
        """A connection begins."""
        if not self.count:
            self.state = FOLLOWING
        elif asked_to_go_on:
            self.state = PROVING
        else:
            self._start_replay(was_asked=True)

    def note_id(self, event_id: bytes) -> None:
        """Take an id that came without an event."""
        # A replay repeats old ids, and they say nothing about the last event.
        if self.state is FOLLOWING:
            self._ids.note(event_id)

    def admit(self, data: bytes, event: bytes, event_id: bytes | None) -> bool:
        """Take one event. False if it repeats one that was received before.

        Raises:
            UnprovenContinuation, HistoryMismatch: see the picture at the top of the module.
        """
        # If the data does not tell the kind of the frame, the name of the event does, and has to be compared as well.
        if b'"kind"' not in data:
            data = event + b":" + data
        line = data + b"\n"
        if self.state is PROVING:
            self._prove(hash(data), event_id)
        if self.state is REPLAYING:
            self._replay(line, 1)
            return False
        self._last_hash = hash(data)
        if not self.count:
            self._first_hash = self._last_hash
            # One that is too long proves nothing, like all ids after it, and may be of many megabytes.
            self._first_id = event_id if event_id is not None and len(event_id) <= MAX_ID_BYTES else None
        self.count += 1
        self._checksum = crc32(line, self._checksum)
        self._ids.note(event_id)
        return True

    def admit_region(self, region: bytes, shape: Shape, joined: bytes, count: int, last: bytes) -> None:
        """Take the new events of a plain region, with their data joined and the data of the last one alone."""
        self.count += count
        self._checksum = crc32(joined, self._checksum)
        self._last_hash = hash(last)
        self._ids.note_region(region, shape, count)

    def skip_region(self, joined: bytes, count: int) -> bool:
        """Take the events of a plain region that repeats what was received before. False if there is more in it.

        Raises:
            HistoryMismatch: they differ.
        """
        # The last known event and new ones in one region: it is cut between them, event by event.
        if self._replayed_count + count > self.count:
            return False
        self._replay(joined, count)
        return True

    def refuse_end(self) -> NoReturn:
        """The session ended in the middle of a replay.

        Raises:
            HistoryMismatch, UnprovenContinuation: one of the two, always.
        """
        came, count = self._replayed_count, self.count
        self._refuse_replay(f"the server's replay has {came} of the {count} frames received before")

    def _start_replay(self, *, was_asked: bool) -> None:
        self.state = REPLAYING
        self._replayed_count = self._replayed_checksum = 0
        self._was_asked_to_replay = was_asked

    def _refuse_replay(self, reason: str) -> NoReturn:
        if self._was_asked_to_replay:
            raise HistoryMismatch(reason)
        self._ids.give_up()
        raise UnprovenContinuation(reason)

    def _replay(self, joined: bytes, count: int) -> None:
        self._replayed_count += count
        self._replayed_checksum = crc32(joined, self._replayed_checksum)
        if self._replayed_count == self.count:
            # The checksum is one of all events, so it can be compared only when the last of them is there.
            if self._replayed_checksum != self._checksum:
                self._refuse_replay("the server's replay differs from the frames received before")
            self.state = FOLLOWING

    def _prove(self, data_hash: int, event_id: bytes | None) -> None:
        """Look at the first event of a connection that was asked to go on: does it follow the last one?"""
        if data_hash == self._first_hash and event_id == self._first_id:
            self._start_replay(was_asked=False)
            return
        doubt = self._ids.doubt_about(event_id)
        if doubt is None and data_hash in (self._first_hash, self._last_hash):
            # A server that restarted may give new ids to old events. The same data again may also be chance.
            doubt = "the server sent the data of an earlier event under another id"
        if doubt is not None:
            self._ids.give_up()
            raise UnprovenContinuation(doubt)
        self.state = FOLLOWING
