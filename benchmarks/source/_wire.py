"""The bytes on the wire: frames in full SSE framing, one HTTP chunk around each write."""

from __future__ import annotations

import json
from collections.abc import Iterator

_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\ntransfer-encoding: chunked\r\n"
)
HEAD_OPEN = _HEAD + b"\r\n"
"""The connection stays open after the stream, as Node's server leaves it."""
HEAD_CLOSE = _HEAD + b"connection: close\r\n\r\n"
"""The server closes it."""
LAST_CHUNK = b"0\r\n\r\n"
CLOSING_FRAMES = 2
"""A phase frame and an end frame follow the stdout frames of every stream that ends."""


_TEXT = "step %7d of the workload, loss %.6f ok\n"
"""What the workload prints: an ordinary line of about fifty characters."""
_STDOUT = (
    b"id: %d\nevent: stdout\ndata: "
    + json.dumps({"kind": "stdout", "data": _TEXT}, separators=(",", ":")).encode()
    + b"\n\n"
)


def event(number: int, frame: dict[str, str]) -> bytes:
    """One frame as the control plane frames it: id, event and data lines."""
    data = json.dumps(frame, separators=(",", ":"))
    return f"id: {number}\nevent: {frame['kind']}\ndata: {data}\n\n".encode()


def opening() -> bytes:
    return event(1, {"kind": "phase", "phase": "running"})


def stdout_frames(count: int) -> Iterator[bytes]:
    return (_STDOUT % (number, number, 1 / (number + 1)) for number in range(1, count + 1))


def closing(count: int) -> bytes:
    phase = event(count + 1, {"kind": "phase", "phase": "succeeded"})
    return phase + event(count + 2, {"kind": "end"})


def characters(count: int) -> int:
    """How much text the stdout frames of such a stream carry: what a client must have received."""
    return sum(len(_TEXT % (number, 1 / (number + 1))) for number in range(1, count + 1))


def chunk(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


def chunks(count: int, frames_per_chunk: int) -> list[bytes]:
    """The body of a whole stream, one HTTP chunk for so many frames; the last one closes the stream."""
    frames = list(stdout_frames(count))
    starts = range(0, count, frames_per_chunk)
    written = [chunk(b"".join(frames[start : start + frames_per_chunk])) for start in starts]
    return [*written, chunk(closing(count)) + LAST_CHUNK]


def document(body: bytes, status: str = "200 OK") -> bytes:
    """A whole response that leaves its connection open for the next request."""
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def session(session_id: str) -> bytes:
    """A `Session` in full, about 450 bytes."""
    return json.dumps(
        {
            "id": session_id,
            "orgId": "org-1",
            "createdBy": "user-1",
            "phase": "running",
            "language": "python",
            "limits": {"cpuMillis": 1000, "memoryMb": 512, "wallClockMs": 60000, "pids": 64},
            "egress": {"mode": "deny_all", "allow": []},
            "backend": "source",
            "labels": {"purpose": "benchmark"},
            "createdAt": "2025-01-01T00:00:00.000Z",
            "startedAt": "2025-01-01T00:00:01.000Z",
            "finishedAt": None,
        }
    ).encode()
