"""A cancellation that neither the consumer nor the stream asked for interrupts the stream. It is no end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import anyio
import pytest

from enclave import EnclaveClient, RetryPolicy, StdoutFrame, StreamInterrupted
from tests.support import PATIENCE_SECONDS
from tests.support.messages import END, SSE, event
from tests.support.plane import ControlPlane, closing, stalling


@pytest.fixture
def anyio_backend():
    """A task can be cancelled by itself only under asyncio. Trio cancels scopes, and those are their owners'."""
    return "asyncio", {"debug": True}


READER = "enclave: stream of session s-1"


def cancel_the_reader() -> None:
    (reader,) = [task for task in asyncio.all_tasks() if task.get_name() == READER]
    reader.cancel()


async def test_a_reader_that_somebody_cancels_interrupts_the_stream(server: ControlPlane, client: EnclaveClient):
    server.answers(stalling(SSE, event("a"), event("b")))
    with anyio.fail_after(PATIENCE_SECONDS):
        async with client.stream("s-1") as frames:
            seen = [await anext(frames), await anext(frames)]
            cancel_the_reader()
            for _ in range(2):
                with pytest.raises(StreamInterrupted, match="cancelled by other code") as caught:
                    await anext(frames)
    assert seen == [StdoutFrame("a"), StdoutFrame("b")]
    assert caught.value.delivered == 2
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)


async def test_frames_that_wait_come_before_the_interruption(server: ControlPlane, client: EnclaveClient):
    server.answers(stalling(SSE, event("a") + event("b")))
    with anyio.fail_after(PATIENCE_SECONDS):
        async with client.stream("s-1") as frames:
            await anyio.wait_all_tasks_blocked()
            cancel_the_reader()
            batches = frames.batches()
            seen = await anext(batches)
            if len(seen) < 2:
                seen += await anext(batches)
            with pytest.raises(StreamInterrupted, match="cancelled by other code"):
                await anext(batches)
    assert seen == [StdoutFrame("a"), StdoutFrame("b")]


async def test_a_reader_cancelled_while_it_waits_for_the_consumer_interrupts_the_stream(server: ControlPlane):
    server.answers(stalling(SSE, *[event("x" * 2000)] * 10))
    async with EnclaveClient(server.base_url, max_buffered_bytes=1000) as client:
        with anyio.fail_after(PATIENCE_SECONDS):
            async with client.stream("s-1") as frames:
                await anext(frames)
                await anyio.wait_all_tasks_blocked()
                cancel_the_reader()
                with pytest.raises(StreamInterrupted, match="cancelled by other code"):
                    async for _ in frames:
                        pass


async def test_a_stream_whose_first_connection_is_cancelled_by_others_does_not_open(
    server: ControlPlane, client: EnclaveClient
):
    async def cancel(request) -> None:
        cancel_the_reader()
        await request.gone()

    server.answers(cancel)
    with (
        anyio.fail_after(PATIENCE_SECONDS),
        pytest.raises(StreamInterrupted, match=r"after 0 frames: .* cancelled by other code"),
    ):
        async with client.stream("s-1"):
            pytest.fail("opened")


async def stopped() -> str:
    """As a cache does it whose refreshing task was stopped: every caller awaits the task that fetches."""
    task = asyncio.ensure_future(asyncio.sleep(60))
    asyncio.get_running_loop().call_soon(task.cancel)
    await task
    raise AssertionError("unreachable")


def callable_that_turns(then: Callable[[], Awaitable[str]]) -> Callable[[], Awaitable[str]]:
    calls = 0

    async def token() -> str:
        nonlocal calls
        calls += 1
        return "t" if calls == 1 else await then()

    return token


async def test_a_cancelled_task_of_the_callers_token_interrupts_the_stream(server: ControlPlane):
    server.answers(closing(SSE, event("a")))
    retry = RetryPolicy(wait_seconds=0)
    async with EnclaveClient(server.base_url, token=callable_that_turns(stopped), retry=retry) as client:
        with anyio.fail_after(PATIENCE_SECONDS):
            async with client.stream("s-1") as frames:
                assert await anext(frames) == StdoutFrame("a")
                with pytest.raises(StreamInterrupted, match="cancelled by other code"):
                    await anext(frames)


async def test_the_consumers_own_cancellation_stays_one(server: ControlPlane, client: EnclaveClient):
    server.answers(stalling(SSE, event("a")))
    seen = []

    async def consume() -> None:
        async with client.stream("s-1") as frames:
            async for frame in frames:
                seen.append(frame)  # noqa: PERF401 - a cancellation follows

    task = asyncio.ensure_future(consume())
    with anyio.fail_after(PATIENCE_SECONDS):
        while not seen:
            await anyio.lowlevel.checkpoint()
        # As at the end of asyncio.run: the consumer and the reader at once.
        for each in asyncio.all_tasks() - {asyncio.current_task()}:
            if each is task or each.get_name() == READER:
                each.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert task.cancelled()
    server.streams(END)
    async with client.stream("s-1") as frames:  # the client is as good as before
        assert len([frame async for frame in frames]) == 1
