"""What an outcome tells: its verdict, its repr, and a session that could not be torn down."""

from __future__ import annotations

import re

import anyio
import pytest

from enclave import Completed, EnclaveClient, Errored, ResultTypeError, ServerError, Verdict
from enclave.simulator import Simulator
from tests.support import PATIENCE_SECONDS
from tests.support.messages import response
from tests.support.plane import ControlPlane, Request, silence

STUCK = response({"message": "stuck"}, 500)


def without_seconds(text: str) -> str:
    return re.sub(r"\d+\.\d{3} s", "N s", text)


async def test_the_repr_of_an_outcome_is_one_short_line_that_tells(sim: Simulator, sim_client: EnclaveClient):
    for result in (7, "x" * 55, "x" * 1000, "\x1b]\u2028\n" * 1000):
        sim.script(result=result)
    with anyio.fail_after(PATIENCE_SECONDS):
        outcomes = await sim_client.map(["code" * 1000] * 4, max_concurrency=1)
    shown = [without_seconds(repr(outcome)) for outcome in outcomes]
    start = "<Completed #{} succeeded session={} N s exit_code=0 value="
    starts = [start.format(outcome.index, outcome.session_id) for outcome in outcomes]
    assert shown[0] == f"{starts[0]}7>"
    assert shown[1] == f"{starts[1]}'{'x' * 55}'>"
    assert shown[2] == f"{starts[2]}'{'x' * 59}…>"
    assert shown[3].startswith(starts[3])
    assert shown[3].isprintable()
    assert len(shown[3]) < 300


async def test_the_repr_of_an_error_names_it_and_the_session_if_there_is_one(sim: Simulator, sim_client: EnclaveClient):
    sim.script(result="no number")
    with anyio.fail_after(PATIENCE_SECONDS):
        mistyped, refused = await sim_client.map(["x", 5], type=int, max_concurrency=1)  # type: ignore[list-item]
    assert isinstance(mistyped, Errored)
    assert without_seconds(repr(mistyped)).startswith(
        f"<Errored #0 mistyped session={mistyped.session_id} N s error=ResultTypeError("
    )
    assert len(repr(mistyped)) < 200
    assert without_seconds(repr(refused)).startswith("<Errored #1 client no session N s error=TypeError(")


async def test_a_session_that_cannot_be_torn_down_stands_in_an_outcome_that_has_its_result():
    async with ControlPlane().serve() as plane, EnclaveClient(plane.base_url, retry=None) as client:
        plane.route("DELETE", "/sessions/*", STUCK)
        with anyio.fail_after(PATIENCE_SECONDS):
            outcomes = await client.map(["x", "y"])
    for outcome in outcomes:
        assert isinstance(outcome, Completed)
        assert (outcome.result.value, outcome.verdict) == (7, Verdict.SUCCEEDED)
        assert isinstance(outcome.teardown_error, ServerError)
        assert "teardown_error=ServerError(" in repr(outcome)


async def test_failing_fast_minds_a_session_that_cannot_be_torn_down():
    async with ControlPlane().serve() as plane, EnclaveClient(plane.base_url, retry=None) as client:
        plane.route("DELETE", "/sessions/s-2", STUCK)
        with anyio.fail_after(PATIENCE_SECONDS):
            async with client.fan_out(["x"] * 3, max_concurrency=1, fail_fast=True) as outcomes:
                assert (await anext(outcomes)).session_id == "s-1"
                for _ in range(2):
                    with pytest.raises(ServerError, match="stuck"):
                        await anext(outcomes)
    assert plane.deleted[0] == "s-1"
    assert "s-2" in plane.sessions


async def test_after_the_first_error_fail_fast_raises_it_again_before_the_others_are_torn_down():
    may_end = anyio.Event()
    raised = []

    async def held(request: Request) -> None:
        await may_end.wait()
        await request.send(plane.perform(request))

    async with ControlPlane().serve() as plane, EnclaveClient(plane.base_url, retry=None) as client:
        plane.route("GET", "/sessions/s-1/result", response({"message": "unwell"}, 500))
        plane.route("GET", "/sessions/s-2/stream", silence)
        plane.route("DELETE", "/sessions/s-2", held)
        async with client.fan_out(["x"] * 2, fail_fast=True) as outcomes:
            try:
                with anyio.fail_after(PATIENCE_SECONDS):
                    for _ in range(2):
                        with pytest.raises(ServerError, match="unwell") as caught:
                            await anext(outcomes)
                        raised.append(caught.value)
            finally:
                may_end.set()
    assert raised[0] is raised[1]


async def test_after_the_first_error_fail_fast_does_not_give_what_had_ended_before(
    sim: Simulator, sim_client: EnclaveClient
):
    for _ in range(2):
        sim.script(result="no number")
    with anyio.fail_after(PATIENCE_SECONDS):
        async with sim_client.fan_out(["x", "y"], type=int, max_concurrency=2, fail_fast=True) as outcomes:
            await sim.until(lambda sim: list(sim.phases.values()) == ["torn_down"] * 2)
            await anyio.wait_all_tasks_blocked()
            raised = []
            for _ in range(2):
                with pytest.raises(ResultTypeError) as caught:
                    await anext(outcomes)
                raised.append(caught.value)
    assert raised[0] is raised[1]
