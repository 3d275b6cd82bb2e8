"""From bytes to one response: head, body bytes, and whether the connection is good for another. No I/O.

llhttp does the grammar and refuses what smuggles (Content-Length beside Transfer-Encoding, bare LF, obsolete line
folding). Here is what it leaves to its user: 1xx before the response, bodies that end with the connection, bounds,
and what comes after the end. Equal lengths that are repeated, which it refuses as well, are joined (see `_lengths.py`).
No request here is a HEAD, whose response would have no body: `Request` refuses it.
"""

from __future__ import annotations

import httptools

from enclave._loop import uninterrupted
from enclave.errors import APIConnectionError, ConfigurationError, ResponseTooLargeError

from ._callbacks import Callbacks, Message, ResponseHead
from ._lengths import HeadBytes
from ._scheme import SPEAKS_TLS

_GIVEN_AWAY = ResponseHead(0, b"", b"", [])


class ResponseParser(Message):
    """Takes the bytes of one response, in any split, and gives the same answer for each."""

    __slots__ = ("_barren_bytes", "_callbacks", "_head_bytes", "_is_second_try", "body_bytes", "started")

    def __init__(self, callbacks: Callbacks) -> None:
        super().__init__(callbacks.llhttp())
        self._callbacks = callbacks
        self._head_bytes: HeadBytes | None = None  # what of a head is there, which may have to be parsed once more
        self._is_second_try = False
        self._barren_bytes = 0
        self.started = False
        """Whether any byte of a response has come."""
        self.body_bytes = 0
        """How much of the body has been given out."""

    def take_head(self) -> ResponseHead | None:
        """The head, given away: a stream lives long, and its headers need not."""
        head = self.head
        if head is not None:
            self.head = _GIVEN_AWAY
        return head

    @property
    def reusable(self) -> bool:
        """Whether the connection may carry another request: the end is certain, and nothing came after it."""
        return self.complete and self.keep_alive and not self.excess

    @uninterrupted
    def feed(self, data: bytes) -> bytes:
        """The body bytes among `data`, as one object.

        Raises:
            APIConnectionError: this is not HTTP. Body bytes that came before the fault are returned, and
                the next call, also of `check`, raises. ResponseTooLargeError: the head, or its trailers, are too long.
        """
        self.check()
        self.started = True
        had_head = self.head is not None
        fed = self._callbacks.fed
        pieces = fed.pieces
        fed.message = self
        try:
            try:
                self.llhttp.feed_data(data)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
                self._note(error, data)
            else:
                if self.head is None:
                    self._keep(data)
            # Bytes after the end would be taken for the answer to the next request, if the connection were used again.
            if self.complete and len(pieces) > self.pieces_at_end:
                self.excess = True
                del pieces[self.pieces_at_end :]
            body = b"" if not pieces else pieces[0] if len(pieces) == 1 else b"".join(pieces)
        finally:
            pieces.clear()
            del fed.message
        if self.head is None:
            self._count_barren(len(data))
        elif not had_head:
            self._head_bytes = None
            self._barren_bytes = 0
        elif body:
            self._barren_bytes = 0
        else:
            self._count_barren(len(data))
        # A fault behind body bytes waits for the next call. These bytes are sound.
        if self.head is None or not body:
            self.check()
        self.body_bytes += len(body)
        return body

    def feed_eof(self, *, was_cut: bool = False) -> None:
        """The connection has ended.

        Args:
            was_cut: it ended without TLS's closing message, or broke. Then it does not tell that a body is whole which
                has no other end, for anybody in between can end a connection (RFC 9112, 9.8).

        Raises:
            APIConnectionError: before the end of the response.
        """
        self.check()
        if self.head is not None and self.until_close and not was_cut:
            self.complete = True
        if not self.complete:
            what = "the connection was cut" if was_cut else "the server closed the connection"
            self.fault = APIConnectionError, f"{what} {self._where_it_ended()}"
            self.check()

    def check(self) -> None:
        """Raise the fault that an earlier call met after the bytes it returned."""
        if self.fault is not None:
            error, reason = self.fault
            raise error(reason)

    def _keep(self, data: bytes) -> HeadBytes:
        if self._head_bytes is None:
            self._head_bytes = HeadBytes()
        self._head_bytes.add(data)
        return self._head_bytes

    def _note(self, error: Exception, data: bytes) -> None:
        if self.complete:
            self.excess = True
        elif self.fault is not None:
            pass  # what follows a fault is of no account
        elif self.head is not None:
            self.fault = APIConnectionError, f"the response's body is not HTTP/1.1: {error}"
        else:
            head_bytes = self._keep(data)
            if "Content-Length" in str(error) and not self._is_second_try:
                # llhttp complains again with each read, until the whole head is there.
                if head_bytes.is_whole:
                    self._try_with_one_length(head_bytes, error)
            else:
                self._refuse_head(head_bytes, error)

    def _refuse_head(self, head_bytes: HeadBytes, error: Exception) -> None:
        if head_bytes.is_tls:
            self.fault = ConfigurationError, SPEAKS_TLS
        else:
            self.fault = APIConnectionError, f"the response's head is not HTTP/1.1: {error}"

    def _try_with_one_length(self, head_bytes: HeadBytes, error: Exception) -> None:
        self._is_second_try = True
        joined = head_bytes.with_one_length()
        if joined is None:
            self._refuse_head(head_bytes, error)
            return
        self.begin(self._callbacks.llhttp())
        try:
            self.llhttp.feed_data(joined)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as another:
            self._note(another, b"")

    def _count_barren(self, size: int) -> None:
        """Bound what llhttp takes in without giving anything out: heads, trailers, chunk extensions."""
        self._barren_bytes += size
        limit = self._callbacks.fed.max_header_bytes
        if self._barren_bytes > limit and not self.complete and self.fault is None:
            part = "header" if self.head is None else "trailer"
            self.fault = ResponseTooLargeError, f"the response's {part} section exceeds max_header_bytes={limit}"

    def _where_it_ended(self) -> str:
        if not self.started:
            return "without a response"
        if self.head is None:
            return f"within the response head, after {self._barren_bytes} bytes"
        of = "" if self.expected_bytes is None else f" of {self.expected_bytes}"
        return f"within the response: incomplete body, {self.body_bytes}{of} bytes received"
