"""What llhttp calls back while it is fed, and the state of a response that this changes. No I/O.

For each of its callbacks llhttp keeps a bound method, and a stream would keep all of them as long as it lives. But they
are called only while llhttp is fed, and nothing else runs in that thread meanwhile. So the responses of one event loop
share one set of them, which knows the response that is being fed.
"""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import NamedTuple

import httptools

from enclave.errors import APIConnectionError, EnclaveError, ResponseTooLargeError

_KEEP_ALIVE_TIMEOUT = re.compile(rb"(?:^|[,;\s])timeout\s*=\s*(\d{1,6})", re.IGNORECASE)

Fault = tuple[type[EnclaveError], str]


class ResponseHead(NamedTuple):
    """The final status line and headers, as sent."""

    status: int
    reason: bytes
    http_version: bytes
    headers: list[tuple[bytes, bytes]]


class Message:
    """What llhttp has told of one response."""

    __slots__ = (
        "complete",
        "excess",
        "expected_bytes",
        "fault",
        "head",
        "header_bytes",
        "headers",
        "interim",
        "keep_alive",
        "keep_alive_seconds",
        "llhttp",
        "pieces_at_end",
        "reason",
        "until_close",
    )

    def __init__(self, llhttp: httptools.HttpResponseParser) -> None:
        self.head: ResponseHead | None = None
        """The final head, once it is there. Interim heads, 1xx, are passed over."""
        self.complete = False
        """Whether the response has ended."""
        self.keep_alive_seconds: int | None = None
        """How long the server says it keeps an idle connection."""
        self.fault: Fault | None = None
        """The first thing that is wrong with the response."""
        self.expected_bytes: int | None = None
        self.pieces_at_end = 0
        self.excess = self.keep_alive = self.until_close = False
        self.begin(llhttp)

    def begin(self, llhttp: httptools.HttpResponseParser) -> None:
        """Parse the head, from its first byte."""
        self.llhttp = llhttp
        self.headers: list[tuple[bytes, bytes]] = []
        self.reason = b""
        self.header_bytes = 0
        self.interim = False

    def take_status_line(self, max_header_bytes: int) -> None:
        """A head is whole. It is an interim one, or the final one, or faulty."""
        status, version = self.llhttp.get_status_code(), self.llhttp.get_http_version()
        if self.header_bytes > max_header_bytes:
            limit = max_header_bytes
            self.fault = ResponseTooLargeError, f"the response's header section exceeds max_header_bytes={limit}"
        elif version not in {"1.0", "1.1"}:
            self.fault = APIConnectionError, f"the server answered in HTTP/{version}, not in HTTP/1.1"
        elif status == 101:  # noqa: PLR2004 - Switching Protocols
            reason = "the server switched to a protocol that was not asked for (status 101)"
            self.fault = APIConnectionError, reason
        elif status < 100:  # noqa: PLR2004 - the first status there is
            self.fault = APIConnectionError, f"the server answered with the invalid status {status}"
        elif status < 200:  # noqa: PLR2004 - 1xx
            self.interim = True
            self.headers, self.reason = [], b""
        else:
            self.keep_alive = self.llhttp.should_keep_alive()
            self._read_framing()
            self.head = ResponseHead(status, self.reason, b"HTTP/" + version.encode("ascii"), self.headers)
            del self.headers  # whoever takes the head has them

    def _read_framing(self) -> None:
        codings: list[bytes] = []
        for name, value in self.headers:
            lowered = name.lower()
            if lowered == b"content-length":
                self.expected_bytes = int(value)
            elif lowered == b"transfer-encoding":
                codings.append(value)
            elif lowered == b"keep-alive" and (found := _KEEP_ALIVE_TIMEOUT.search(value)):
                self.keep_alive_seconds = int(found[1])
        # Only a last coding of chunked tells where the body ends.
        chunked = b",".join(codings).rpartition(b",")[2].strip().lower() == b"chunked"
        self.until_close = not chunked and self.expected_bytes is None


class _Fed:
    """The callbacks, for the response that is being fed."""

    __slots__ = ("max_header_bytes", "message", "pieces")

    def __init__(self, max_header_bytes: int) -> None:
        self.max_header_bytes = max_header_bytes
        self.message: Message
        """Whose bytes llhttp is fed. It is set only while that goes on."""
        self.pieces: list[bytes] = []
        """Of its body. Empty while nothing is fed."""

    def on_message_begin(self) -> None:
        if self.message.complete:
            # Another response, which nobody asked for.
            self.message.excess = True

    def on_status(self, reason: bytes) -> None:
        message = self.message
        if message.head is None:
            message.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        message = self.message
        if message.head is None:  # else a trailer, or a header of a second response
            message.headers.append((name, value.rstrip(b" \t")))
            message.header_bytes += len(name) + len(value) + 4

    def on_headers_complete(self) -> None:
        message = self.message
        # After a fault, or after the end, it is a second response, which nobody asked for.
        if message.head is None and message.fault is None:
            message.take_status_line(self.max_header_bytes)

    def on_message_complete(self) -> None:
        message = self.message
        if message.interim:
            message.interim = False
        elif message.head is not None and not message.complete:
            message.complete = True
            message.pieces_at_end = len(self.pieces)


class Callbacks:
    """The callbacks that the responses of one event loop share.

    Args:
        max_header_bytes: bound of a response's header section, 1xx included, and of its trailers.
    """

    __slots__ = ("_protocol", "fed")

    def __init__(self, *, max_header_bytes: int) -> None:
        fed = self.fed = _Fed(max_header_bytes)
        # Attributes, since llhttp asks for each of them for each response, and a method is made when it is asked for.
        self._protocol = SimpleNamespace(
            on_message_begin=fed.on_message_begin,
            on_status=fed.on_status,
            on_header=fed.on_header,
            on_headers_complete=fed.on_headers_complete,
            on_body=fed.pieces.append,
            on_message_complete=fed.on_message_complete,
        )

    def llhttp(self) -> httptools.HttpResponseParser:
        """A parser that calls them."""
        return httptools.HttpResponseParser(self._protocol)
