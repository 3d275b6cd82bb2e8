"""What `result()` asks the server for: no stream twice, and none at all where the result is there already."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import anyio
import httpx
import pytest
import trio.testing

from enclave import EnclaveClient, KillReason, MalformedResponseError, PhaseFrame, RetryPolicy, SessionHandle
from tests.support import NO_WAITS
from tests.support.messages import END, event, response, session
from tests.support.plane import ControlPlane
from tests.support.scripted_transport import Body, ScriptedTransport, sse

RESULT = {"exitCode": 0, "json": 7}
STREAM, FETCH, SESSION = "/sessions/s-1/stream", "/sessions/s-1/result", "/sessions/s-1"


def phase(name: str, **fields: str) -> bytes:
    return event({"kind": "phase", "phase": name, **fields})


def targets(server: ControlPlane) -> list[str]:
    asked = [request.target for request in server.requests]
    server.requests.clear()
    return asked


async def test_a_stream_that_was_read_to_its_end_is_not_read_again(server: ControlPlane, handle: SessionHandle):
    server.streams(phase("running"), event("one"), phase("succeeded"), END)
    async with handle.stream() as frames:
        async for _ in frames:
            pass
    server.answers(response(RESULT), response(RESULT))
    assert [(await handle.result()).value for _ in range(2)] == [7, 7]
    assert targets(server) == [STREAM, FETCH, FETCH]


async def test_nor_is_one_that_was_left_at_the_terminal_phase(server: ControlPlane, client: EnclaveClient):
    handle = client.attach("s-1")
    server.streams(phase("running"), phase("failed"), END)
    async with handle.stream() as frames:
        async for frame in frames:
            if isinstance(frame, PhaseFrame) and frame.phase.is_terminal:
                break
    server.answers(response(RESULT))
    assert (await handle.result()).phase == "failed"
    assert targets(server) == [STREAM, FETCH]


async def test_nor_is_one_that_ended_without_a_terminal_phase(server: ControlPlane, client: EnclaveClient):
    handle = client.attach("s-1")
    server.streams(event("one"), END)
    async with handle.stream() as frames:
        assert len([frame async for frame in frames]) == 2
    server.answers(response(RESULT), response(session(phase="succeeded")))
    assert (await handle.result()).phase == "succeeded"
    assert targets(server) == [STREAM, FETCH, SESSION]


async def test_a_stream_that_was_left_early_says_nothing_of_the_end(server: ControlPlane, handle: SessionHandle):
    server.streams(phase("running"), event("one"), phase("succeeded"), END)
    async with handle.stream() as frames:
        assert (await anext(frames)).kind == "phase"
        frames.cancel()
    server.streams(phase("running"), phase("succeeded"), END)
    server.answers(response(RESULT))
    await handle.result()
    assert targets(server) == [STREAM, STREAM, FETCH]


@pytest.mark.parametrize("attached", [True, False])
async def test_an_old_session_costs_no_stream(server: ControlPlane, client: EnclaveClient, attached: bool):
    server.answers(response(RESULT), response(session(phase="succeeded")))
    handle = client.attach("s-1")
    assert (await (handle.result() if attached else client.result("s-1"))).value == 7
    assert targets(server) == [FETCH, SESSION]
    if attached:
        assert handle.phase == "succeeded"
        server.answers(response(RESULT))
        await handle.result()
        assert targets(server) == [FETCH]


@pytest.mark.parametrize("status", [404, 409])
async def test_a_session_that_still_runs_is_streamed(server: ControlPlane, client: EnclaveClient, status: int):
    server.answers(response({}, status))
    server.streams(phase("running"), phase("succeeded"), END)
    server.answers(response(RESULT))
    assert (await client.result("s-1")).value == 7
    assert targets(server) == [FETCH, STREAM, FETCH]


async def test_a_server_that_answers_before_the_end_is_not_believed(server: ControlPlane, client: EnclaveClient):
    for early in (response({"exitCode": None}), response(b"", 204), response({}, 500), response({}, 425)):
        server.answers(early, response(session(phase="running")))
        server.streams(phase("succeeded"), END)
        server.answers(response(RESULT))
        assert (await client.result("s-1")).value == 7
        assert targets(server) == [FETCH, SESSION, STREAM, FETCH]


async def test_a_result_that_cannot_be_read_is_taken_from_the_session(
    server: ControlPlane, client: EnclaveClient, handle: SessionHandle
):
    told = response(session(phase="succeeded", result=RESULT))
    for unreadable in (response([]), response(b"<html>"), response({}, 500)):
        server.answers(unreadable, told)
        assert (await client.result("s-1", int)).value == 7
    server.streams(phase("succeeded"), END)
    server.answers(response([]), told)
    assert (await handle.result(int)).value == 7
    server.answers(response([]), response(session(phase="succeeded")))
    with pytest.raises(MalformedResponseError):
        await client.result("s-1")


async def test_a_handle_knows_its_session_from_the_frames_and_from_the_result(
    server: ControlPlane, handle: SessionHandle
):
    assert handle.phase == "pending"
    server.streams(
        phase("pending"),
        phase("running"),
        event({"kind": "result", "result": {"exitCode": None}}),
        phase("killed", killReason="memory_exceeded"),
        phase("torn_down"),
        END,
    )
    seen = []
    async with handle.stream() as frames:
        async for _ in frames:
            seen.append(str(handle.phase))  # noqa: PERF401 - a comprehension would hide when it is looked at
    order = ["pending", "running", "killed", "torn_down"]
    assert seen == sorted(seen, key=order.index)
    assert seen[-1] == "torn_down"
    assert (handle.last_seen.kill_reason, handle.last_seen.result.exit_code) == (KillReason.MEMORY_EXCEEDED, None)
    server.streams(phase("pending"), phase("running"), END)  # a replay changes nothing
    async with handle.stream() as frames:
        assert [frame.kind async for frame in frames] == ["phase", "phase", "end"]
    assert handle.phase == "torn_down"
    server.answers(response({"exitCode": 137, "stdout": "x"}))
    assert (await handle.result()).is_killed
    assert handle.last_seen.result.stdout == "x"
    assert "torn_down" in repr(handle)


async def test_a_phase_that_this_version_does_not_know_gives_way_to_the_next_one_whatever_that_is(
    server: ControlPlane, handle: SessionHandle
):
    server.answers(response(session(phase="hibernating")))
    assert (await handle.refresh()).phase == handle.phase == "hibernating"
    server.streams(phase("pending"), END)
    async with handle.stream() as frames:
        assert len([frame async for frame in frames]) == 2
    assert handle.phase == "pending"


async def test_the_phase_that_the_server_states_counts_and_not_one_concluded_from_an_exit_code(
    server: ControlPlane, handle: SessionHandle
):
    exited = event({"kind": "result", "result": {"exitCode": 137}})
    server.streams(phase("running"), exited, phase("killed", killReason="memory_exceeded"), exited, END)
    async with handle.stream() as frames:
        phases = [str(handle.phase) async for _ in frames]
    assert phases[-1] == "killed"
    assert handle.last_seen.kill_reason == KillReason.MEMORY_EXCEEDED


async def test_an_attached_handle_knows_what_it_was_shown(server: ControlPlane, client: EnclaveClient):
    handle = client.attach("s-1")
    server.streams(phase("running"), event({"kind": "result", "result": RESULT}), END)
    async with handle.stream() as frames:
        assert len([frame async for frame in frames]) == 3
    assert (handle.last_seen.id, handle.phase, handle.last_seen.result.value) == ("s-1", "succeeded", 7)


# On a virtual clock: how long a silent stream is believed.


class SilentPlane(httpx.AsyncBaseTransport):
    """Streams heartbeats alone, or nothing at all. The session ends after so many seconds."""

    def __init__(self, *, ends_after: float, stream: Callable[[], httpx.Response]) -> None:
        self.ends_after = ends_after
        self.stream = stream
        self.asked: list[float] = []
        self.streams = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await anyio.lowlevel.checkpoint()
        if request.url.path == STREAM:
            self.streams += 1
            return self.stream()
        ended = anyio.current_time() >= self.ends_after
        if request.url.path == FETCH:
            return httpx.Response(200, json=RESULT) if ended else httpx.Response(409, json={})
        if request.method == "GET":
            self.asked.append(anyio.current_time())
        return httpx.Response(200, json=session("s-1", "succeeded" if ended else "running"))


def heartbeats() -> httpx.Response:
    steps = [step for _ in range(10_000) for step in (b": heartbeat\n\n", 1.0)]
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Body(steps))


def silence() -> httpx.Response:
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Body([1e6]))


def hangs_up() -> httpx.Response:
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Body([b": hello\n\n", 1.0]))


def result_on_mock_clock(transport: SilentPlane, **options: Any) -> tuple[Any, float]:
    async def run() -> tuple[Any, float]:
        client = EnclaveClient("http://127.0.0.1:1", transport=transport, **options)
        async with client:
            handle = await client.run("x")
            transport.asked.clear()
            started = anyio.current_time()
            transport.ends_after += started
            result = await handle.result()
            return result.value, anyio.current_time() - started

    clock = trio.testing.MockClock(autojump_threshold=0)
    return trio.run(run, clock=clock)


@pytest.mark.parametrize("stream", [heartbeats, silence, hangs_up])
def test_a_stream_that_replays_nothing_of_a_session_that_has_ended_is_not_waited_for(
    stream: Callable[[], httpx.Response],
):
    value, seconds = result_on_mock_clock(SilentPlane(ends_after=0, stream=stream), retry=RetryPolicy(wait_seconds=0.1))
    assert value == 7
    assert seconds < 5


def test_a_result_a_moment_late_is_asked_for_with_growing_waits():
    asked: list[float] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == STREAM:
            return sse(phase("succeeded"), END)
        if request.url.path == FETCH:
            asked.append(anyio.current_time())
            return httpx.Response(200, json=RESULT) if len(asked) == 5 else httpx.Response(409, json={})
        return httpx.Response(200, json=session("s-1", "succeeded"))

    async def run() -> None:
        transport = ScriptedTransport(answer)
        async with EnclaveClient("http://127.0.0.1:1", transport=transport, retry=None) as client:
            assert (await (await client.run("x")).result()).value == 7

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))
    assert len(asked) == 5
    for number, (sooner, later) in enumerate(pairwise(asked)):
        longest = 0.1 * 2**number
        assert longest / 2 - 1e-6 < later - sooner < longest + 1e-6  # up to half of it is left out at random


def test_a_session_that_is_silent_for_long_is_asked_for_ever_more_rarely():
    transport = SilentPlane(ends_after=600, stream=heartbeats)
    value, seconds = result_on_mock_clock(transport, retry=NO_WAITS)
    assert value == 7
    assert 600 <= seconds < 640
    waits = [later - sooner for sooner, later in pairwise(transport.asked)]
    assert waits[:6] == pytest.approx([4, 8, 16, 30, 30, 30], abs=0.1)
    assert len(transport.asked) < 30
    assert transport.streams == 1
