"""A small HTTP/1.1 server on anyio and h11 that runs an ASGI app inside the caller's event loop.

Why not Hypercorn: cancelled on asyncio its `serve` lets a bare CancelledError out of its `gather`, it starts and stops
by signals and lifespans of its own, and it cannot cut a connection inside a frame. Here every connection is a task of
the caller's task group, cancellation is the way to stop, and an app may raise `AbortConnection` between two bytes.

Imports anyio and h11; knows nothing of sessions.
"""

from __future__ import annotations

import http
import itertools
import logging
import secrets
import socket
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote_to_bytes

import anyio
import anyio.abc
import h11
import msgspec

logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
ASGIApp = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

READ_BYTES = 65_536
MAX_HEADER_BYTES = 65_536
MAX_PIPELINED_BYTES = 65_536
MAX_DRAINED_BYTES = 16 * 1024 * 1024
DRAIN_SECONDS = 2.0


class AbortConnection(Exception):
    """Raised by an app: close the connection now, whatever was promised in the headers."""

    def __init__(self, *, reset: bool = False) -> None:
        super().__init__(reset)
        self.reset = reset
        """Send a TCP reset instead of an orderly close."""


class ClientGone(OSError):
    """The client closed the connection, or took nothing for too long."""


def error_body(status: int, message: str, code: str | None = None) -> bytes:
    """The Fastify shape of an error. Wire: contract "Routes", errors."""
    body: dict[str, Any] = {"statusCode": status, "error": http.HTTPStatus(status).phrase, "message": message}
    if code is not None:
        body["code"] = code
    return msgspec.json.encode(body)


class HTTPServer:
    """Serves one ASGI app; `handle` is what a listener calls with each accepted connection."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        keep_alive_seconds: float,
        write_timeout_seconds: float,
        on_change: Callable[[], None],
    ) -> None:
        self.app = app
        self.keep_alive_seconds = keep_alive_seconds
        self.write_timeout_seconds = write_timeout_seconds
        self.open_connections = 0
        self._on_change = on_change
        self._request_ids = itertools.count(1)
        self._id_prefix = secrets.token_hex(3)

    def next_request_id(self) -> str:
        """A value for ``x-request-id``."""
        return f"req-{self._id_prefix}-{next(self._request_ids)}"

    async def handle(self, stream: anyio.abc.SocketStream) -> None:
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
    """One client's connection: request after request until either side closes."""

    def __init__(self, server: HTTPServer, stream: anyio.abc.SocketStream) -> None:
        self.server = server
        self.stream = stream
        self.http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADER_BYTES)

    async def run(self) -> None:
        try:
            while await self._serve_request():
                self.http.start_next_cycle()
        except h11.RemoteProtocolError as error:
            await self._refuse(error)
        except AbortConnection as abort:
            if abort.reset:
                raw: socket.socket = self.stream.extra(anyio.abc.SocketAttribute.raw_socket)  # noqa: S610 - not Django
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except ClientGone:
            logger.debug("client went away")

    async def next_event(self) -> Any:
        while True:
            event = self.http.next_event()
            if event is not h11.NEED_DATA:
                return event
            self.http.receive_data(await self.read())

    async def read(self) -> bytes:
        try:
            return await self.stream.receive(READ_BYTES)
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return b""

    async def write(self, data: bytes) -> None:
        with anyio.move_on_after(self.server.write_timeout_seconds) as scope:
            try:
                await self.stream.send(data)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
                raise ClientGone("the connection is closed") from error
        if scope.cancelled_caught:
            raise ClientGone("the client takes no data")

    async def _serve_request(self) -> bool:
        """Serve one request; True if the connection can take another one."""
        request = None
        with anyio.move_on_after(self.server.keep_alive_seconds):
            request = await self.next_event()
        if not isinstance(request, h11.Request):
            return False
        exchange = _Exchange(self, request)
        await self._call_app(exchange)
        await self._drain()
        return self.http.our_state is h11.DONE and self.http.their_state is h11.DONE

    async def _call_app(self, exchange: _Exchange) -> None:
        try:
            await self.server.app(exchange.scope, exchange.receive, exchange.send)
        except (AbortConnection, ClientGone, h11.RemoteProtocolError):
            raise
        except Exception:
            logger.exception("unhandled error in %s %s", exchange.scope["method"], exchange.scope["path"])
            if exchange.started:
                raise AbortConnection from None
            await exchange.answer(500, "internal error")

    async def _drain(self) -> None:
        # A close with unread input makes the kernel send a reset, which can destroy the answer on its way.
        drained_bytes = 0
        with anyio.move_on_after(DRAIN_SECONDS):
            while self.http.their_state is h11.SEND_BODY and drained_bytes <= MAX_DRAINED_BYTES:
                event = await self.next_event()
                drained_bytes += len(event.data) if isinstance(event, h11.Data) else 0

    async def _refuse(self, error: h11.RemoteProtocolError) -> None:
        if self.http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        status = error.error_status_hint
        body = error_body(status, f"malformed request: {error}")
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"x-request-id", self.server.next_request_id().encode()),
            (b"connection", b"close"),
        ]
        head = self.http.send(h11.Response(status_code=status, headers=headers))
        tail = self.http.send(h11.Data(data=body))
        try:
            await self.write((head or b"") + (tail or b""))
        except ClientGone:
            logger.debug("client went away")


class _Exchange:
    """The ASGI side of one request and its response."""

    def __init__(self, connection: _Connection, request: h11.Request) -> None:
        self.started = False
        self._connection = connection
        self._http = connection.http
        self._body_read = False
        self._head = b""
        self._is_head = request.method == b"HEAD"
        path, _, query = request.target.partition(b"?")
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": request.http_version.decode(),
            "method": request.method.decode(),
            "scheme": "http",
            "path": _unquote(path),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": [(name, value) for name, value in request.headers],
        }

    async def receive(self) -> Message:
        if self._body_read:
            return await self._wait_for_disconnect()
        if self._http.they_are_waiting_for_100_continue:
            go_on = self._http.send(h11.InformationalResponse(status_code=100, headers=[]))
            await self._connection.write(go_on or b"")
        event = await self._connection.next_event()
        if isinstance(event, h11.Data):
            return {"type": "http.request", "body": bytes(event.data), "more_body": True}
        self._body_read = True
        if isinstance(event, h11.EndOfMessage):
            return {"type": "http.request", "body": b"", "more_body": False}
        return {"type": "http.disconnect"}

    async def _wait_for_disconnect(self) -> Message:
        while data := await self._connection.read():
            self._http.receive_data(data)
            if len(self._http.trailing_data[0]) > MAX_PIPELINED_BYTES:
                await anyio.sleep_forever()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            # Held back so that a small response is one write; an empty first body part sends it alone.
            self._head = self._start(message["status"], list(message.get("headers", ())))
            return
        data = self._head
        self._head = b""
        if not self._is_head and message.get("body"):
            data += self._http.send(h11.Data(data=message["body"])) or b""
        if not message.get("more_body"):
            data += self._http.send(h11.EndOfMessage()) or b""
        if data:
            await self._connection.write(data)

    def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
        self.started = True
        headers.append((b"x-request-id", self._connection.server.next_request_id().encode()))
        return self._http.send(h11.Response(status_code=status, headers=headers)) or b""

    async def answer(self, status: int, message: str) -> None:
        body = error_body(status, message)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


def _unquote(path: bytes) -> str:
    return unquote_to_bytes(path).decode("utf-8", "replace")
