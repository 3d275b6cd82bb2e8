"""From an httpx request to bytes and framing. No I/O.

A serialised head holds a credential. It lives in a memoryview, whose repr shows nothing, and no function with a
header value among its local variables raises: tracebacks rendered with local variables must not tell it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import httpx

MAX_INLINE_BODY_BYTES = 65_536
"""A body up to this size travels in one write with the head; a larger one is sent in pieces of this size."""

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FORBIDDEN_IN_VALUE = re.compile(rb"[\r\n\0]")
_FORBIDDEN_IN_TARGET = re.compile(rb"[\x00-\x20\x7f]")
_SAFE_TO_REPEAT = frozenset({"GET", "HEAD", "DELETE"})


class Timeouts(NamedTuple):
    """Seconds, None for no limit: for a connection, for each read and write, for a free place in the pool."""

    connect: float | None
    read: float | None
    write: float | None
    pool: float | None

    @classmethod
    def of(cls, request: httpx.Request) -> Timeouts:
        """As `httpx.Timeout` leaves them in the request's extensions."""
        given: dict[str, float | None] = request.extensions.get("timeout") or {}
        return cls(given.get("connect"), given.get("read"), given.get("write"), given.get("pool"))


class Outgoing(NamedTuple):
    """A request, ready to be sent."""

    first: memoryview
    """The head, and a small body with it."""
    rest: memoryview | httpx.AsyncByteStream | None
    """The body that is still to be sent after `first`."""
    rest_bytes: int | None
    """How long `rest` is; None sends it in chunks."""
    method: str
    repeatable: bool
    """May be sent a second time if the first got no answer."""
    keep_alive: bool


class _Framing(NamedTuple):
    length: bytes | None = None
    coding: bytes | None = None
    connection: bytes | None = None
    has_host: bool = False


def prepare(request: httpx.Request) -> Outgoing:
    """Serialise a request.

    Raises:
        httpx.LocalProtocolError: it cannot be sent as HTTP/1.1; the message names the header, never its value.
    """
    framing = _framing_of(request)
    body = _loaded_body(request)
    fault = _fault_of(request) or _framing_fault(framing, body)
    if fault:
        raise httpx.LocalProtocolError(f"the request cannot be sent: {fault}")
    length = _body_bytes(framing, body)
    head = memoryview(b"".join(_head_pieces(request, framing, length)))
    keep_alive = b"close" not in (framing.connection or b"").lower()
    if body is None or len(body) > MAX_INLINE_BODY_BYTES or (length is None and body):
        rest = _as_stream(request) if body is None else body
        return Outgoing(head, rest, length, request.method, repeatable=False, keep_alive=keep_alive)
    ending = b"0\r\n\r\n" if length is None else b""
    first = memoryview(b"".join((head, body, ending))) if body or ending else head
    return Outgoing(first, None, 0, request.method, request.method in _SAFE_TO_REPEAT, keep_alive)


def _loaded_body(request: httpx.Request) -> memoryview | None:
    try:
        return memoryview(request.content)
    except httpx.RequestNotRead:
        return None


def _as_stream(request: httpx.Request) -> httpx.AsyncByteStream:
    if isinstance(request.stream, httpx.AsyncByteStream):
        return request.stream
    raise httpx.LocalProtocolError("the request cannot be sent: its body is a synchronous stream")


def _body_bytes(framing: _Framing, body: memoryview | None) -> int | None:
    if framing.coding is not None:
        return None
    if body is not None:
        return len(body)
    return None if framing.length is None else int(framing.length)


def _framing_of(request: httpx.Request) -> _Framing:
    fields = {name.lower(): value for name, value in request.headers.raw}
    return _Framing(
        fields.get(b"content-length"), fields.get(b"transfer-encoding"), fields.get(b"connection"), b"host" in fields
    )


def _framing_fault(framing: _Framing, body: memoryview | None) -> str | None:
    if framing.length is not None and framing.coding is not None:
        return "it has both Content-Length and Transfer-Encoding"
    if framing.coding is not None and framing.coding.strip().lower() != b"chunked":
        return "its Transfer-Encoding is not chunked"
    if framing.length is None:
        return None
    if not framing.length.isdigit():
        return "its Content-Length is not a number"
    if body is not None and int(framing.length) != len(body):
        return f"its Content-Length is {int(framing.length)}, its body has {len(body)} bytes"
    return None


def _fault_of(request: httpx.Request) -> str | None:
    if not _TOKEN.fullmatch(request.method.encode("utf-8", "replace")):
        return f"{request.method!r} is not a method"
    if _FORBIDDEN_IN_TARGET.search(request.url.raw_path):
        return "its URL holds a space or a control character"
    for name, value in request.headers.raw:
        if not _TOKEN.fullmatch(name):
            return f"{name!r} is not a header name"
        if _FORBIDDEN_IN_VALUE.search(value):
            return f"the value of the header {name.decode('ascii')} holds CR, LF or NUL"
    return None


def _head_pieces(request: httpx.Request, framing: _Framing, length: int | None) -> Iterator[bytes]:
    yield b"%b %b HTTP/1.1\r\n" % (request.method.encode("ascii"), request.url.raw_path)
    if not framing.has_host:
        yield b"Host: %b\r\n" % request.url.netloc
    for name, value in request.headers.raw:
        yield b"%b: %b\r\n" % (name, value)
    if length is None and framing.coding is None:
        yield b"Transfer-Encoding: chunked\r\n"
    elif length and framing.length is None:
        yield b"Content-Length: %d\r\n" % length
    yield b"\r\n"
