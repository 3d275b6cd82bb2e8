"""A stream as its consumer sees it: iterating, batches, errors in place, cancelling, slowness."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import anyio
import httpx
import pytest

from enclave import (
    EnclaveClient,
    EndFrame,
    EventTooLargeError,
    StdoutFrame,
    StreamInterrupted,
    UsageError,
)
from tests.support import NO_WAITS, PATIENCE_SECONDS
from tests.support.messages import END, SSE, event, response
from tests.support.plane import ControlPlane, Request, stalling
from tests.support.scripted_transport import ScriptedTransport


def lines(count: int) -> bytes:
    return b"".join(event(f"{number}\n") for number in range(count))


def numbers(frames) -> list[int]:
    return [int(frame.data) for frame in frames if isinstance(frame, StdoutFrame)]


async def test_batches_are_the_same_frames_and_mix_with_single_ones(server: ControlPlane, client: EnclaveClient):
    server.streams(lines(1000) + END)
    async with client.stream("s-1") as frames:
        seen = [await anext(frames), await anext(frames)]
        batches = frames.batches()
        seen += await anext(batches)
        single = [frame async for frame in frames]
        with pytest.raises(StopAsyncIteration):
            await anext(batches)
    assert numbers([*seen, *single]) == list(range(1000))
    assert single[-1:] or isinstance(seen[-1], EndFrame)


async def test_batches_are_never_empty_and_hold_what_came_together(server: ControlPlane, client: EnclaveClient):
    server.streams(lines(500) + END)
    async with client.stream("s-1") as frames:
        batches = [batch async for batch in frames.batches()]
    assert all(batches)
    assert len(batches) < 50
    assert numbers(frame for batch in batches for frame in batch) == list(range(500))


async def test_two_tasks_that_share_a_stream_lose_nothing_between_them(server: ControlPlane, client: EnclaveClient):
    more = anyio.Event()

    async def answer(request: Request) -> None:
        await request.send(SSE)
        await more.wait()
        for start in range(0, 300, 3):
            await request.send(b"".join(event(str(number)) for number in range(start, start + 3)))
            await anyio.lowlevel.checkpoint()
        await request.send(END)
        await request.close()

    server.answers(answer)
    seen: list[StdoutFrame] = []

    async def consume(frames) -> None:
        async for frame in frames:
            seen.append(frame)
            await anyio.lowlevel.checkpoint()

    with anyio.fail_after(PATIENCE_SECONDS):
        async with client.stream("s-1") as frames, anyio.create_task_group() as task_group:
            task_group.start_soon(consume, frames)
            task_group.start_soon(consume, frames)
            task_group.start_soon(consume, frames)
            await anyio.wait_all_tasks_blocked()
            more.set()
    assert sorted(numbers(seen)) == list(range(300))


async def test_cancelling_a_stream_from_another_task_ends_the_iteration(server: ControlPlane, client: EnclaveClient):
    async def answer(request: Request) -> None:
        await request.send(SSE, event("1"))
        await request.gone()

    server.answers(answer)
    with anyio.fail_after(PATIENCE_SECONDS):
        async with client.stream("s-1") as frames, anyio.create_task_group() as task_group:
            seen = []
            async for frame in frames:
                seen.append(frame)
                task_group.start_soon(anyio.to_thread.run_sync, lambda: None)
                await anyio.wait_all_tasks_blocked()
                task_group.start_soon(_call, frames.cancel)
            assert seen == [StdoutFrame("1")]
            frames.cancel()
            assert [frame async for frame in frames] == []


async def _call(function) -> None:
    function()


async def test_cancelling_a_stream_drops_what_waits(server: ControlPlane, client: EnclaveClient):
    server.streams(lines(1000) + END)
    async with client.stream("s-1") as frames:
        assert await anext(frames) == StdoutFrame("0\n")
        frames.cancel()
        assert [frame async for frame in frames] == []
        with pytest.raises(StopAsyncIteration):
            await anext(frames.batches())


async def test_waits_that_were_given_up_leave_nothing_behind(server: ControlPlane, client: EnclaveClient):
    server.answers(stalling(SSE, event("1")))
    async with client.stream("s-1") as frames:
        await anext(frames)
        gc.collect()
        before = len(gc.get_objects())
        for _ in range(1000):
            with anyio.move_on_after(0):
                await anext(frames)
        gc.collect()
        assert len(gc.get_objects()) < before + 500


async def test_what_was_not_taken_is_gone_when_the_block_is_left(server: ControlPlane, client: EnclaveClient):
    server.streams(lines(3) + END)
    async with client.stream("s-1") as frames:
        assert await anext(frames) == StdoutFrame("0\n")
        iterator = aiter(frames)
    with pytest.raises(UsageError, match="closed"):
        await anext(iterator)


async def test_cancelling_a_stream_that_broke_ends_the_iteration_without_an_error(
    server: ControlPlane, client_once: EnclaveClient
):
    server.streams(lines(3))
    async with client_once.stream("s-1") as frames:
        assert await anext(frames) == StdoutFrame("0\n")
        with anyio.fail_after(PATIENCE_SECONDS):
            while server.open_connections:
                await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
        frames.cancel()
        assert [frame async for frame in frames] == []


async def test_the_repr_of_a_stream_tells_where_it_stands(server: ControlPlane, client: EnclaveClient):
    server.streams(lines(3))
    server.streams(lines(3) + lines(2) + END)
    frames = client.stream("s-1")
    assert repr(frames) == "<FrameStream session='s-1' new frames=0 resumes=0>"
    async with frames:
        await anext(frames)
        assert repr(frames).startswith("<FrameStream session='s-1' open frames=1 resumes=")
        assert await anext(frames.batches()) == [StdoutFrame("1\n"), StdoutFrame("2\n")]
        await anext(frames)
        assert repr(frames) == "<FrameStream session='s-1' open frames=4 resumes=1>"
        frames.cancel()
    assert repr(frames) == "<FrameStream session='s-1' closed frames=4 resumes=1>"


async def test_an_exception_of_the_callers_own_code_on_the_reconnect_reaches_the_consumer(server: ControlPlane):
    calls = 0

    async def token() -> str:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise LookupError("no token left")
        return "t"

    server.streams(event("1"))
    async with EnclaveClient(server.base_url, token=token, retry=NO_WAITS) as client, client.stream("s-1") as frames:
        with anyio.fail_after(PATIENCE_SECONDS):
            assert await anext(frames) == StdoutFrame("1")
            with pytest.raises(LookupError, match="no token left"):
                await anext(frames)


async def test_every_batch_is_taken_at_a_checkpoint_and_a_cancelled_one_is_not_lost(
    server: ControlPlane, client: EnclaveClient
):
    go_on = anyio.Event()

    async def answer(request: Request) -> None:
        await request.send(SSE, event("1"))
        await go_on.wait()
        await request.send(event("2"))
        await request.gone()

    server.answers(answer)
    with anyio.fail_after(PATIENCE_SECONDS):
        async with client.stream("s-1") as frames:
            batches = frames.batches()
            await anyio.wait_all_tasks_blocked()
            for text in ("1", "2"):
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await anext(batches)
                    pytest.fail("not cancelled")
                assert await anext(batches) == [StdoutFrame(text)]
                go_on.set()
                await anyio.wait_all_tasks_blocked()


async def test_what_the_body_raises_passes_through_as_it_is(server: ControlPlane, client: EnclaveClient):
    async def answer(request: Request) -> None:
        await request.send(SSE, event("1"))
        await request.gone()

    raised = LookupError("mine")
    server.answers(answer, answer)
    with anyio.fail_after(PATIENCE_SECONDS):
        with pytest.raises(LookupError) as caught:
            async with client.stream("s-1") as frames:
                async for _ in frames:
                    raise raised
        assert caught.value is raised
        with pytest.raises(KeyboardInterrupt):
            async with client.stream("s-1"):
                raise KeyboardInterrupt
        while server.open_connections:
            await anyio.lowlevel.checkpoint()


async def test_leaving_early_closes_the_connection_and_leaves_the_client_usable(
    server: ControlPlane, client: EnclaveClient
):
    gone = anyio.Event()

    async def answer(request: Request) -> None:
        await request.send(SSE, event("1"), event("2"))
        await request.gone()
        gone.set()

    server.answers(answer, response([]))
    with anyio.fail_after(PATIENCE_SECONDS):
        async with client.stream("s-1") as frames:
            async for _ in frames:
                break
        await gone.wait()
    assert await client.list() == []


async def test_many_streams_run_side_by_side_and_starve_no_request(server: ControlPlane, client: EnclaveClient):
    async def answer(request: Request) -> None:
        await request.send(SSE, event("1"))
        await request.gone()

    server.route("GET", "/sessions/s-1/stream", answer)
    server.route("GET", "/sessions", response([]))
    with anyio.fail_after(60):
        async with AsyncExitStack() as stack:
            streams = [await stack.enter_async_context(client.stream("s-1")) for _ in range(120)]
            assert [await anext(frames) for frames in streams] == [StdoutFrame("1")] * 120
            assert await client.list() == []


async def test_a_consumer_that_gives_up_waiting_goes_on_without_loss(server: ControlPlane, client: EnclaveClient):
    more = anyio.Event()

    async def answer(request: Request) -> None:
        await request.send(SSE, event("0"))
        await more.wait()
        await request.send(event("1") + event("2"), END)
        await request.close()

    server.answers(answer)
    with anyio.fail_after(PATIENCE_SECONDS):
        async with client.stream("s-1") as frames:
            seen = [await anext(frames)]
            for _ in range(3):
                with anyio.move_on_after(0.01) as scope:
                    seen.append(await anext(frames))
                assert scope.cancelled_caught
            more.set()
            seen += [frame async for frame in frames]
    assert numbers(seen) == [0, 1, 2]


async def test_an_event_over_the_bound_is_an_error_with_the_bounds_name_and_is_not_retried(server: ControlPlane):
    server.streams(event("ok") + event("x" * 5000) + END)
    async with EnclaveClient(server.base_url, max_event_bytes=4096) as client, client.stream("s-1") as frames:
        assert await anext(frames) == StdoutFrame("ok")
        with pytest.raises(EventTooLargeError, match="max_event_bytes=4096"):
            await anext(frames)
    assert len(server.requests) == 1


async def test_without_retries_a_stream_that_breaks_is_interrupted_at_once(
    server: ControlPlane, client_once: EnclaveClient
):
    server.streams(lines(3))
    async with client_once.stream("s-1") as frames:
        seen = []
        with pytest.raises(StreamInterrupted, match="before its end frame") as caught:
            async for frame in frames:
                seen.append(frame)  # noqa: PERF401 - an error follows
        with pytest.raises(StreamInterrupted):
            await anext(frames)
    assert numbers(seen) == [0, 1, 2]
    assert (caught.value.delivered, caught.value.session_id) == (3, "s-1")


class LateBody(httpx.AsyncByteStream):
    """Has a piece on its way when the reader is cancelled, and gives it out all the same."""

    def __init__(self, first: bytes, late: bytes) -> None:
        self._first, self._late = first, late
        self.proceed = anyio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._first
        with anyio.CancelScope(shield=True):
            await self.proceed.wait()
        yield self._late


async def test_what_arrives_while_a_cancelled_stream_stops_is_dropped():
    body = LateBody(event("first"), event("late") + END)
    head = {"content-type": "text/event-stream"}
    transport = ScriptedTransport(httpx.Response(200, headers=head, stream=body))
    async with EnclaveClient("http://127.0.0.1:1", transport=transport) as client:
        with anyio.fail_after(PATIENCE_SECONDS):
            async with client.stream("s-1") as frames:
                assert await anext(frames) == StdoutFrame("first")
                frames.cancel()
                body.proceed.set()
                await anyio.wait_all_tasks_blocked()
                assert [frame async for frame in frames] == []
                assert [batch async for batch in frames.batches()] == []
