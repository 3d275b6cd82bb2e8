"""Whatever is cancelled while a session is being created, none is left that the caller does not know of."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import pytest
from anyio.lowlevel import checkpoint

from enclave import EnclaveClient, Timeout
from enclave.simulator import Simulator
from tests.support import PATIENCE_SECONDS
from tests.support.messages import response
from tests.support.plane import ControlPlane, Gate
from tests.support.stepping import pending_tasks
from tests.support.ways import Moment, running_ways

pytestmark = pytest.mark.anyio


async def run(client: EnclaveClient, handed_out: set[str]) -> None:
    handed_out.add((await client.run("pass")).id)


async def session(client: EnclaveClient, handed_out: set[str]) -> None:
    async with client.session("pass"):
        await anyio.sleep_forever()


async def fan_out(client: EnclaveClient, handed_out: set[str]) -> None:
    async with client.fan_out(["pass"] * 3, max_concurrency=3) as outcomes:
        async for _ in outcomes:
            await anyio.sleep_forever()


async def mapped(client: EnclaveClient, handed_out: set[str]) -> None:
    await client.map(["pass"] * 3, max_concurrency=3)


SCENARIOS = [pytest.param(each, id=each.__name__) for each in (run, session, fan_out, mapped)]
Scenario = Callable[[EnclaveClient, set[str]], Awaitable[None]]


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("place", ["POST seen", "POST done", "POST half"])
async def test_no_way_of_cancelling_a_create_orphans_a_session(scenario: Scenario, place: str) -> None:
    before = pending_tasks()
    for way, cancelled in running_ways().items():
        with ControlPlane().in_thread() as plane, anyio.fail_after(PATIENCE_SECONDS):
            async with EnclaveClient(plane.base_url) as client, anyio.create_task_group() as task_group:
                moment = Moment(plane.hold(place))
                task_group.start_soon(moment.release_after)
                handed_out: set[str] = set()
                assert await cancelled(partial(scenario, client, handed_out), moment), way
                assert plane.created > 0, way
                assert (plane.sessions, handed_out) == ({}, set()), way
                assert (await client.health()).ok, way
        assert pending_tasks() <= before, way


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_a_create_cancelled_before_it_is_sent_orphans_nothing(scenario: Scenario) -> None:
    for way, cancelled in running_ways().items():
        for rounds in range(0, 12, 3):
            with ControlPlane().in_thread() as plane, anyio.fail_after(PATIENCE_SECONDS):
                async with EnclaveClient(plane.base_url) as client:
                    handed_out: set[str] = set()

                    async def operation(client: EnclaveClient = client, handed_out: set[str] = handed_out) -> None:
                        await scenario(client, handed_out)
                        await anyio.sleep_forever()

                    assert await cancelled(operation, partial(pause, rounds)), way
                    assert plane.sessions.keys() == handed_out, f"{way} after {rounds} rounds"


async def pause(rounds: int) -> None:
    for _ in range(rounds):
        await checkpoint()


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_the_simulator_is_left_without_a_session_too(scenario: Scenario) -> None:
    with anyio.fail_after(3 * PATIENCE_SECONDS):
        async with Simulator(namespaces=False).serve() as sim:
            for way, cancelled in running_ways().items():
                fault = sim.faults.delay(0.05, when="after", method="POST")
                for _ in range(3):
                    sim.script(hold=True)
                known = set(sim.phases)

                async def created(sim: Simulator = sim, known: set[str] = known) -> None:
                    await sim.until(lambda sim: set(sim.phases) > known)

                async with EnclaveClient(sim.base_url, api_key=sim.api_key) as client:
                    assert await cancelled(partial(scenario, client, set()), created), way
                assert fault.hits == 1, way
                assert set(sim.phases.values()) == {"torn_down"}, way
            await sim.until(lambda sim: sim.unreclaimed_sessions == 0)


async def test_a_create_that_is_never_answered_releases_its_caller_after_the_deadline(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for way, cancelled in running_ways().items():
        caplog.clear()
        with ControlPlane().in_thread() as plane, anyio.fail_after(PATIENCE_SECONDS):
            async with EnclaveClient(plane.base_url, timeout=Timeout(teardown=0.1)) as client:
                gate = plane.hold("POST seen")
                with caplog.at_level(logging.WARNING, logger="enclave"):
                    assert await cancelled(partial(session, client, set()), gate.wait), way
                assert (await client.health()).ok, way
        messages = [record.getMessage() for record in caplog.records if record.name == "enclave"]
        label = plane.requests[0].json["labels"]["enclave-sdk.create"]
        assert len(messages) == 1
        assert messages[0].startswith(f"creating a session labelled enclave-sdk.create={label} was cancelled"), way
        # It tells how long the work had, which a loaded machine may stretch, and not how long it might have had.
        told = re.search(r"did not end within (\d+\.\d) s", messages[0])
        assert told, way
        assert 0.09 < float(told[1]) < PATIENCE_SECONDS, way


async def test_an_undoing_that_is_never_answered_releases_its_caller_too(caplog: pytest.LogCaptureFixture) -> None:
    # A part of this time is for the answer to the create, which goes by threads.
    with ControlPlane().in_thread() as plane, anyio.fail_after(PATIENCE_SECONDS):
        async with EnclaveClient(plane.base_url, timeout=Timeout(teardown=3)) as client:
            gate = plane.hold("POST done")
            plane.hold("DELETE seen")
            async with anyio.create_task_group() as task_group:
                with caplog.at_level(logging.WARNING, logger="enclave"), anyio.CancelScope() as scope:
                    task_group.start_soon(cancel_and_release, scope, gate)
                    await client.run("pass")
            assert scope.cancelled_caught
    messages = [record.getMessage() for record in caplog.records if record.name == "enclave"]
    assert len(messages) == 1
    assert messages[0].endswith(" was cancelled, and undoing it failed: not done in time")


async def cancel_and_release(scope: anyio.CancelScope, gate: Gate) -> None:
    await gate.wait()
    scope.cancel()
    gate.opened.set()


async def test_a_create_that_is_refused_after_its_caller_has_left_is_not_tried_again_and_logs_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for way, cancelled in running_ways().items():
        for refusal in (response({"message": "busy"}, 429, retry_after="5"), response({"message": "bad"}, 400)):
            with ControlPlane().in_thread() as plane, anyio.fail_after(PATIENCE_SECONDS):
                plane.route("POST", "/sessions", refusal)
                async with EnclaveClient(plane.base_url) as client, anyio.create_task_group() as task_group:
                    moment = Moment(plane.hold("POST seen"))
                    task_group.start_soon(moment.release_after)
                    with caplog.at_level(logging.WARNING, logger="enclave"):
                        assert await cancelled(partial(session, client, set()), moment), way
                assert len(plane.requests) == 1, way
            assert [record.getMessage() for record in caplog.records if record.name == "enclave"] == [], way
