"""Cancel at every step of every operation, and look at what is left."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from enclave import EnclaveClient, SessionHandle
from tests.support import PATIENCE_SECONDS
from tests.support.stepping import MAX_STEPS, Attempt, cancel_at, pending_tasks, ways
from tests.support.stepping_transport import ScriptedTransport

pytestmark = pytest.mark.anyio

Scenario = Callable[[EnclaveClient], Awaitable[Any]]


async def run(client: EnclaveClient) -> SessionHandle:
    return await client.run("pass")


async def single_calls(client: EnclaveClient) -> None:
    await client.get("s-given")
    await client.health()


async def result(client: EnclaveClient) -> Any:
    return (await client.result("s-given")).value


async def stream_frames(client: EnclaveClient) -> int:
    async with client.stream("s-given") as frames:
        return len([frame async for frame in frames])


async def stream_batches(client: EnclaveClient) -> int:
    async with client.stream("s-given") as frames:
        return sum([len(batch) async for batch in frames.batches()])


async def stream_left_early(client: EnclaveClient) -> None:
    async with client.stream("s-given") as frames:
        await anext(frames)


async def session_block(client: EnclaveClient) -> Any:
    async with client.session("pass") as session:
        return (await session.result()).value


async def session_with_stream(client: EnclaveClient) -> int:
    async with client.session("pass") as session, session.stream() as frames:
        return len([frame async for frame in frames])


async def failing_session_block(client: EnclaveClient) -> str:
    try:
        async with client.session("pass"):
            raise LookupError("the body's own")  # noqa: TRY301 - the point
    except LookupError as error:
        return str(error)


async def fan_out(client: EnclaveClient) -> int:
    async with client.fan_out(["pass"] * 2, max_concurrency=2) as outcomes:
        return len([outcome async for outcome in outcomes])


async def fan_out_left_early(client: EnclaveClient) -> None:
    async with client.fan_out(["pass"] * 2, max_concurrency=1) as outcomes:
        await anext(outcomes)


async def mapped(client: EnclaveClient) -> list[int]:
    return [outcome.index for outcome in await client.map(["pass"] * 2, max_concurrency=2)]


async def client_block(client: EnclaveClient) -> None:
    async with client:
        await client.health()


SCENARIOS: dict[Scenario, Any] = {
    run: SessionHandle,
    single_calls: None,
    result: 7,
    stream_frames: 6,
    stream_batches: 6,
    stream_left_early: None,
    session_block: 7,
    session_with_stream: 6,
    failing_session_block: "the body's own",
    fan_out: 2,
    fan_out_left_early: None,
    mapped: [0, 1],
    client_block: None,
}
# Where the operation's own end can be cut off only by a cancellation that came too late for it.
CLOSES_CLIENT = {client_block}


@pytest.mark.parametrize("scenario", [pytest.param(each, id=each.__name__) for each in SCENARIOS])
async def test_cancelling_at_any_step_leaves_nothing_behind(scenario: Scenario) -> None:
    before = pending_tasks()
    for way in ways():
        steps_cancelled = await _cancel_at_each_step(scenario, way, before)
        assert steps_cancelled > 3, f"{way}: the operation was hardly ever cancelled"
    gc.collect()  # an unclosed generator or an exception nobody took shows as a warning, and warnings are errors


async def _cancel_at_each_step(scenario: Scenario, way: str, before: set[Any]) -> int:
    steps_cancelled = 0
    for step in range(MAX_STEPS):
        transport = ScriptedTransport()
        transport.sessions.add("s-given")
        client = EnclaveClient("http://127.0.0.1:1", transport=transport)
        attempt = await cancel_at(step, lambda client=client: scenario(client), way)
        where = f"{way} at step {step}"
        _check_outcome(attempt, SCENARIOS[scenario], where, native=way != "scope")
        await _check_nothing_left(client, transport, attempt, before, where, usable=scenario not in CLOSES_CLIENT)
        if way == "scope":
            assert transport.closes_begun == transport.closes_ended, f"{where}: a close was cut short"
        if not attempt.was_due:
            return steps_cancelled
        steps_cancelled += attempt.cancelled
    raise AssertionError(f"{way}: not through after {MAX_STEPS} steps")


def _check_outcome(attempt: Attempt, expected: Any, where: str, *, native: bool) -> None:
    assert attempt.error is None, f"{where}: {attempt.error!r}"
    assert attempt.cancelled != attempt.completed, where
    if attempt.completed:
        assert not (native and attempt.was_due), f"{where}: the cancellation was swallowed"
        fits = isinstance(attempt.value, expected) if isinstance(expected, type) else attempt.value == expected
        assert fits, f"{where}: {attempt.value!r}"


async def _check_nothing_left(
    client: EnclaveClient,
    transport: ScriptedTransport,
    attempt: Attempt,
    before: set[Any],
    where: str,
    *,
    usable: bool,
) -> None:
    handed_out = {attempt.value.id} if isinstance(attempt.value, SessionHandle) else set()
    assert transport.sessions == {"s-given"} | handed_out, f"{where}: sessions left"
    assert (transport.in_flight, transport.open_bodies) == (0, 0), f"{where}: connections left"
    assert pending_tasks() <= before, f"{where}: tasks left"
    with anyio.fail_after(PATIENCE_SECONDS):
        if usable:
            assert (await client.health()).ok, where
        await client.aclose()
    assert transport.closed or not transport.created, where
