"""A consumer that does not keep up slows the server down. It does not fill memory."""

from __future__ import annotations

import time

import anyio

from enclave import EnclaveClient
from tests.support import PATIENCE_SECONDS
from tests.support.messages import END, SSE, bomb, event
from tests.support.plane import ControlPlane, Flood, Request, stalling


async def test_a_stalled_consumer_stops_the_server_and_loses_nothing(server: ControlPlane):
    flood = Flood(SSE, event("x" * 4096) * 16, 750, END)  # 48 MiB
    server.answers(flood)
    with anyio.fail_after(60):
        async with EnclaveClient(server.base_url, max_buffered_bytes=64 * 1024) as client:
            async with client.stream("s-1") as frames:
                await anext(frames)
                await flood.stalled()
                assert flood.sent_bytes < 24 * 1024 * 1024  # the system's buffers, and 64 KiB of ours
                assert frames._buffer._bytes <= (64 + 256) * 1024  # the bound, and one read
                count = 1
                async for batch in frames.batches():
                    count += len(batch)
    assert count == 12_001


async def test_a_large_event_counts_in_full_although_its_last_bytes_come_alone(server: ControlPlane):
    big, sent, stalled = 1_000_000, 0, anyio.Event()

    async def trickle(request: Request) -> None:
        nonlocal sent
        await request.send(SSE)
        for _ in range(40):
            with anyio.move_on_after(1) as patience:
                await request.send(b'data: {"kind":"stdout","data":"%b"}\n' % (b"x" * big))
                await anyio.wait_all_tasks_blocked()  # the blank line is a read of its own
                await request.send(b"\n")
                await anyio.wait_all_tasks_blocked()
            if patience.cancelled_caught:
                break
            sent += 1
        stalled.set()
        await request.gone()

    server.answers(trickle)
    with anyio.fail_after(PATIENCE_SECONDS):
        async with EnclaveClient(server.base_url, max_buffered_bytes=big) as client, client.stream("s-1"):
            await stalled.wait()
    assert sent < 20, "the reader took in far more than max_buffered_bytes, with nobody taking any of it out"


async def test_a_compressed_flood_of_comments_does_not_keep_the_event_loop_from_cancelling(server: ControlPlane):
    head = SSE.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
    server.answers(stalling(head, bomb(b":\n" * (1024 * 1024), 24)))
    async with EnclaveClient(server.base_url) as client, client.stream("s-1") as frames:
        started = time.process_time()
        with anyio.move_on_after(0.1) as scope:
            async for _ in frames:
                pass
    assert scope.cancelled_caught
    assert time.process_time() - started < 3  # decoding all of it takes far longer
