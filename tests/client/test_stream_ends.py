"""Where a stream ends: at its `end` frame, or where the workload has ended and nothing more comes."""

from __future__ import annotations

import threading
import time

import anyio
import pytest
import trio
from trio.testing import MockClock

from enclave import (
    EnclaveClient,
    EndFrame,
    PhaseFrame,
    RetryPolicy,
    SessionPhase,
    StdoutFrame,
    StreamInterrupted,
    Timeout,
)
from tests.support import NO_WAITS, PATIENCE_SECONDS
from tests.support.messages import CHUNKED_SSE, END, SSE, chunk, event
from tests.support.plane import ControlPlane, Request, closing, stalling
from tests.support.scripted_transport import ScriptedTransport, sse

DONE = event({"kind": "phase", "phase": "succeeded"})
RUNNING = event({"kind": "phase", "phase": "running"})
SUCCEEDED = PhaseFrame(SessionPhase.SUCCEEDED)
SHORT = Timeout(stream_end=0.15)


async def read(client: EnclaveClient) -> list[object]:
    with anyio.fail_after(PATIENCE_SECONDS):
        async with client.stream("s-1") as frames:
            return [frame async for frame in frames]


@pytest.mark.parametrize("phase", ["succeeded", "failed", "killed", "torn_down"])
async def test_a_clean_close_after_a_terminal_phase_is_the_end(server: ControlPlane, client: EnclaveClient, phase):
    server.streams(RUNNING, event({"kind": "phase", "phase": phase}), event("late"))
    *_, last_phase, late = await read(client)
    assert last_phase == PhaseFrame(SessionPhase(phase))
    assert late == StdoutFrame("late")
    assert len(server.requests) == 1


async def test_a_clean_close_after_another_phase_is_none(server: ControlPlane, client: EnclaveClient):
    server.streams(RUNNING, event("a"))
    server.streams(RUNNING, event("a"), END)
    assert (await read(client))[1:] == [StdoutFrame("a"), EndFrame()]


@pytest.mark.parametrize("ids", [True, False], ids=["ids", "no ids"])
async def test_a_break_after_a_terminal_phase_is_resumed_until_a_clean_close(
    server: ControlPlane, client: EnclaveClient, ids
):
    events = [event("a", "1" if ids else None), event({"kind": "phase", "phase": "failed"}, "2" if ids else None)]

    async def cut(request: Request) -> None:
        await request.send(CHUNKED_SSE, chunk(b"".join(events)))  # and never the last chunk
        await request.close()

    server.answers(cut)
    server.streams(*([] if ids else events), event("late", "3" if ids else None))
    assert await read(client) == [StdoutFrame("a"), PhaseFrame(SessionPhase.FAILED), StdoutFrame("late")]
    assert server.requests[1].headers.get("last-event-id") == ("2" if ids else None)


async def test_a_replay_that_closes_before_it_is_through_is_no_end(server: ControlPlane, client: EnclaveClient):
    async def cut(request: Request) -> None:
        await request.send(CHUNKED_SSE, chunk(event("a") + DONE))
        await request.close()

    server.answers(cut)
    server.streams(event("a"))
    server.streams(event("a"), DONE, event("late"), END)
    assert await read(client) == [StdoutFrame("a"), SUCCEEDED, StdoutFrame("late"), EndFrame()]


async def test_silence_after_a_terminal_phase_is_the_end(server: ControlPlane):
    server.answers(stalling(SSE, event("a"), DONE, event("late")))
    async with EnclaveClient(server.base_url, timeout=SHORT, retry=None) as client:
        assert await read(client) == [StdoutFrame("a"), SUCCEEDED, StdoutFrame("late")]
        while server.open_connections:  # the client is open, and has closed the stream's connection all the same
            await anyio.lowlevel.checkpoint()


async def test_heartbeats_after_a_terminal_phase_are_silence(server: ControlPlane):
    async def beat(request: Request) -> None:
        await request.send(SSE, DONE)
        while True:
            await request.send(b": beat\n\n")
            await anyio.sleep(0.01)

    server.answers(beat)
    async with EnclaveClient(server.base_url, timeout=SHORT, retry=None) as client:
        assert await read(client) == [SUCCEEDED]


