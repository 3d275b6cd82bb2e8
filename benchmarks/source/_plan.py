"""What a session id asks the source for. The id is the whole configuration, so any HTTP client can be a contender.

burst-<frames>-<frames per write>     every write is sent by itself, as fast as the socket takes them
backlog-<frames>-<frames per write>   the same bytes and the same chunks, sent 256 KiB at a time
paced-<streams>-<writes>-<per second> waits until so many streams are open, then writes one frame to each in turn,
                                      at so many writes a second in all
closing-<the same>                    the same, but the server closes each connection after its stream
idle                                  one frame, then silence until the client leaves
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from . import _wire

SEND_BYTES = 256 * 1024


@dataclass(frozen=True)
class Bulk:
    """A stream that is written as fast as the client reads it."""

    writes: tuple[bytes, ...]


@dataclass(frozen=True)
class Paced:
    """A stream that belongs to a group, all of which are written in turn."""

    streams: int
    per_second: int
    writes: tuple[bytes, ...]
    closes: bool


@dataclass(frozen=True)
class Idle:
    """A stream that says it is running and nothing more."""


Plan = Bulk | Paced | Idle


def burst_id(frames: int, per_write: int) -> str:
    return f"burst-{frames}-{per_write}"


def backlog_id(frames: int, per_write: int) -> str:
    return f"backlog-{frames}-{per_write}"


def paced_id(streams: int, writes: int, per_second: int, *, closes: bool = False) -> str:
    return f"{'closing' if closes else 'paced'}-{streams}-{writes}-{per_second}"


IDLE_ID = "idle"


@cache
def plan(session_id: str) -> Plan:
    """Build all the bytes of a session once.

    Raises:
        ValueError: the id asks for nothing we know.
    """
    kind, *numbers = session_id.split("-")
    match kind, [int(number) for number in numbers]:
        case "burst", [frames, per_write]:
            return Bulk(tuple(_wire.chunks(frames, per_write)))
        case "backlog", [frames, per_write]:
            return Bulk(_in_large_sends(_wire.chunks(frames, per_write)))
        case "paced" | "closing", [streams, writes, per_second]:
            return Paced(streams, per_second, tuple(_wire.chunks(writes - 1, 1)), closes=kind == "closing")
        case "idle", []:
            return Idle()
        case _:
            raise ValueError(f"no plan for session {session_id!r}")


def _in_large_sends(chunks: list[bytes]) -> tuple[bytes, ...]:
    body = b"".join(chunks)
    return tuple(body[start : start + SEND_BYTES] for start in range(0, len(body), SEND_BYTES))
