"""A small HTTP/1.1 server on anyio and h11, inside the caller's event loop. It knows nothing of sessions.

Every connection is a task in the caller's task group, so cancellation is the way to stop. A handler gets an `Exchange`:
one request and the means to answer it. It may raise `AbortConnection` between any two bytes of its answer, which is how
the simulator loses answers and drops streams. No usual server allows that.
"""

from __future__ import annotations

import http
import itertools
import logging
import secrets
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any, Self
from urllib.parse import unquote_to_bytes

import anyio
import anyio.abc
import h11
import msgspec

from ._settings import Bounds

logger = logging.getLogger(__name__)
request_log = logging.getLogger("enclave.simulator.requests")
"""One line for each request, once it is over, at level INFO. The polls of a console are at level DEBUG."""
POLL_HEADER = "x-enclave-poll"
"""The console sends it when it looks for news, each second."""
# A simulator often lives in the process of the program that it serves, and that program's log is not its own. So a
# level must be set on purpose, as `--log` does.
request_log.setLevel(logging.WARNING)


def log_requests() -> None:
    """Write a line for each request to standard error, from now on and for every simulator of this process.

    The requests that an open console sends each second to stay up to date are left out, unless one fails.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    request_log.addHandler(handler)
    request_log.setLevel(logging.INFO)


READ_BYTES = 65_536
MAX_HEADER_BYTES = 65_536
MAX_PIPELINED_BYTES = 65_536
MAX_DRAINED_BYTES = 16 * 1024 * 1024
DRAIN_SECONDS = 2.0


class AbortConnection(Exception):
    """A handler raises it to close the connection at once, whatever the headers promised."""

    def __init__(self, *, reset: bool = False) -> None:
        super().__init__(reset)
        self.reset = reset
        """Whether a TCP reset ends the connection instead of an orderly close."""


class ClientGone(OSError):
    """The client closed the connection, or read nothing for too long."""


class Reply(msgspec.Struct, kw_only=True):
    """An answer whose body is complete."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = {}

    @classmethod
    def json(cls, document: object, status: int = 200) -> Self:
        """An answer with a JSON body."""
        return cls(status=status, body=msgspec.json.encode(document), headers={"content-type": "application/json"})

    @classmethod
    def error(
        cls, status: int, message: str, *, code: str | None = None, headers: dict[str, str] | None = None
    ) -> Self:
        """An error in the shape that Fastify gives it."""
        known = status in {each.value for each in http.HTTPStatus}
        phrase = http.HTTPStatus(status).phrase if known else "Unknown"
        document = {"statusCode": status, "error": phrase, "message": message}
        if code is not None:
            document["code"] = code
        reply = cls.json(document, status)
        reply.headers |= headers or {}
        return reply


class Exchange:
    """One request and its answer.

    A handler calls `answer` once. For a body that grows, it calls `begin`, then `send` any number of times, then `end`.
    """

    def __init__(self, connection: _Connection, request: h11.Request) -> None:
        path, _, query = request.target.partition(b"?")
        self.method = request.method.decode("ascii")
        self.path = unquote_to_bytes(path).decode("utf-8", "replace")
        self.query = query.decode("latin-1")
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}
        """The request's headers by their names in lower case. The last one of a name counts."""
        self.target = request.target.decode("ascii", "replace")
        """Path and query as they were sent, so that they hold no space and no control character."""
        self.status: int | None = None
        """The status of the answer, once its head was sent."""
        self._connection = connection
        self._http = connection.http

    async def read_body(self, max_bytes: int) -> bytes | None:
        """The request's body, or None if it is longer than `max_bytes`.

        Raises:
            ClientGone: the client closed the connection before the end of the body.
        """
        declared = self.headers.get("content-length", "")
        # A client that waits for "100 Continue" is refused before it has sent anything.
        if declared.isdigit() and int(declared) > max_bytes:
            return None
        if self._http.they_are_waiting_for_100_continue:
            go_on = self._http.send(h11.InformationalResponse(status_code=100, headers=[]))
            await self._connection.write(go_on or b"")
        body = bytearray()
        while isinstance(event := await self._connection.next_event(), h11.Data):
            body += event.data
            if len(body) > max_bytes:
                return None
        if isinstance(event, h11.ConnectionClosed):
            raise ClientGone("the connection closed inside a request's body")
        return bytes(body)

    async def answer(self, reply: Reply) -> None:
        """Send a whole answer, in one write."""
        await self._connection.write(self._head(reply, len(reply.body)) + self._data(reply.body) + self._end())

    async def answer_in_part(self, reply: Reply, body_bytes: int) -> None:
        """Send the head of a whole answer, and only so many bytes of its body."""
        await self._connection.write(self._head(reply, len(reply.body)) + self._data(reply.body[:body_bytes]))

    async def begin(self, head: Reply) -> None:
        """Send the head of an answer whose length is not known yet. Its body is what `send` sends."""
        await self._connection.write(self._head(head, None))

    async def send(self, data: bytes) -> None:
        """Send a part of the body."""
        await self._connection.write(self._data(data))

    async def end(self) -> None:
        """End an answer that `begin` began."""
        await self._connection.write(self._end())

    async def client_left(self) -> None:
        """Wait until the client closes the connection. The request's body must have been read."""
        while data := await self._connection.read():
            self._http.receive_data(data)
            # A client may send its next requests early. More of them than this are left in the socket, and so the end
            # of the connection, which comes behind them, goes unseen until the next write fails.
            if len(self._http.trailing_data[0]) > MAX_PIPELINED_BYTES:
                await anyio.sleep_forever()

    def _head(self, reply: Reply, body_bytes: int | None) -> bytes:
        self.status = reply.status
        headers = reply.headers | {"x-request-id": self._connection.server.next_request_id()}
        if body_bytes is not None and reply.status != http.HTTPStatus.NO_CONTENT:
            headers["content-length"] = str(body_bytes)
        return self._http.send(h11.Response(status_code=reply.status, headers=list(headers.items()))) or b""

    def _data(self, data: bytes) -> bytes:
        # The answer to HEAD has the headers of a body, and h11 refuses to write one.
        return (self._http.send(h11.Data(data=data)) or b"") if data and self.method != "HEAD" else b""

    def _end(self) -> bytes:
        return self._http.send(h11.EndOfMessage()) or b""


