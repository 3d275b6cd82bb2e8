"""How far into a session a stream has come, and how a reconnected stream is held against that. Without I/O."""

from __future__ import annotations

from dataclasses import dataclass

from enclave.errors import ProtocolError


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
    """Whether no event without an id came after the one that set `last_event_id`."""

    @property
    def can_resume_by_id(self) -> bool:
        """Whether ``Last-Event-ID`` can be trusted to go on after the last event.

        A server that ignores it must be told apart by its first id; and one that does not would repeat what came after
        the id.
        """
        return bool(self.first_event_id and self.last_event_id and self.id_is_current)


class HistoryMismatch(ProtocolError):
    """A replay differs from what was received before, so nothing after it can be trusted to follow on."""


class UnprovenContinuation(ProtocolError):
    """Asked to go on after an id, the server sent an event without one: it may be the next event or the first."""
