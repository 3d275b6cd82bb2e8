"""How far into a session a stream has come, and how a reconnected stream is held against that. Without I/O."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import cast

from enclave.errors import ProtocolError

_MIN_SERIES = 3  # how many ids make a series whose breaks mean something
_MAX_ID_DIGITS = 18


@dataclass(frozen=True, slots=True)
class Position:
    """Where a stream stands, and what it takes to prove that a replay is of the same session."""

    count: int = 0
    """Number of frames received, malformed ones included."""
    checksum: int = 0
    """CRC-32 over the data of all events so far, a newline after each."""
    first_event_id: str = ""
    """The id of the session's first event; empty where it had none."""
    last_event_id: str = ""
    """The id in force after the last event; empty where there is none."""

    id_is_current: bool = True
    """Whether no event without an id came after the one that set `last_event_id`, and it may be gone on after."""
    recent_ids: tuple[str, ...] = field(default=(), compare=False)
    """The ids of the latest events, oldest first; how many depends on how the bytes came."""

    @property
    def can_resume_by_id(self) -> bool:
        """Whether ``Last-Event-ID`` can be trusted to go on after the last event.

        A server that ignores it must be told apart by its first id; and one that does not would repeat what came after
        the id.
        """
        return bool(self.first_event_id and self.last_event_id and self.id_is_current)

    def doubt_about(self, next_id: str) -> str | None:
        """Why an event of this id may not be the one that follows; None where nothing speaks against it."""
        if not next_id:
            return f"the event that came after {self.last_event_id!r} has no id"
        if next_id == self.last_event_id or next_id in self.recent_ids:
            return f"the server was to go on after {self.last_event_id!r} and sent {next_id!r} again"
        # The latest alone: between older ones there may be ids that nobody kept.
        numbers = [_number(event_id) for event_id in (*self.recent_ids[-_MIN_SERIES:], next_id)]
        if len(numbers) > _MIN_SERIES and None not in numbers:
            steps = [after - before for before, after in itertools.pairwise(cast(list[int], numbers))]
            if set(steps[:-1]) == {1} and steps[-1] != 1:
                return f"ids were consecutive, and {next_id!r} came after {self.last_event_id!r}"
        return None


def _number(event_id: str) -> int | None:
    is_number = event_id.isascii() and event_id.isdigit() and len(event_id) <= _MAX_ID_DIGITS
    return int(event_id) if is_number else None


class HistoryMismatch(ProtocolError):
    """A replay differs from what was received before, so nothing after it can be trusted to follow on."""


class UnprovenContinuation(ProtocolError):
    """Asked to go on after an id, the server sent an event that may not be the next: only a replay can tell."""
