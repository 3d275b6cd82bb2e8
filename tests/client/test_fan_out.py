"""Many sessions at once: how outcomes come out, how requests are taken in, and what ends it early."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import httpx
import msgspec
import pytest

from enclave import (
    BadRequestError,
    Completed,
    CreateSessionRequest,
    EnclaveClient,
    Errored,
    Outcome,
    PermissionDeniedError,
    ResultTypeError,
    UsageError,
    Verdict,
)
from enclave.simulator import Simulator
from tests.support import PATIENCE_SECONDS


class Answer(msgspec.Struct):
    answer: int


@pytest.fixture
def held(sim: Simulator):
    """`held(n)`: the next n sessions run until their script's `release`."""

    def scripts(count: int, result: Any = None) -> list:
        return [
            sim.script(hold=True, result={"answer": number} if result is None else result) for number in range(count)
        ]

    return scripts


def torn_down(sim: Simulator) -> bool:
    return set(sim.phases.values()) <= {"torn_down"} and sim.unreclaimed_sessions == 0


async def test_outcomes_come_in_the_order_in_which_sessions_end(sim: Simulator, sim_client: EnclaveClient, held):
    scripts = held(3)
    seen: list[Outcome[Answer]] = []
    with anyio.fail_after(PATIENCE_SECONDS):
        async with sim_client.fan_out(["a", "b", "c"], max_concurrency=3, type=Answer) as outcomes:
            for number in (2, 0, 1):
                script = scripts[number]
                script.release()
                seen.append(await anext(outcomes))
                assert seen[-1].session_id == script.session_id
                assert seen[-1].result.value == Answer(number)
            with pytest.raises(StopAsyncIteration):
                await anext(outcomes)
    assert sorted(outcome.index for outcome in seen) == [0, 1, 2]
    assert all(outcome.request == "abc"[outcome.index] for outcome in seen)
    assert all(outcome.verdict is Verdict.SUCCEEDED and outcome.duration_seconds > 0 for outcome in seen)
    assert torn_down(sim)


async def test_no_more_is_taken_than_the_bound_and_a_slow_consumer_slows_the_intake(
    sim: Simulator, sim_client: EnclaveClient
):
    taken = 0
    given = 0

    def requests() -> Iterator[str]:
        nonlocal taken
        for number in range(12):
            taken += 1
            assert taken - given <= 3
            sim.script(result=number)
            yield "x"

    with anyio.fail_after(PATIENCE_SECONDS):
        async with sim_client.fan_out(requests(), max_concurrency=3) as outcomes:
            # Every session has ended, and nobody takes: nothing more may be started.
            await sim.until(lambda sim: len(sim.phases) == 3 and torn_down(sim))
            await anyio.wait_all_tasks_blocked()
            assert taken == 3
            async for outcome in outcomes:
                given += 1
                assert outcome.verdict is Verdict.SUCCEEDED
    assert (taken, given) == (12, 12)


async def test_an_endless_input_is_taken_as_needed(sim: Simulator, sim_client: EnclaveClient):
    async def endless() -> AsyncIterator[CreateSessionRequest]:
        while True:
            sim.script(result=1)
            yield CreateSessionRequest(code="x")

    with anyio.fail_after(PATIENCE_SECONDS):
        async with sim_client.fan_out(endless(), max_concurrency=2) as outcomes:
            assert [(await anext(outcomes)).result.value for _ in range(4)] == [1] * 4
    assert torn_down(sim)


async def test_the_input_is_closed_when_the_fan_out_is_left(sim: Simulator, sim_client: EnclaveClient, held):
    held(2)
    closed = []

    async def endless() -> AsyncIterator[str]:
        try:
            while True:
                yield "x"
        finally:
            await anyio.lowlevel.checkpoint()
            closed.append(True)

    with anyio.fail_after(PATIENCE_SECONDS):
        async with sim_client.fan_out(endless(), max_concurrency=2):
            await sim.until(lambda sim: len(sim.phases) == 2)
    assert closed == [True]
    assert torn_down(sim)