async def test_silence_after_a_terminal_phase_that_an_earlier_connection_brought_is_the_end(server: ControlPlane):
    async def cut(request: Request) -> None:
        await request.send(CHUNKED_SSE, chunk(event({"kind": "phase", "phase": "succeeded"}, "1")))
        await request.close()

    server.answers(cut, stalling(SSE))
    async with EnclaveClient(server.base_url, timeout=SHORT, retry=NO_WAITS) as client:
        assert await read(client) == [SUCCEEDED]


async def test_silence_in_a_replay_after_a_terminal_phase_is_no_end(server: ControlPlane):
    async def cut(request: Request) -> None:
        await request.send(CHUNKED_SSE, chunk(event("a") + DONE))
        await request.close()

    server.answers(cut, stalling(SSE, event("a")))
    server.streams(event("a"), DONE, END)
    timeout = Timeout(stream_end=0.05, stream_idle=0.2)
    async with EnclaveClient(server.base_url, timeout=timeout, retry=NO_WAITS) as client:
        assert await read(client) == [StdoutFrame("a"), SUCCEEDED, EndFrame()]


async def test_no_wait_for_the_end_can_be_asked_for(server: ControlPlane):
    server.answers(stalling(SSE, DONE))
    server.streams(END)
    timeout = Timeout(stream_end=None, stream_idle=0.2)
    async with EnclaveClient(server.base_url, timeout=timeout, retry=NO_WAITS) as client:
        async with client.stream("s-1") as frames:
            with anyio.fail_after(PATIENCE_SECONDS):
                assert await anext(frames) == SUCCEEDED
                with pytest.raises(StreamInterrupted):  # the idle timeout, and then a replay that is another
                    await anext(frames)


async def test_a_slow_consumer_does_not_make_the_end_come_early(server: ControlPlane):
    go_on = anyio.Event()

    async def late(request: Request) -> None:
        await request.send(SSE, DONE, *[event("x" * 1000)] * 50)
        await go_on.wait()
        await request.send(event("late"), END)
        await request.close()

    server.answers(late)
    timeout = Timeout(stream_end=0.2)
    async with EnclaveClient(server.base_url, timeout=timeout, max_buffered_bytes=1000, retry=None) as client:
        with anyio.fail_after(PATIENCE_SECONDS):
            async with client.stream("s-1") as frames:
                seen = [await anext(frames)]
                await anyio.sleep(0.5)  # the reader waits for room meanwhile, and its clock stands still
                go_on.set()
                seen += [frame async for frame in frames]
    assert seen[-2:] == [StdoutFrame("late"), EndFrame()]


async def test_a_consumer_that_keeps_the_event_loop_busy_is_not_taken_for_a_server_that_is_silent():
    has_begun, is_busy, has_sent = threading.Event(), threading.Event(), threading.Event()

    async def late(request: Request) -> None:
        await request.send(CHUNKED_SSE, chunk(RUNNING))
        await anyio.to_thread.run_sync(has_begun.wait)
        await request.send(chunk(DONE))
        await anyio.to_thread.run_sync(is_busy.wait)
        await request.send(chunk(event("late")), chunk(END))
        has_sent.set()
        await request.gone()

    plane = ControlPlane()
    plane.answers(late)
    with plane.in_thread():
        async with EnclaveClient(plane.base_url, timeout=Timeout(stream_end=0.1), retry=None) as client:
            with anyio.fail_after(PATIENCE_SECONDS):
                async with client.stream("s-1") as frames:
                    await anext(frames)
                    has_begun.set()
                    seen = [await anext(frames)]
                    is_busy.set()
                    assert has_sent.wait(PATIENCE_SECONDS)
                    until = time.thread_time() + 0.2
                    while time.thread_time() < until:  # a sleep would not count on the clock of the tests
                        pass
                    seen += [frame async for frame in frames]
    assert seen == [SUCCEEDED, StdoutFrame("late"), EndFrame()]


