"""Somebody cancels every task of the loop, the SDK's own included: no session stays, and nothing looks complete."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import anyio
import pytest

from enclave import APIConnectionError, EnclaveClient, WorkInterrupted
from tests.support.plane import ControlPlane

PATIENCE_SECONDS = 20.0


async def session(client: EnclaveClient) -> None:
    async with client.session("pass"):
        pass


async def mapped(client: EnclaveClient) -> None:
    await client.map(["pass"] * 2, max_concurrency=2)


Scenario = Callable[[EnclaveClient], Awaitable[None]]


@pytest.mark.parametrize("place", ["POST done", "POST half", "DELETE seen", "DELETE done"])
@pytest.mark.parametrize("scenario", [session, mapped])
def test_the_end_of_asyncio_run_leaves_no_session(scenario: Scenario, place: str) -> None:
    with ControlPlane().in_thread() as plane:
        gate = plane.hold(place)

        async def main() -> None:
            async def work() -> None:
                async with EnclaveClient(plane.base_url) as client:
                    await scenario(client)

            task = asyncio.create_task(work())
            await gate.wait()
            assert not task.done()

        asyncio.run(main())
        assert plane.created > 0
        assert plane.sessions == {}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("recover", [True, False])
async def test_a_create_whose_task_alone_is_cancelled_is_adopted_or_said_to_be_lost(recover: bool) -> None:
    with ControlPlane().in_thread() as plane, anyio.fail_after(PATIENCE_SECONDS):
        gate = plane.hold("POST done")
        async with EnclaveClient(plane.base_url, recover_creates=recover) as client:
            caller = asyncio.ensure_future(client.run("pass"))
            await gate.wait()
            cancel_tasks("enclave: creating a session")
            if recover:
                assert (await caller).id == "s-1"
            else:
                with pytest.raises(APIConnectionError, match="somebody else"):
                    await caller


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_fan_out_whose_feeder_is_cancelled_does_not_look_complete() -> None:
    with ControlPlane().in_thread() as plane, anyio.fail_after(PATIENCE_SECONDS):
        gate = plane.hold("POST seen")
        async with EnclaveClient(plane.base_url) as client:
            caller = asyncio.ensure_future(client.map(["pass"] * 3, max_concurrency=1))
            await gate.wait()
            cancel_tasks("enclave: a fan-out")
            gate.opened.set()
            with pytest.raises(WorkInterrupted):
                await caller
        assert plane.sessions == {}


def cancel_tasks(prefix: str) -> None:
    found = [task for task in asyncio.all_tasks() if task.get_name().startswith(prefix)]
    assert found
    for task in found:
        task.cancel()