async def test_an_input_has_the_time_to_close_though_the_fan_out_is_cancelled(
    sim: Simulator, sim_client: EnclaveClient
):
    steps = []

    async def endless() -> AsyncIterator[str]:
        try:
            while True:
                yield "x"
        finally:
            for step in range(5):
                await anyio.lowlevel.checkpoint()
                steps.append(step)

    sim.script(hold=True)
    with anyio.fail_after(PATIENCE_SECONDS):
        with anyio.CancelScope() as scope:
            async with sim_client.fan_out(endless(), max_concurrency=1):
                await sim.until(lambda sim: len(sim.phases) == 1)
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
    assert steps == [0, 1, 2, 3, 4]
    assert torn_down(sim)


async def test_a_plain_generator_is_closed_when_the_fan_out_is_left(sim: Simulator, sim_client: EnclaveClient, held):
    held(2)
    closed = []

    def endless() -> Iterator[str]:
        try:
            while True:
                yield "x"
        finally:
            closed.append(True)

    requests = endless()
    with anyio.fail_after(PATIENCE_SECONDS):
        async with sim_client.fan_out(requests, max_concurrency=2):
            await sim.until(lambda sim: len(sim.phases) == 2)
        assert closed == [True]
        with pytest.raises(StopIteration):
            next(requests)
    assert torn_down(sim)


async def test_leaving_early_tears_every_session_down_and_leaves_the_client_usable(
    sim: Simulator, sim_client: EnclaveClient, held
):
    scripts = held(5)
    raised = LookupError("mine")
    with anyio.fail_after(PATIENCE_SECONDS):
        with pytest.raises(LookupError) as caught:
            async with sim_client.fan_out(["x"] * 5, max_concurrency=5) as outcomes:
                await sim.until(lambda sim: len(sim.phases) == 5)
                scripts[0].release()
                async for _ in outcomes:
                    raise raised
        assert caught.value is raised
        assert torn_down(sim)
        assert len(await sim_client.list()) == 5


async def test_a_failure_stands_in_its_outcome_and_disturbs_no_other(sim: Simulator, sim_client: EnclaveClient):
    sim.faults.respond(403, method="POST", path="/sessions")
    for result in ({"answer": 1}, "no answer"):
        sim.script(result=result)
    sim.script(exit_code=3)
    with anyio.fail_after(PATIENCE_SECONDS):
        outcomes = await sim_client.map(["a", "b", "c", "d"], type=Answer, max_concurrency=1)
    assert [outcome.index for outcome in outcomes] == [0, 1, 2, 3]
    refused, fine, misfit, failed = outcomes
    assert isinstance(refused, Errored)
    assert isinstance(refused.error, PermissionDeniedError)
    assert (refused.session_id, refused.verdict) == (None, Verdict.CLIENT)
    assert fine.result.value == Answer(1)
    assert isinstance(misfit.error, ResultTypeError)
    assert misfit.verdict is Verdict.MISTYPED
    assert misfit.session_id is not None
    assert misfit.error.result.value == "no answer"
    assert isinstance(failed, Completed)
    assert failed.verdict is Verdict.FAILED
    assert failed.result.exit_code == 3
    assert torn_down(sim)


async def test_failing_fast_raises_the_first_error_as_it_is_and_tears_the_rest_down(
    sim: Simulator, sim_client: EnclaveClient, held
):
    held(2)
    sim.script(result="no answer")
    with anyio.fail_after(PATIENCE_SECONDS):
        with pytest.raises(ResultTypeError):
            async with sim_client.fan_out(["a", "b", "c"], max_concurrency=3, type=Answer, fail_fast=True) as outcomes:
                async for _ in outcomes:
                    pytest.fail("an outcome came")
        held(1)
        sim.script(result="no answer")
        with pytest.raises(ResultTypeError):
            await sim_client.map(["a", "b"], max_concurrency=2, type=Answer, fail_fast=True)
    assert torn_down(sim)


