"""TLS over a byte stream: `TLSRecords` is the protocol without I/O, and `TLSStream` moves its bytes.

Not anyio's `TLSStream`: that gives out one record a call, and it can no longer be read once a write has failed, which
is when a server that refuses a large request has its answer on the way.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from contextlib import suppress

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from ._stream import PlainStream

_MAX_RECORD_BYTES = 16_384
_SLICE_BYTES = 8_192
"""How much OpenSSL is given at once. Its buffer for that never shrinks again, and every stream has one."""
_SESSION_SECONDS = 3_600.0
"""How long a session is resumed. For so long the server's certificate is not looked at again."""
_SECONDS_BETWEEN_COPIES = 1.0
"""A session is copied from a connection at most this often, because a copy costs as much as a handshake."""


class TruncatedError(anyio.EndOfStream):
    """The connection ended without TLS's closing message, so somebody in between may have cut it."""


class TLSSessions:
    """Remembers the latest TLS session with one server, so that the next handshake can resume it.

    A context with the option ``ssl.OP_NO_TICKET`` switches this off.
    """

    def __init__(self) -> None:
        self._session: ssl.SSLSession | None = None
        self._trust: tuple[object, ...] = ()
        self._expires_at = 0.0
        self._next_copy_at = 0.0

    def latest(self, context: ssl.SSLContext) -> ssl.SSLSession | None:
        """The session to resume. None if there is none, it is too old, or the context now verifies otherwise."""
        # A resumed session skips the certificate, so it must not outlive a change of what is verified.
        if time.monotonic() >= self._expires_at or self._trust != _trust_of(context):
            self._session = None
        return self._session

    def remember(self, tls: ssl.SSLObject, *, refused: bool) -> None:
        """Keep the session of a connection, if none is kept, once the server had time to send its tickets.

        Args:
            tls: the connection.
            refused: whether the server did not resume the session that it was offered.
        """
        if refused:
            # The server no longer knows it, and it would be in the way of a newer one.
            self._session = None
        now = time.monotonic()
        if self._session is not None or now < self._next_copy_at or tls.context.options & ssl.OP_NO_TICKET:
            return
        self._next_copy_at = now + _SECONDS_BETWEEN_COPIES
        session = tls.session
        if session is not None and (session.has_ticket or session.id):
            self._session = session
            self._trust = _trust_of(tls.context)
            self._expires_at = now + _SESSION_SECONDS


def _trust_of(context: ssl.SSLContext) -> tuple[object, ...]:
    return context, context.verify_mode, context.verify_flags, context.check_hostname


class TLSRecords:
    """The client's end of TLS without I/O: from bytes of the network to bytes of the server, and back.

    Each call may leave bytes in `outgoing`, which are to be sent. Also a `feed` may, where the server changes keys.
    """

    __slots__ = ("_incoming", "_is_new", "_offered", "_sessions", "_tls", "end", "outgoing")

    def __init__(self, context: ssl.SSLContext, server_name: str, sessions: TLSSessions) -> None:
        self._incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self._sessions = sessions
        session = sessions.latest(context)
        self._offered = session is not None
        # The context may be shared with an HTTP/2 client, which sets its own protocols. They are
        # read when the object of a handshake is made, and nothing else runs between these two lines.
        context.set_alpn_protocols(["http/1.1"])
        self._tls = context.wrap_bio(self._incoming, self.outgoing, server_hostname=server_name, session=session)
        self._is_new = True  # no record has come since the handshake
        self.end: Exception | None = None
        """Why no more bytes come: an `anyio.EndOfStream`, or an `ssl.SSLError`. None while they may."""

    def shake_hands(self, data: bytes = b"") -> bool:
        """Begin the handshake, or go on with what the server has answered. Gives True once it is done.

        Raises:
            ssl.SSLError: the server is not trusted, or does not speak TLS.
        """
        if data:
            self._incoming.write(data)
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def write(self, data: bytes | memoryview) -> bool:
        """Encrypt all of `data`. Gives False if the server has to be read from first, because it changes keys."""
        try:
            self._tls.write(data)
        except ssl.SSLWantReadError:
            return False
        return True

    def feed(self, data: bytes | memoryview) -> bytes:
        """Decrypt all records that are whole by now, as one object. Sets `end` if the last one was among them."""
        if len(data) <= _SLICE_BYTES:
            pieces = self._decrypt(data)
        else:
            view = memoryview(data)
            slices = (view[start : start + _SLICE_BYTES] for start in range(0, len(view), _SLICE_BYTES))
            pieces = [piece for part in slices for piece in self._decrypt(part)]
        if data and (self._is_new or not pieces):
            self._settle()
        return b"".join(pieces)

    def feed_eof(self) -> None:
        """The network has ended. If TLS had not, that is too early."""
        self._incoming.write_eof()
        if self.end is None:
            self.end = TruncatedError()

    def close(self) -> None:
        """Put TLS's closing message into `outgoing`, where there is still somebody to understand it."""
        with suppress(ssl.SSLError):  # the server's own is not waited for, or it is too late for any
            self._tls.unwrap()

    def _decrypt(self, data: bytes | memoryview) -> list[bytes]:
        pieces: list[bytes] = []
        incoming, read = self._incoming, self._tls.read
        if data:
            incoming.write(data)
        try:
            # An exception costs more than a small record, so OpenSSL is not asked when it has nothing left.
            while incoming.pending and self.end is None:
                if piece := read(_MAX_RECORD_BYTES):
                    pieces.append(piece)
                else:
                    self.end = anyio.EndOfStream()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self.end = error.with_traceback(None)
        return pieces

    def _settle(self) -> None:
        """After records of TLS's own, which are tickets in most cases."""
        if self.end is not None:
            return
        if self._is_new:
            self._is_new = False
            self._sessions.remember(self._tls, refused=self._offered and not self._tls.session_reused)
        # OpenSSL has allocated 16 KiB to answer such a record. It frees them when something is written, even nothing.
        self.write(b"")


