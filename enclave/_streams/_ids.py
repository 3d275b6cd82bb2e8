"""What the ids of a session's events can prove: which event was the last, and whether another one follows it.

    NONE ── the first id ──► COUNTING ── an id that is not the next number ──► DISTINCT
      │                          │                                                │
      │                          │                                                │ an id that came before, too many ids
      │                          ▼                                                ▼
      └──────────────────► an event without an id, an id that is too long ────► USELESS

NONE       No event has come.
COUNTING   The ids are numbers with a constant step between them, perhaps with the same text before each. Four small
           fields stand for all of them, and exactly one id can follow.
DISTINCT   Of each id a hash is kept, which tells whether an id is new.
USELESS    The ids prove nothing. A stream that breaks is resumed by a replay.

The hashes are Python's own, with a key that is random for each process. So no server can choose ids that collide, and a
collision only costs a replay.
"""

from __future__ import annotations

import enum
import re
from array import array

from ._plain import Shape, first_id, last_id

MAX_ID_BYTES = 1024
"""The longest id that is kept and sent back. Servers refuse long headers, some from 4 KiB in all."""
MAX_HASHES = 64 * 1024
"""How many ids are told apart if they are not a series of numbers. Their hashes take 512 KiB."""

_NUMBER = re.compile(rb"(.*?)([0-9]+)", re.DOTALL)
_LATEST = 3  # how many of the latest ids are looked at for a series, and two steps make one
_DELETE = 0x7F


class IdState(enum.Enum):
    """See the picture at the top of the module."""

    NONE = enum.auto()
    COUNTING = enum.auto()
    DISTINCT = enum.auto()
    USELESS = enum.auto()


class Series:
    """Ids that are numbers with a constant step between them."""

    __slots__ = ("_first", "_last", "_prefix", "_step", "_template", "count")

    def __init__(self, prefix: bytes, digits: bytes) -> None:
        width = len(digits) if digits.startswith(b"0") else 0  # padded with zeros
        self._template = prefix.replace(b"%", b"%%") + b"%%0%dd" % width
        self._prefix = prefix
        self._first = self._last = int(digits)
        self._step = 0  # not known before the second id
        self.count = 1

    @classmethod
    def of(cls, event_id: bytes) -> Series | None:
        """The series that begins with this id. None if it does not end in a number."""
        match = _NUMBER.fullmatch(event_id)
        return None if match is None else cls(match[1], match[2])

    @property
    def last(self) -> bytes:
        """The latest id."""
        return self._template % self._last

    def next(self, event_id: bytes) -> bytes | None:
        """The id that must follow, where `event_id` came. None if any may.

        After a lone number the next number is expected. If the server counts otherwise, a replay shows it. But a lone
        id with other text before its number may be one of many that have nothing in common.
        """
        is_opaque = not self._step and self._prefix and not self._step_to(event_id)
        return None if is_opaque else self._template % (self._last + (self._step or 1))

    def take(self, last: bytes, count: int = 1, first: bytes | None = None) -> bool:
        """Add `count` ids, of which the last is known, and the first as well if they are the first after a lone one.

        False, and nothing added, if the last is not `count` steps further.
        """
        step = self._step or self._step_to(last if first is None else first)
        number = self._last + count * step
        if not step or last != self._template % number:
            return False
        self._step = step
        self._last = number
        self.count += count
        return True

    def ids(self) -> list[bytes]:
        """All of them."""
        return [self._template % (self._first + index * self._step) for index in range(self.count)]

    def _step_to(self, second: bytes) -> int:
        # Cut, for an id of many megabytes of digits would keep the regular expression busy for seconds.
        match = _NUMBER.fullmatch(second[: MAX_ID_BYTES + 1])
        return 0 if match is None or match[1] != self._prefix else int(match[2]) - self._first