@pytest.mark.parametrize("ids", [True, False], ids=["ids", "no ids"])
def test_by_default_five_seconds_of_silence_are_the_end(ids):
    async def main() -> float:
        frame = event({"kind": "phase", "phase": "succeeded"}, "1" if ids else None)
        transport = ScriptedTransport(sse(frame, 3.0, event("late", "2" if ids else None), 4.0, b": beat\n\n", 60.0))
        async with EnclaveClient("http://127.0.0.1:1", transport=transport, retry=None) as client:
            assert await read(client) == [SUCCEEDED, StdoutFrame("late")]
        return anyio.current_time()

    clock = MockClock(autojump_threshold=0)
    assert trio.run(main, clock=clock) == pytest.approx(8.0, abs=0.1)


def test_whoever_reads_gets_the_end_before_the_server_has_closed_the_connection():
    async def main() -> float:
        transport = ScriptedTransport(sse(event("x"), END, 60.0))
        async with EnclaveClient("http://127.0.0.1:1", transport=transport, retry=None) as client:
            async with client.stream("s-1") as frames:
                assert [frame async for frame in frames] == [StdoutFrame("x"), EndFrame()]
                return anyio.current_time()

    clock = MockClock(autojump_threshold=0)
    assert trio.run(main, clock=clock) == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize("ids", [True, False], ids=["ids", "no ids"])
@pytest.mark.parametrize("failure", [b"", ConnectionResetError("reset")], ids=["closes", "resets"])
def test_a_proxy_that_closes_quiet_connections_is_outlasted(ids, failure):
    """Two attempts that bring nothing are one too many here, and the session is quiet for an hour."""
    first, second = event("started", "1" if ids else None), event("done", "2" if ids else None)

    async def main() -> None:
        before = [] if ids else [first]
        quiet = [sse(*before, 60.0, *([failure] if failure else [])) for _ in range(60)]
        end = event({"kind": "end"}, "3" if ids else None)
        transport = ScriptedTransport(sse(first, 60.0), *quiet, sse(*before, 10.0, second, end))
        retry = RetryPolicy(attempts=2, wait_seconds=0)
        async with EnclaveClient("http://127.0.0.1:1", transport=transport, retry=retry) as client:
            async with client.stream("s-1") as frames:
                assert [frame async for frame in frames] == [StdoutFrame("started"), StdoutFrame("done"), EndFrame()]
                assert frames.resumes == 61

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def test_a_connection_that_stood_for_a_while_is_no_failed_attempt_and_one_closed_at_once_is(
    server: ControlPlane,
):
    async def quiet(request: Request) -> None:
        await request.send(SSE)
        await anyio.sleep(0.55)
        await request.close()

    server.streams(event("a", "1"))
    server.answers(quiet, closing(SSE), quiet, closing(SSE), quiet)
    server.streams(event({"kind": "end"}, "2"))
    retry = RetryPolicy(attempts=3, wait_seconds=0)
    async with EnclaveClient(server.base_url, retry=retry) as client:
        assert await read(client) == [StdoutFrame("a"), EndFrame()]
        server.streams(event("a"))
        server.answers(closing(SSE), closing(SSE))
        with pytest.raises(StreamInterrupted, match="gave up after 2 retries"):
            await read(client)


async def test_a_shielded_consumer_gets_the_frames_that_follow_a_cancellation_around_it(server, client):
    cancelled = anyio.Event()

    async def answer(request: Request) -> None:
        await request.send(SSE + event("a"))
        await cancelled.wait()
        await request.send(event("b") + END)

    server.answers(answer)
    with anyio.fail_after(PATIENCE_SECONDS), anyio.CancelScope() as scope:
        async with client.stream("s-1") as frames:
            with anyio.CancelScope(shield=True):
                seen = [await anext(frames)]
                scope.cancel()
                await anyio.wait_all_tasks_blocked()
                cancelled.set()
                seen += [frame async for frame in frames]
    assert seen == [StdoutFrame("a"), StdoutFrame("b"), EndFrame()]