class TLSStream:
    """The client's end of a TLS connection, as a `Stream`. One task uses it at a time."""

    __slots__ = ("_can_send", "_records", "_stream", "_take", "_unread", "_unsent")

    def __init__(self, stream: PlainStream, records: TLSRecords) -> None:
        self._stream = stream
        self._records = records
        self._unread = b""
        self._unsent = b""
        self._can_send = True
        self._take: Callable[[bytes], bool] | None = None  # gets the bytes while a task waits in `deliver`

    @classmethod
    async def handshake(
        cls, stream: PlainStream, context: ssl.SSLContext, server_name: str, sessions: TLSSessions
    ) -> TLSStream:
        """Begin TLS on a connected stream.

        Raises:
            ssl.SSLError: the server is not trusted, or does not speak TLS. And what the stream below raises.
        """
        self = cls(stream, TLSRecords(context, server_name, sessions))
        try:
            is_done = self._records.shake_hands()
            while not is_done:
                await self._send_encrypted()
                is_done = self._records.shake_hands(await self._next())
        except ssl.SSLError:
            self._send_last()  # the alert that says why
            raise
        await self._send_encrypted()
        self._unread = self._records.feed(b"")  # what came together with the end of the handshake
        return self

    async def receive(self) -> bytes:
        """The bytes of all records that have come, as one object. A cancelled call has taken none.

        Raises:
            TruncatedError: the connection ended without TLS's closing message. anyio.EndOfStream: it ended with it.
            ssl.SSLError: what came is not TLS, or says that the server failed. And what the stream below raises.
        """
        if self._unread:
            await checkpoint_if_cancelled()
        while not self._unread:
            await self._get_ready_to_read()
            self._unread = self._records.feed(await self._next())
        return self._take_unread()

    async def deliver(self, take: Callable[[bytes], bool]) -> None:
        """See `Stream.deliver`. Raises as `receive` does."""
        if self._take is not None:
            raise anyio.BusyResourceError("reading from")
        if self._unread:
            await checkpoint_if_cancelled()
            if take(self._take_unread()):
                return
        self._take = take
        try:
            while self._take is not None:
                await self._get_ready_to_read()
                try:
                    # A stream waits here for long, and so there is no coroutine between.
                    await self._stream.deliver(self._decrypt)
                except anyio.EndOfStream:
                    self._records.feed_eof()
        finally:
            self._take = None

    def _decrypt(self, data: bytes) -> bool:
        """Pass on what has come. Gives whether there is something else to do than to wait for more."""
        decrypted = self._records.feed(data)
        if decrypted and self._take is not None and self._take(decrypted):
            self._take = None
        return self._take is None or self._records.end is not None or self._records.outgoing.pending > 0

    async def _get_ready_to_read(self) -> None:
        """Send what reading has made, and raise why no more bytes come, if they do not."""
        if self._unsent or self._records.outgoing.pending:
            await self._answer()
        end = self._records.end
        if end is not None:
            raise type(end)(*end.args)  # one that is kept would keep the frames that it was raised in

    def _take_unread(self) -> bytes:
        unread, self._unread = self._unread, b""
        return unread

    async def send(self, item: bytes | memoryview) -> None:
        """Send all of `item`. After a failure nothing more can be sent, but what the server sent can be received.

        Raises:
            ssl.SSLError: the server has ended the connection with an alert. And what the stream below raises.
        """
        while not self._records.write(item):
            await self._answer()
            self._unread += self._records.feed(await self._next())
        await self._send_encrypted()

    def close(self) -> None:
        """Close. TLS's closing message goes out if the kernel takes it at once, and the server's is not waited for."""
        self._records.close()
        if self._can_send and not self._unsent:
            self._send_last()
        self._stream.close()

    @property
    def has_unread(self) -> bool:
        """Whether bytes, or the end, have come that nobody has received."""
        return bool(self._unread) or self._records.end is not None or self._stream.has_unread

    async def _next(self) -> bytes:
        try:
            return await self._stream.receive()
        except anyio.EndOfStream:
            self._records.feed_eof()
            return b""

    async def _send_encrypted(self) -> None:
        unsent, self._unsent = self._unsent + self._records.outgoing.read(), b""
        if unsent:
            self._can_send = False  # a part of it may be out if this fails, and then nothing may follow
            await self._stream.send(unsent)
            self._can_send = True

    async def _answer(self) -> None:
        """Send what reading has made. A cancelled call has lost nothing: the next one sends the rest."""
        if self._records.outgoing.pending:
            self._unsent += self._records.outgoing.read()
        while self._unsent and self._can_send:
            sent = await self._stream.send_some(self._unsent)
            self._unsent = self._unsent[sent:]

    def _send_last(self) -> None:
        with suppress(OSError):  # nobody is there to take it
            self._stream.send_last(self._records.outgoing.read())
