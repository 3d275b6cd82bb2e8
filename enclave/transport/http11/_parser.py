"""From bytes to one response: head, body bytes, and whether the connection is good for another. No I/O.

llhttp does the grammar and refuses what smuggles (Content-Length beside Transfer-Encoding, bare LF, obsolete line
folding). Here is what it leaves to its user: 1xx before the response, bodies that end with the connection, bounds,
and what comes after the end. Equal lengths that are repeated, which it refuses as well, are joined (see `_lengths.py`).
No request here is a HEAD, whose response would have no body: `Request` refuses it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import httptools

from enclave.errors import APIConnectionError, ConfigurationError, EnclaveError, ResponseTooLargeError

from ._lengths import HeadBytes
from ._scheme import SPEAKS_TLS

_KEEP_ALIVE_TIMEOUT = re.compile(rb"(?:^|[,;\s])timeout\s*=\s*(\d{1,6})", re.IGNORECASE)


class ResponseHead(NamedTuple):
    """The final status line and headers, as sent."""

    status: int
    reason: bytes
    http_version: bytes
    headers: list[tuple[bytes, bytes]]


_GIVEN_AWAY = ResponseHead(0, b"", b"", [])

_Fault = tuple[type[EnclaveError], str]


class ResponseParser:
    """Takes the bytes of one response, in any split, and gives the same answer for each."""

    __slots__ = (
        "_barren_bytes",
        "_fault",
        "_head_bytes",
        "_is_second_try",
        "_llhttp",
        "_max_header_bytes",
        "_message",
        "_pieces",
        "body_bytes",
        "started",
    )

    def __init__(self, *, max_header_bytes: int) -> None:
        self._pieces: list[bytes] = []
        self._max_header_bytes = max_header_bytes
        self._begin()
        self._head_bytes = HeadBytes()
        self._is_second_try = False
        self._barren_bytes = 0
        self._fault: _Fault | None = None
        self.started = False
        """Whether any byte of a response has come."""
        self.body_bytes = 0
        """How much of the body has been given out."""

    @property
    def head(self) -> ResponseHead | None:
        """The final head, once it is there. Interim heads, 1xx, are passed over."""
        return self._message.head

    def take_head(self) -> ResponseHead | None:
        """The same, given away: a stream lives long, and its headers need not."""
        head = self._message.head
        if head is not None:
            self._message.head = _GIVEN_AWAY
        return head

    @property
    def complete(self) -> bool:
        """Whether the response has ended."""
        return self._message.complete

    @property
    def reusable(self) -> bool:
        """Whether the connection may carry another request: the end is certain, and nothing came after it."""
        message = self._message
        return message.complete and message.keep_alive and not message.excess

    @property
    def keep_alive_seconds(self) -> int | None:
        """How long the server says it keeps an idle connection."""
        return self._message.keep_alive_seconds

    def feed(self, data: bytes) -> bytes:
        """The body bytes among `data`, as one object.

        Raises:
            APIConnectionError: this is not HTTP. Body bytes that came before the fault are returned, and
                the next call, also of `check`, raises. ResponseTooLargeError: the head, or its trailers, are too long.
        """
        self.check()
        message, pieces = self._message, self._pieces
        had_head = message.head is not None
        if not had_head:
            # Kept until the head is parsed, since it may have to be parsed once more.
            self._head_bytes.add(data)
        self.started = True
        try:
            self._llhttp.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._note(error)
            message = self._message
        # Bytes after the end would be taken for the answer to the next request, if the connection were used again.
        if message.complete:
            message.drop_excess()
        if message.head is not None and not had_head:
            self._head_bytes.clear()
            self._barren_bytes = 0
        elif pieces:
            self._barren_bytes = 0
        else:
            self._count_barren(len(data))
        if self._fault is None:
            self._fault = message.fault
        # A fault behind body bytes waits for the next call. These bytes are sound.
        if self._fault is not None and (message.head is None or not pieces):
            self.check()
        return self._take(pieces) if pieces else b""

    def feed_eof(self, *, was_cut: bool = False) -> None:
        """The connection has ended.

        Args:
            was_cut: it ended without TLS's closing message. Then it does not tell that a body is whole which has no
                other end, for anybody in between can end a connection (RFC 9112, 9.8).

        Raises:
            APIConnectionError: before the end of the response.
        """
        self.check()
        message = self._message
        if message.head is not None and message.until_close and not was_cut:
            message.complete = True
        if not message.complete:
            what = "the connection was cut" if was_cut else "the server closed the connection"
            self._fault = APIConnectionError, f"{what} {self._where_it_ended()}"
            self.check()

    def check(self) -> None:
        """Raise the fault that an earlier call met after the bytes it returned."""
        if self._fault is not None:
            error, reason = self._fault
            raise error(reason)

    def _take(self, pieces: list[bytes]) -> bytes:
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self.body_bytes += len(body)
        return body

    def _begin(self) -> None:
        self._message = _Message(self._pieces, max_header_bytes=self._max_header_bytes)
        self._llhttp = httptools.HttpResponseParser(self._message)
        self._message.llhttp = self._llhttp

    def _note(self, error: Exception) -> None:
        message = self._message
        if message.complete:
            message.excess = True
        elif message.head is None and "Content-Length" in str(error) and not self._is_second_try:
            self._try_with_one_length(error)
        elif message.head is None and self._head_bytes.is_tls:
            self._fault = ConfigurationError, SPEAKS_TLS
        elif isinstance(error, httptools.HttpParserUpgrade):
            self._fault = APIConnectionError, "the server switched to a protocol that was not asked for"
        else:
            part = "head" if message.head is None else "body"
            self._fault = APIConnectionError, f"the response's {part} is not HTTP/1.1: {error}"

    def _try_with_one_length(self, error: Exception) -> None:
        # llhttp complains again with each read, until the whole head is there.
        if not self._head_bytes.is_whole:
            return
        self._is_second_try = True
        joined = self._head_bytes.with_one_length()
        if joined is None:
            self._note(error)
            return
        self._begin()
        try:
            self._llhttp.feed_data(joined)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as another:
            self._note(another)

    def _count_barren(self, size: int) -> None:
        """Bound what llhttp takes in without giving anything out: heads, trailers, chunk extensions."""
        self._barren_bytes += size
        message, limit = self._message, self._max_header_bytes
        if self._barren_bytes > limit and not message.complete:
            part = "header" if message.head is None else "trailer"
            self._fault = ResponseTooLargeError, f"the response's {part} section exceeds max_header_bytes={limit}"

    def _where_it_ended(self) -> str:
        if not self.started:
            return "without a response"
        if self.head is None:
            return f"within the response head, after {self._barren_bytes} bytes"
        expected = self._message.expected_bytes
        of = "" if expected is None else f" of {expected}"
        return f"within the response: incomplete body, {self.body_bytes}{of} bytes received"


class _Message:
    """What llhttp calls back. It must not refer to the parser for long: a stream lives long, and cycles cost."""

    __slots__ = (
        "complete",
        "excess",
        "expected_bytes",
        "fault",
        "head",
        "head_bytes",
        "headers",
        "interim",
        "keep_alive",
        "keep_alive_seconds",
        "llhttp",
        "max_header_bytes",
        "on_body",
        "pieces",
        "pieces_at_end",
        "reason",
        "until_close",
    )

    def __init__(self, pieces: list[bytes], *, max_header_bytes: int) -> None:
        self.pieces = pieces
        self.pieces_at_end = 0
        self.on_body = pieces.append
        self.max_header_bytes = max_header_bytes
        self.llhttp: httptools.HttpResponseParser | None = None
        self.fault: _Fault | None = None
        self.head: ResponseHead | None = None
        self.headers: list[tuple[bytes, bytes]] = []
        self.reason = b""
        self.head_bytes = 0
        self.expected_bytes: int | None = None
        self.keep_alive_seconds: int | None = None
        self.interim = self.complete = self.excess = False
        self.keep_alive = self.until_close = False

    def on_message_begin(self) -> None:
        if self.complete:
            # Another response, which nobody asked for.
            self.excess = True

    def on_status(self, reason: bytes) -> None:
        if self.head is None:
            self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head is None:  # else a trailer, or a header of a second response
            self.headers.append((name, value.rstrip(b" \t")))
            self.head_bytes += len(name) + len(value) + 4

    def on_headers_complete(self) -> None:
        llhttp = self.llhttp
        if llhttp is None:
            return  # after the end: a second response, which nobody asked for
        status, version = llhttp.get_status_code(), llhttp.get_http_version()
        self.fault = self._fault(status, version)
        if self.fault is not None:
            return
        if status < 200:  # noqa: PLR2004 - 1xx
            self.interim = True
            self.headers, self.reason = [], b""
            return
        self.keep_alive = llhttp.should_keep_alive()
        self.head = ResponseHead(status, self.reason, b"HTTP/" + version.encode("ascii"), self.headers)
        self._read_framing()
        self.llhttp = None
        self.headers = []  # whoever takes the head has them

    def on_message_complete(self) -> None:
        if self.interim:
            self.interim = False
        elif self.head is not None and not self.complete:
            self.complete = True
            self.pieces_at_end = len(self.pieces)

    def drop_excess(self) -> None:
        """Forget the body of a second response, which nobody asked for."""
        if len(self.pieces) > self.pieces_at_end:
            self.excess = True
            del self.pieces[self.pieces_at_end :]

    def _fault(self, status: int, version: str) -> _Fault | None:
        if self.head_bytes > self.max_header_bytes:
            limit = self.max_header_bytes
            return ResponseTooLargeError, f"the response's header section exceeds max_header_bytes={limit}"
        if version not in {"1.0", "1.1"}:
            return APIConnectionError, f"the server answered in HTTP/{version}, not in HTTP/1.1"
        if status == 101:  # noqa: PLR2004 - Switching Protocols
            return APIConnectionError, "the server switched to a protocol that was not asked for (status 101)"
        if status < 100:  # noqa: PLR2004 - the first status there is
            return APIConnectionError, f"the server answered with the invalid status {status}"
        return None

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
