"""A control plane of raw sockets that sends exactly the bytes a test asks for, cut where it asks, and nothing else.

It shares no code with the SDK or the simulator, so every framing and every fault can be had, valid or not.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Self

import anyio
from anyio.abc import SocketAttribute, SocketStream, TaskGroup

CHUNKED_SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
CLOSE_DELIMITED_SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
END = b'data: {"kind":"end"}\n\n'


def response(body: bytes | Any = b"", status: int = 200, **headers: str) -> bytes:
    """A whole response; what is not bytes goes as JSON. `content_type="..."` is ``Content-Type``."""
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
        headers = {"content_type": "application/json", **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    head = "\r\n".join([f"HTTP/1.1 {status} Reason {status}", *lines, f"Content-Length: {len(body)}", "", ""])
    return head.encode("latin-1") + body


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(frame: Any, event_id: str | None = None) -> bytes:
    """One event, LF-framed; a frame is a dict, JSON text, or a string that becomes a stdout frame."""
    if isinstance(frame, str):
        frame = {"kind": "stdout", "data": frame}
    data = frame if isinstance(frame, bytes) else json.dumps(frame, ensure_ascii=False).encode()
    return (f"id: {event_id}\n".encode() if event_id is not None else b"") + b"data: %b\n\n" % data


def session(session_id: str = "s-1", phase: str = "running", **fields: Any) -> dict[str, Any]:
    return {"id": session_id, "phase": phase, **fields}


class Request:
    """A request as it arrived, and the connection to answer on."""

    def __init__(self, stream: SocketStream, head: bytes, body: bytes) -> None:
        self._stream = stream
        self.head = head
        self.body = body
        first, *lines = head.decode("utf-8").split("\r\n")
        self.method, self.target, _ = first.split(" ")
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
        self.closed = False

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    async def send(self, *pieces: bytes) -> None:
        """One write a piece."""
        for piece in pieces:
            await self._stream.send(piece)

    async def send_stream(self, *pieces: bytes, head: bytes = CLOSE_DELIMITED_SSE) -> None:
        """A stream, then the end of the connection."""
        await self.send(head, *pieces)
        await self.close()

    async def close(self) -> None:
        self.closed = True
        await self._stream.aclose()

    async def reset(self) -> None:
        """End the connection with RST."""
        raw = self._stream.extra(SocketAttribute.raw_socket)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self.close()

    async def gone(self) -> None:
        """Wait until the client has closed the connection."""
        with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            while True:
                await self._stream.receive()


Handler = Callable[[Request], Awaitable[None]]


class ScriptedServer:
    """Answers each request with the next of its answers; a request too many is 599, which no test expects."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._answers: deque[bytes | Handler] = deque()
        self._routes: dict[tuple[str, str], bytes | Handler] = {}
        self.base_url = ""
        self.open_connections = 0
        self.connections = 0

    def answers(self, *answers: bytes | Handler) -> None:
        """What the next requests get, in this order."""
        self._answers.extend(answers)

    def streams(self, *pieces: bytes, head: bytes = CLOSE_DELIMITED_SSE) -> None:
        """The next request gets a stream of these pieces, a write each, and then the end of the connection."""

        async def answer(request: Request) -> None:
            await request.send_stream(*pieces, head=head)

        self.answers(answer)

    def route(self, method: str, target: str, answer: bytes | Handler) -> None:
        """What every such request gets."""
        self._routes[method, target] = answer

    @property
    def unused(self) -> int:
        return len(self._answers)

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[Self]:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        self.base_url = f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"
        async with listener, anyio.create_task_group() as task_group:
            task_group.start_soon(self._accept, listener, task_group)
            yield self
            task_group.cancel_scope.cancel()

    async def _accept(self, listener: Any, task_group: TaskGroup) -> None:
        await listener.serve(self._serve, task_group)

    async def _serve(self, stream: SocketStream) -> None:
        self.open_connections += 1
        self.connections += 1
        try:
            async with stream:
                # The client may go at any moment; that is its right.
                with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                    await self._serve_requests(stream)
        finally:
            self.open_connections -= 1

    async def _serve_requests(self, stream: SocketStream) -> None:
        request = None
        while request is None or not request.closed:
            request = await _receive(stream)
            self.requests.append(request)
            answer = self._routes.get((request.method, request.target))
            if answer is None:
                answer = self._answers.popleft() if self._answers else response({"message": "not scripted"}, 599)
            if isinstance(answer, bytes):
                await request.send(answer)
            else:
                await answer(request)


async def _receive(stream: SocketStream) -> Request:
    data = b""
    while b"\r\n\r\n" not in data:
        data += await stream.receive()
    head, _, body = data.partition(b"\r\n\r\n")
    request = Request(stream, head, body)
    while len(request.body) < int(request.headers.get("content-length", "0")):
        request.body += await stream.receive()
    return request
