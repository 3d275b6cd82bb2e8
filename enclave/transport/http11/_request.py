"""From a `Request` to the bytes that are sent. No I/O.

The bytes hold a credential. They live in memoryviews, whose repr shows nothing, and no function with a header's value
among its local variables raises: tracebacks rendered with local variables must not tell it.
"""

from __future__ import annotations

import re

from enclave.transport._messages import Request

MAX_PIECE_BYTES = 65_536
"""What one write sends at most. The write timeout counts for each, so a slow upload that makes progress is fine."""

_FORBIDDEN_IN_TARGET = re.compile(r"[^!-~]")
_SAFE_TO_REPEAT = frozenset({"GET", "DELETE"})


def pieces_of(request: Request, authority: bytes) -> list[memoryview]:
    """The bytes of a request, to be written one after the other.

    Raises:
        ValueError: the path or a header would break out of its line.
    """
    if _FORBIDDEN_IN_TARGET.search(request.target):
        raise ValueError(f"the path of a request must be printable ASCII without spaces, got {request.target!a:.200}")
    body = memoryview(request.content or b"")
    first = _head(request, authority, with_body=len(body) <= MAX_PIECE_BYTES)
    if first is None:
        raise ValueError(f"{request!r}: a header holds a line end or NUL")
    if len(body) <= MAX_PIECE_BYTES:
        return [first]
    return [first, *(body[start : start + MAX_PIECE_BYTES] for start in range(0, len(body), MAX_PIECE_BYTES))]


def may_repeat(request: Request) -> bool:
    """Whether the request may be sent again where the server closed the connection before it answered."""
    return request.method in _SAFE_TO_REPEAT


def _head(request: Request, authority: bytes, *, with_body: bool) -> memoryview | None:
    """The head, None for one that is not made of the lines it should be."""
    lines = [b"%b %b HTTP/1.1" % (request.method.encode(), request.target.encode()), b"Host: %b" % authority]
    lines += [b"%b: %b" % header for header in request.headers]
    if request.credential is not None:
        lines.append(b"Authorization: Bearer %b" % str(request.credential.reveal()).encode())
    if request.content is not None:
        lines.append(b"Content-Length: %d" % len(request.content))
    lines += [b"", b""]
    head = b"\r\n".join(lines)
    # A line end within a value would make two headers, or two requests, of one.
    line_ends = len(lines) - 1
    if head.count(b"\r") != line_ends or head.count(b"\n") != line_ends or b"\0" in head:
        return None
    return memoryview(head + request.content if request.content and with_body else head)
