"""Somebody cancels every task of the loop, the SDK's own included: no session stays, and nothing looks complete."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable

import anyio
import pytest

from enclave import APIConnectionError, EnclaveClient, Timeout, WorkInterrupted
from tests.support import PATIENCE_SECONDS
from tests.support.messages import session as session_of
from tests.support.plane import ControlPlane, closing
from tests.support.tls import trusting
from tests.support.ways import running_ways
from tests.support.wire import Peer, Server, in_thread, serve

PATIENT = Timeout(1000, teardown=1000, recover_create=1000)
"""Whoever waits for one of these waits for longer than the test."""


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
async def test_looking_for_a_lost_session_that_is_cut_short_goes_on_for_the_same_reason() -> None:
    with ControlPlane().in_thread() as plane, anyio.fail_after(PATIENCE_SECONDS):
        plane.route("POST", "/sessions", closing())
        async with EnclaveClient(plane.base_url, timeout=Timeout(recover_create=2)) as client:
            gate = plane.hold("GET seen")
            caller = asyncio.ensure_future(client.run("pass"))
            await gate.wait()
            cancel_tasks("enclave: creating a session")
            gate.opened.set()
            with pytest.raises(APIConnectionError, match="without a response") as caught:
                await caller
            assert caught.value.create_label is not None


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


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_fan_out_one_of_whose_tasks_never_begins_does_not_look_complete() -> None:
    async def requests() -> AsyncIterator[str]:
        yield "pass"
        # The feeder goes on here without a turn for the task that it has just made, which so never has its first step.
        cancel_tasks("enclave: one of a fan-out")

    with ControlPlane().in_thread() as plane, anyio.fail_after(PATIENCE_SECONDS):
        async with EnclaveClient(plane.base_url) as client:
            with pytest.raises(WorkInterrupted):
                await client.map(requests())
        assert plane.created == 0


async def enter_stream(client: EnclaveClient) -> None:
    async with client.stream("s-1"):
        pytest.fail("opened")


async def enter_fan_out(client: EnclaveClient) -> None:
    async with client.fan_out(["pass"]):
        pytest.fail("opened")


async def cancel_before_the_first_step(prefix: str) -> None:
    """Cancel such a task in the turn after its creation. Whoever begins it must have begun later than this."""
    while True:
        found = [task for task in asyncio.all_tasks() if task.get_name().startswith(prefix)]
        for task in found:
            task.cancel()
        if found:
            return
        await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(
    ("enter", "prefix"), [(enter_stream, "enclave: stream of"), (enter_fan_out, "enclave: a fan-out")]
)
async def test_a_block_whose_task_never_begins_is_not_entered(
    enter: Callable[[EnclaveClient], Awaitable[None]], prefix: str
) -> None:
    with ControlPlane().in_thread() as plane, anyio.fail_after(PATIENCE_SECONDS):
        async with EnclaveClient(plane.base_url) as client:
            canceller = asyncio.ensure_future(cancel_before_the_first_step(prefix))
            with pytest.raises(WorkInterrupted):
                await asyncio.ensure_future(enter(client))
            await canceller
        assert plane.requests == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_create_whose_task_never_begins_is_begun_once_more() -> None:
    with ControlPlane().in_thread() as plane, anyio.fail_after(PATIENCE_SECONDS):
        async with EnclaveClient(plane.base_url) as client:
            canceller = asyncio.ensure_future(cancel_before_the_first_step("enclave: creating a session"))
            session = await asyncio.ensure_future(client.run("pass"))
            await canceller
        assert list(plane.sessions) == [session.id]


@pytest.mark.parametrize("call", ["map", "sweep"])
def test_tasks_that_are_cancelled_before_their_first_step_leave_no_warning(call: str) -> None:
    with ControlPlane().in_thread() as plane:

        async def work() -> None:
            async with EnclaveClient(plane.base_url, labels={"a": "b"}) as client:
                if call == "map":
                    await client.map(["pass"] * 3, max_concurrency=3)
                else:
                    await client.run("pass")
                    await client.sweep(labels={"a": "b"})

        async def main() -> None:
            task = asyncio.create_task(work())
            # Until the tasks of the call exist, and before any of them has had a step.
            while not any(other.get_name() == STARTED_BY[call] for other in asyncio.all_tasks()):
                assert not task.done(), "its tasks have other names"
                await anyio.lowlevel.checkpoint()
            for other in asyncio.all_tasks() - {asyncio.current_task()}:
                other.cancel()

        asyncio.run(main())
        gc.collect()  # a coroutine that was never awaited warns here, and warnings are errors
        assert call == "sweep" or plane.sessions == {}


STARTED_BY = {"map": "enclave: one of a fan-out", "sweep": "enclave: sweep"}


async def never_answers(peer: Peer, server: Server) -> None:
    await peer.closed_by_client()


def test_the_end_of_asyncio_run_does_not_wait_for_a_create_that_was_not_sent() -> None:
    with in_thread(serve(never_answers)) as server:

        async def main() -> None:
            async def work() -> None:
                url = f"https://127.0.0.1:{server.port}"  # the handshake never ends, so nothing is ever sent
                async with EnclaveClient(url, timeout=PATIENT, ssl_context=trusting()) as client:
                    await client.run("pass")

            task = asyncio.create_task(work())
            while not server.connections:
                await anyio.lowlevel.checkpoint()
            assert not task.done()

        asyncio.run(asyncio.wait_for(main(), PATIENCE_SECONDS))


async def test_a_caller_who_leaves_before_the_create_is_sent_does_not_wait() -> None:
    with in_thread(serve(never_answers)) as server:
        url = f"https://127.0.0.1:{server.port}"
        for way, cancelled in running_ways().items():
            before = server.connections

            async def connecting(before: int = before) -> None:
                while server.connections == before:
                    await anyio.lowlevel.checkpoint()

            with anyio.fail_after(PATIENCE_SECONDS):
                async with EnclaveClient(url, timeout=PATIENT, ssl_context=trusting()) as client:
                    assert await cancelled(lambda client=client: client.run("pass"), connecting), way


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_create_whose_task_alone_is_cancelled_before_it_is_sent_is_not_looked_for() -> None:
    with in_thread(serve(never_answers)) as server, anyio.fail_after(PATIENCE_SECONDS):
        url = f"https://127.0.0.1:{server.port}"
        async with EnclaveClient(url, timeout=PATIENT, ssl_context=trusting()) as client:
            caller = asyncio.ensure_future(client.run("pass"))
            while not server.connections:
                await anyio.lowlevel.checkpoint()
            cancel_tasks("enclave: creating a session")
            with pytest.raises(APIConnectionError, match="before it was sent") as caught:
                await caller
            assert caught.value.create_label is None


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_sweep_whose_tasks_are_cancelled_says_which_sessions_it_did_not_tear_down() -> None:
    with ControlPlane().in_thread() as plane, anyio.fail_after(PATIENCE_SECONDS):
        plane.sessions = {f"s-{n}": session_of(f"s-{n}", "running", labels={"run": "7"}) for n in range(3)}
        gate = plane.hold("DELETE seen")
        async with EnclaveClient(plane.base_url) as client:
            caller = asyncio.ensure_future(client.sweep(labels={"run": "7"}))
            await gate.wait()
            cancel_tasks("enclave: sweep")
            gate.opened.set()
            done = await caller
    # Only the first DELETE is held, so others may be done by the time of the cancellation.
    assert sorted([*done.swept, *done.failed]) == ["s-0", "s-1", "s-2"]
    assert done.failed
    assert all(isinstance(error, WorkInterrupted) for error in done.failed.values())


def cancel_tasks(prefix: str) -> None:
    found = [task for task in asyncio.all_tasks() if task.get_name().startswith(prefix)]
    assert found
    for task in found:
        task.cancel()
