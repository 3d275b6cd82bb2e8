"""A session that is silent for longer than a proxy waits is read whole, however often the proxy closes its stream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest

from enclave import EnclaveError, RetryPolicy, StreamInterrupted
from enclave.types import StdoutFrame
from tests.support.network import Network, Route

SILENT_SECONDS = 20.0
RETRY = RetryPolicy(wait_seconds=0.1)  # so that 5 closes, which are all its attempts, come within the silence
MIN_CLOSES = 3  # that each stream has met. On a busy machine there is no time for more
ANSWER = 285
BEFORE = [StdoutFrame(f"before {number}\n") for number in range(3)]
AFTER = [StdoutFrame(f"after {number} é" + "x" * 1000) for number in range(300)]


async def problem_of_reading(route: Route, session_id: str) -> str | None:
    async with route.client(RETRY) as client, client.stream(session_id) as stream:
        received = [frame async for frame in stream]
    if received != await route.frames_without_a_proxy(session_id):
        return f"{len(received)} frames came, and they are not those of the session"
    return None if stream.resumes >= MIN_CLOSES else f"the stream was closed no more than {stream.resumes} times"


async def problem_of_the_result(route: Route, session_id: str) -> str | None:
    async with route.client(RETRY) as client:
        result = await client.result(session_id, int)
    return None if result.value == ANSWER else f"the result is {result.value}"


async def test_a_session_silent_for_longer_than_the_proxy_waits_is_read_whole(impatient: Network):
    problems: list[str] = []

    async def check(problem_of: Callable[[Route, str], Awaitable[str | None]], route: Route, session_id: str) -> None:
        try:
            problem = await problem_of(route, session_id)
        except EnclaveError as error:
            problem = repr(error)
        if problem is not None:
            problems.append(f"{problem_of.__name__}, {route.name}: {problem}")

    with anyio.fail_after(150):
        async with anyio.create_task_group() as checks:
            for route in impatient.routes:
                for problem_of in (problem_of_reading, problem_of_the_result):
                    session_id = await route.create_without_a_proxy([*BEFORE, SILENT_SECONDS, *AFTER], result=ANSWER)
                    checks.start_soon(check, problem_of, route, session_id)
                    # One after the other. All at once, a busy machine would answer later than the proxy waits.
                    await route.stream_requests(session_id, 1)
    assert not problems, "\n".join(problems)


async def test_a_stream_that_is_closed_at_once_each_time_is_given_up(patient: Network):
    delivered: dict[str, int] = {}

    async def read(route: Route) -> None:
        session_id = await route.create_without_a_proxy(BEFORE, hold=True)
        path = f"/sessions/{session_id}/stream"
        route.sim.faults.end_stream(path=path, after_frames=len(BEFORE))
        route.sim.faults.end_stream(path=path, times=1000)
        async with route.client(RETRY) as client:
            with pytest.raises(StreamInterrupted) as caught:
                async with client.stream(session_id) as stream:
                    async for _ in stream:
                        pass
        delivered[route.name] = caught.value.delivered

    with anyio.fail_after(60):
        async with anyio.create_task_group() as readers:
            for route in patient.routes:
                readers.start_soon(read, route)
    assert delivered == {route.name: len(BEFORE) for route in patient.routes}
