"""A consumer that does not keep up slows the server down; it does not fill memory."""

from __future__ import annotations

import os
import socket

import anyio
from anyio.abc import SocketAttribute

from enclave import EnclaveClient
from tests.support.scripted_server import CLOSE_DELIMITED_SSE, END, Request, ScriptedServer, event


class Flood:
    """Writes frames until the client takes no more for a while, then the rest of them."""

    def __init__(self, frames: int) -> None:
        self.piece = event("x" * 4096)
        self.left = frames
        self.sent_bytes = 0
        self.blocked = anyio.Event()

    async def __call__(self, request: Request) -> None:
        await request.send(CLOSE_DELIMITED_SSE)
        number = request._stream.extra(SocketAttribute.raw_socket).fileno()
        with socket.socket(fileno=os.dup(number)) as raw:
            raw.setblocking(False)
            data = b""
            while data or self.left:
                if not data:
                    count = min(16, self.left)
                    data = self.piece * count
                    self.left -= count
                try:
                    sent = raw.send(data)
                except BlockingIOError:
                    await self._wait(raw)
                else:
                    data = data[sent:]
                    self.sent_bytes += sent
                    await anyio.lowlevel.checkpoint()
        await request.send(END)
        await request.close()

    async def _wait(self, raw: socket.socket) -> None:
        with anyio.move_on_after(0.5):
            await anyio.wait_writable(raw)
            return
        self.blocked.set()
        await anyio.wait_writable(raw)


async def test_a_stalled_consumer_stops_the_server_and_loses_nothing(server: ScriptedServer):
    flood = Flood(12_000)  # 48 MiB
    server.answers(flood)
    with anyio.fail_after(60):
        async with EnclaveClient(server.base_url, max_buffered_bytes=64 * 1024) as client:
            async with client.stream("s-1") as frames:
                await anext(frames)
                await flood.blocked.wait()
                assert flood.sent_bytes < 24 * 1024 * 1024  # the system's buffers, and 64 KiB of ours
                assert frames._buffer._bytes <= (64 + 256) * 1024  # the bound, and one read
                count = 1
                async for batch in frames.batches():
                    count += len(batch)
    assert count == 12_001