Handler = Callable[[Exchange], Awaitable[None]]


class HTTPServer:
    """Serves one handler. A listener calls `serve` with each connection that it accepted."""

    def __init__(self, handler: Handler, bounds: Bounds, *, on_change: Callable[[], None]) -> None:
        self.handler = handler
        self.bounds = bounds
        self.open_connections = 0
        self._on_change = on_change
        self._request_ids = itertools.count(1)
        self._id_prefix = secrets.token_hex(3)

    def next_request_id(self) -> str:
        """A value for ``x-request-id``."""
        return f"req-{self._id_prefix}-{next(self._request_ids)}"

    async def serve(self, stream: anyio.abc.SocketStream) -> None:
        """Serve one connection until it closes. Raises nothing but cancellation."""
        self.open_connections += 1
        self._on_change()
        try:
            async with stream:
                await _Connection(self, stream).run()
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            logger.debug("connection broke")
        except Exception:
            logger.exception("connection failed")
        finally:
            self.open_connections -= 1
            self._on_change()


class _Connection:
    """One client's connection. It serves one request after the other until either side closes."""

    def __init__(self, server: HTTPServer, stream: anyio.abc.SocketStream) -> None:
        self.server = server
        self.http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADER_BYTES)
        self._stream = stream

    async def run(self) -> None:
        try:
            while await self._serve_request():
                self.http.start_next_cycle()
        except h11.RemoteProtocolError as error:
            await self._refuse(error)
        except AbortConnection as abort:
            if abort.reset:
                self._reset_on_close()
        except ClientGone:
            logger.debug("client went away")

    async def next_event(self) -> Any:
        while (event := self.http.next_event()) is h11.NEED_DATA:
            self.http.receive_data(await self.read())
        return event

    async def read(self) -> bytes:
        # To h11 no bytes mean that the connection has ended, and a broken one has ended too.
        try:
            return await self._stream.receive(READ_BYTES)
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return b""

    async def write(self, data: bytes) -> None:
        if not data:
            return
        with anyio.move_on_after(self.server.bounds.write_timeout_seconds) as scope:
            try:
                await self._stream.send(data)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
                raise ClientGone("the connection is closed") from error
        if scope.cancelled_caught:
            raise ClientGone("the client reads nothing")

    async def _serve_request(self) -> bool:
        """Serve one request. Returns whether the connection can take another one."""
        request = None
        with anyio.move_on_after(self.server.bounds.keep_alive_seconds):
            request = await self.next_event()
        if not isinstance(request, h11.Request):
            return False
        exchange = Exchange(self, request)
        started = anyio.current_time()
        try:
            await self._handle(exchange)
        finally:
            elapsed_ms = (anyio.current_time() - started) * 1000
            is_poll = POLL_HEADER in exchange.headers and exchange.status == http.HTTPStatus.OK
            line = "%s %s %s %.1f ms"
            level = logging.DEBUG if is_poll else logging.INFO
            request_log.log(level, line, exchange.method, exchange.target, exchange.status or "-", elapsed_ms)
        await self._drain()
        return self.http.our_state is h11.DONE and self.http.their_state is h11.DONE

    async def _handle(self, exchange: Exchange) -> None:
        try:
            await self.server.handler(exchange)
        except (AbortConnection, ClientGone, h11.RemoteProtocolError):
            raise
        except Exception:
            logger.exception("unhandled error in %s %s", exchange.method, exchange.path)
            if exchange.status is not None:
                raise AbortConnection from None
            await exchange.answer(Reply.error(500, "internal error"))

    async def _drain(self) -> None:
        # A close with unread input makes the kernel send a reset, which can destroy the answer on its way.
        drained_bytes = 0
        with anyio.move_on_after(DRAIN_SECONDS):
            while self.http.their_state is h11.SEND_BODY and drained_bytes <= MAX_DRAINED_BYTES:
                event = await self.next_event()
                drained_bytes += len(event.data) if isinstance(event, h11.Data) else 0

    async def _refuse(self, error: h11.RemoteProtocolError) -> None:
        """Answer what is no HTTP, if no answer was begun."""
        if self.http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        reply = Reply.error(error.error_status_hint, f"malformed request: {error}")
        headers = {**reply.headers, "x-request-id": self.server.next_request_id(), "connection": "close"}
        head = self.http.send(h11.Response(status_code=reply.status, headers=list(headers.items())))
        try:
            await self.write((head or b"") + (self.http.send(h11.Data(data=reply.body)) or b""))
        except ClientGone:
            logger.debug("client went away")

    def _reset_on_close(self) -> None:
        # With a linger time of 0 a close discards what was not sent, and sends a reset.
        raw: socket.socket = self._stream.extra(anyio.abc.SocketAttribute.raw_socket)  # noqa: S610 - not Django
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
