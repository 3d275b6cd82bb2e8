"""A server on a raw socket whose every answer is a coroutine of the test's own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.abc import SocketAttribute, SocketStream

SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
END = b'data: {"kind":"end"}\n\n'

Answer = Callable[[SocketStream, str, int], Awaitable[None]]


def frame(text: str) -> bytes:
    return b"data: " + json.dumps({"kind": "stdout", "data": text}).encode() + b"\n\n"


def answer(status: int, body: Any = None) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    return b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        status,
        len(content),
        content,
    )


@asynccontextmanager
async def serving(handle: Answer) -> AsyncIterator[str]:
    """Calls `handle` with connection, request line and the number of the request; gives the base URL."""
    count = 0

    async def connection(stream: SocketStream) -> None:
        nonlocal count
        async with stream:
            received = b""
            try:
                while b"\r\n\r\n" not in received:
                    received += await stream.receive()
                count += 1
                await handle(stream, received.split(b"\r\n")[0].decode(), count)
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                pass  # the client left, as some tests have it do

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, connection)
        yield f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"
        tasks.cancel_scope.cancel()
