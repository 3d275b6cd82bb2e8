"""The bytes of responses and event streams, for the scripts of both servers."""

from __future__ import annotations

import json
import zlib
from typing import Any

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED_SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
END = b'data: {"kind":"end"}\n\n'


def response(body: bytes | Any = b"", status: int = 200, **headers: str) -> bytes:
    """A whole response. What is not bytes goes as JSON. `content_type="..."` is ``Content-Type``."""
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
        headers = {"content_type": "application/json", **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return with_body(body, "\r\n".join([f"HTTP/1.1 {status} Reason {status}", *lines, ""]).encode("latin-1"))


def with_body(body: bytes, head: bytes = JSON_HEAD) -> bytes:
    """The response of an unfinished head, completed by the length of this body."""
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def bomb(filler: bytes, times: int, wbits: int = 16 + zlib.MAX_WBITS) -> bytes:
    """What inflates to `filler` so many times over. It has no end, for nobody is to read that far."""
    packer = zlib.compressobj(9, wbits=wbits)
    first, second = (packer.compress(filler) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return first + second * (times - 1)  # after a full flush a piece refers to nothing before it


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(frame: Any, event_id: str | None = None) -> bytes:
    """One event, LF-framed. A frame is a dict, JSON text, or a string that becomes a stdout frame."""
    if isinstance(frame, str):
        frame = {"kind": "stdout", "data": frame}
    data = frame if isinstance(frame, bytes) else json.dumps(frame, ensure_ascii=False).encode()
    return (f"id: {event_id}\n".encode() if event_id is not None else b"") + b"data: %b\n\n" % data


def session(session_id: str = "s-1", phase: str = "running", **fields: Any) -> dict[str, Any]:
    return {"id": session_id, "phase": phase, **fields}