async def test_after_the_first_error_fail_fast_gives_nothing_else(sim: Simulator, sim_client: EnclaveClient):
    with anyio.fail_after(PATIENCE_SECONDS):
        sim.script(result="no answer")
        held = sim.script(result={"total": 1}, hold=True)
        async with sim_client.fan_out(["a", "b"], max_concurrency=2, type=Answer, fail_fast=True) as outcomes:
            for _ in range(2):
                with pytest.raises(ResultTypeError):
                    await anext(outcomes)
                held.release()
    assert torn_down(sim)


async def test_a_fan_out_that_is_left_at_once_has_begun_nothing(sim: Simulator, sim_client: EnclaveClient):
    with anyio.fail_after(PATIENCE_SECONDS):
        for _ in range(20):  # trio chooses at random which task goes on first
            async with sim_client.fan_out(["a"]):
                pass
    assert sim.phases == {}


async def test_after_the_first_error_fail_fast_ends_the_others_although_the_block_goes_on(
    sim: Simulator, sim_client: EnclaveClient, held
):
    held(1)
    sim.script(result="no answer")
    with anyio.fail_after(PATIENCE_SECONDS):
        async with sim_client.fan_out(["a", "b"], max_concurrency=2, type=Answer, fail_fast=True) as outcomes:
            with pytest.raises(ResultTypeError):
                await anext(outcomes)
            await sim.until(torn_down)


def good_and_bad(late: int) -> httpx.MockTransport:
    """Runs the code "good", and refuses all other code so many steps late."""

    async def handle(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json={"exitCode": 0, "phase": "succeeded"})
        if request.method == "DELETE":
            return httpx.Response(204)
        if json.loads(request.content)["code"] == "good":
            return httpx.Response(201, json={"id": "s-1", "phase": "succeeded"})
        for _ in range(late):
            await anyio.lowlevel.checkpoint()
        return httpx.Response(400, json={"message": "bad"})

    return httpx.MockTransport(handle)


async def test_an_outcome_that_comes_right_after_the_first_error_is_not_given_either():
    for late in range(60):  # so that the error meets each step of the other session's end
        async with EnclaveClient("http://127.0.0.1:1", transport=good_and_bad(late), retry=None) as client:
            async with client.fan_out(["good", "bad"], max_concurrency=2, fail_fast=True) as outcomes:
                with pytest.raises(BadRequestError) as first:
                    async for outcome in outcomes:
                        assert outcome.verdict == "succeeded"
                with pytest.raises(BadRequestError) as second:
                    await anext(outcomes)
                assert second.value is first.value


async def test_what_the_input_raises_comes_after_the_outcomes_before_it(sim: Simulator, sim_client: EnclaveClient):
    def broken() -> Iterator[str]:
        for number in range(2):
            sim.script(result=number)
            yield "x"
        raise LookupError("no more input")

    async def broken_async() -> AsyncIterator[str]:
        for request in broken():
            yield request

    for requests in (broken(), broken_async()):
        seen = []
        with anyio.fail_after(PATIENCE_SECONDS), pytest.raises(LookupError, match="no more input") as caught:
            async with sim_client.fan_out(requests, max_concurrency=4) as outcomes:
                async for outcome in outcomes:
                    seen.append(outcome.result.value)  # noqa: PERF401 - an error follows
        assert not isinstance(caught.value, BaseExceptionGroup)
        assert sorted(seen) == [0, 1]
    assert torn_down(sim)


class BrokenIterable:
    def __iter__(self) -> Iterator[str]:
        raise LookupError("cannot be iterated")


class BrokenAsyncIterable:
    def __aiter__(self) -> AsyncIterator[str]:
        raise LookupError("cannot be iterated")


@pytest.mark.parametrize("requests", [BrokenIterable(), BrokenAsyncIterable()])
async def test_an_input_that_cannot_even_be_started_is_a_plain_error(sim_client: EnclaveClient, requests):
    with anyio.fail_after(PATIENCE_SECONDS), pytest.raises(LookupError, match="cannot be iterated"):
        async with sim_client.fan_out(requests) as outcomes:
            async for _ in outcomes:
                pytest.fail("an outcome came")