class EventIds:
    """The ids of all events so far, in bounded memory."""

    __slots__ = ("_hashes", "_latest", "_series", "state")

    def __init__(self) -> None:
        self.state = IdState.NONE
        self._series: Series | None = None
        self._hashes: array[int] | None = None
        self._latest: tuple[bytes, ...] = ()

    def note(self, event_id: bytes | None) -> None:
        """Take the id of the next event. None if the event has none of its own."""
        if self.state is IdState.USELESS:
            return
        if not event_id or len(event_id) > MAX_ID_BYTES:
            self.give_up()
        elif self._series is not None:
            if not self._series.take(event_id):
                self._leave_series(self._series, [event_id])
        elif self.state is IdState.NONE and (series := Series.of(event_id)) is not None:
            self._series = series
            self.state = IdState.COUNTING
        else:
            self._tell_apart([event_id])

    def note_region(self, region: bytes, shape: Shape, count: int) -> None:
        """Take the ids of a region of `count` events.

        Of a series only the last id is looked at, which must be `count` steps further at the end of every read. To look
        at them all would take as long as decoding the frames.
        """
        series = self._series
        if series is not None and shape.has_ids:
            # After a lone id the step is not known, and the first id here tells it.
            first = first_id(region) if series.count == 1 else None
            if not series.take(last_id(region), count, first):
                self._leave_series(series, shape.find_ids(region))
        elif self.state is IdState.USELESS:
            return
        elif shape.has_ids:
            self._tell_apart(shape.find_ids(region))
        else:
            self.give_up()

    def _leave_series(self, series: Series, ids: list[bytes]) -> None:
        # The ids of the series were never kept, and are made again from its numbers.
        if series.count > MAX_HASHES:
            self.give_up()
        else:
            self._tell_apart([*series.ids(), *ids])

    def _tell_apart(self, ids: list[bytes]) -> None:
        self._series = None
        self.state = IdState.DISTINCT
        if self._hashes is None:
            self._hashes = array("q")
        # 8 bytes for each id, where a set of the ids themselves would take some 100.
        self._hashes.extend(map(hash, ids))
        self._latest = (*self._latest, *ids[-_LATEST:])[-_LATEST:]
        if len(self._hashes) > MAX_HASHES or not all(ids) or max(map(len, self._latest)) > MAX_ID_BYTES:
            self.give_up()

    def give_up(self) -> None:
        """From here on the ids prove nothing."""
        self.state = IdState.USELESS
        self._series = None
        self._hashes = None
        self._latest = ()

    def resume_id(self) -> bytes | None:
        """The id to resume after, as ``Last-Event-ID`` carries it. None if only a replay can prove anything."""
        if self._series is not None:
            return _header_value(self._series.last)
        # Looked at here, once for each resume, and not for each event.
        if self._hashes is not None and len(set(self._hashes)) < len(self._hashes):
            self.give_up()
        return _header_value(self._latest[-1]) if self._latest else None

    def doubt_about(self, event_id: bytes | None) -> str | None:
        """Why an event of this id may not be the one that follows the last. None if nothing speaks against it."""
        last = self._latest[-1] if self._series is None else self._series.last
        after = f"after the event {_shown(last)} the server sent"
        if not event_id:
            return f"{after} one without an id"
        if len(event_id) > MAX_ID_BYTES:
            return f"{after} one whose id is too long to compare"
        expected = self._expected(event_id) if self._series is None else self._series.next(event_id)
        if expected is not None:
            return None if event_id == expected else f"{after} {_shown(event_id)}, and {_shown(expected)} is the next"
        if event_id == last or (self._hashes is not None and hash(event_id) in self._hashes):
            return f"{after} {_shown(event_id)} again"
        return f"{after} {_shown(event_id)}, which is an earlier one" if _falls(last, event_id) else None

    def _expected(self, event_id: bytes) -> bytes | None:
        """The id that follows the latest ones if these are a series, although others before them were not."""
        if len(self._latest) < _LATEST:
            return None
        first, *others = self._latest
        series = Series.of(first)
        return series.next(event_id) if series is not None and all(map(series.take, others)) else None


def _falls(last: bytes, event_id: bytes) -> bool:
    one, other = _NUMBER.fullmatch(last), _NUMBER.fullmatch(event_id)
    return one is not None and other is not None and one[1] == other[1] and int(other[2]) <= int(one[2])


def _header_value(event_id: bytes) -> bytes | None:
    """An id as a header carries it, in UTF-8. None for one that a header would not carry unchanged."""
    value = event_id.decode("utf-8", "replace").encode()
    if value != value.strip() or any(byte < ord(" ") or byte == _DELETE for byte in value):
        return None
    return value


def _shown(event_id: bytes) -> str:
    return repr(event_id[:64].decode("utf-8", "replace"))