async def test_an_item_that_is_no_request_is_an_outcome_with_its_error(sim: Simulator, sim_client: EnclaveClient):
    sim.script(result=1)
    outcomes = await sim_client.map([5, "x", None], max_concurrency=1)  # type: ignore[list-item]
    assert isinstance(outcomes[0].error, TypeError)
    assert isinstance(outcomes[2].error, TypeError)
    assert [outcome.verdict for outcome in outcomes] == ["client", "succeeded", "client"]
    assert "request" in str(outcomes[0].error)
    assert outcomes[1].result.value == 1


@pytest.mark.parametrize(
    ("arguments", "error", "names"),
    [
        ({"requests": "print(1)"}, TypeError, "requests"),
        ({"requests": CreateSessionRequest(code="x")}, TypeError, "requests"),
        ({"requests": 5}, TypeError, "requests"),
        ({"requests": [], "max_concurrency": 0}, ValueError, "max_concurrency"),
        ({"requests": [], "max_concurrency": True}, TypeError, "max_concurrency"),
        ({"requests": [], "max_concurrency": 1.5}, TypeError, "max_concurrency"),
        ({"requests": [], "max_concurrency": "4"}, TypeError, "max_concurrency"),
    ],
)
def test_an_argument_that_cannot_be_used_shows_at_the_call(arguments, error, names):
    with pytest.raises(error, match=names):
        EnclaveClient("http://127.0.0.1:1").fan_out(**arguments)


async def test_an_empty_input_is_no_outcomes(sim_client: EnclaveClient):
    assert await sim_client.map([]) == []
    assert await sim_client.map(iter(())) == []


async def test_iterating_outside_its_block_shows_the_right_form(sim_client: EnclaveClient):
    outcomes = sim_client.fan_out([])
    with pytest.raises(UsageError, match=r"async with enclave\.fan_out\(\.\.\.\) as outcomes"):
        aiter(outcomes)
    async with outcomes:
        assert [outcome async for outcome in outcomes] == []
        with pytest.raises(UsageError, match="entered once"):
            await outcomes.__aenter__()
    with pytest.raises(UsageError, match="closed"):
        await anext(outcomes)


async def test_a_list_comes_in_the_order_of_its_input_whatever_ends_first(
    sim: Simulator, sim_client: EnclaveClient, held
):
    scripts = held(4)
    outcomes: list[Outcome[Any]] = []

    async def collect() -> None:
        outcomes.extend(await sim_client.map(["a", "b", "c", "d"], max_concurrency=4))

    with anyio.fail_after(PATIENCE_SECONDS):
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(collect)
            await sim.until(lambda _: all(script.session_id for script in scripts))
            for script in reversed(scripts):
                script.release()
                await sim.until(lambda sim, script=script: sim.phases[script.session_id] == "torn_down")
    assert [(outcome.index, outcome.request) for outcome in outcomes] == list(enumerate("abcd"))


async def test_a_fan_out_adds_the_failure_of_its_input_to_the_blocks_own_exception(unused_port: int) -> None:
    async def requests() -> AsyncIterator[str]:
        try:
            while True:
                yield "code"
        finally:
            raise ValueError("the input cannot be closed")

    async with EnclaveClient(f"http://127.0.0.1:{unused_port}", retry=None) as client:
        with pytest.raises(LookupError) as raised:
            async with client.fan_out(requests(), max_concurrency=1) as outcomes:
                await anext(outcomes)
                raise LookupError("the block")
        assert any("the input cannot be closed" in note for note in raised.value.__notes__)

        with pytest.raises(ValueError, match="the input cannot be closed") as alone:
            async with client.fan_out(requests(), max_concurrency=1) as outcomes:
                await anext(outcomes)
        assert not isinstance(alone.value.__context__, BaseExceptionGroup)
