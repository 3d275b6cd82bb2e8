"""A client that is closed leaves no session behind, whatever its tasks are at."""

from __future__ import annotations

import logging

import anyio
import pytest
from anyio.lowlevel import checkpoint

from enclave import EnclaveClient, SessionHandle, Timeout, UsageError
from tests.support import NO_WAITS, PATIENCE_SECONDS
from tests.support.messages import response
from tests.support.plane import ControlPlane, Request, silence


@pytest.fixture
def plane() -> ControlPlane:
    return ControlPlane()


async def hold(client: EnclaveClient, held: list[SessionHandle]) -> None:
    async with client.session("x") as session:
        held.append(session)
        await anyio.sleep_forever()


async def test_the_sessions_of_tasks_that_were_just_cancelled_are_torn_down(plane: ControlPlane) -> None:
    async with plane.serve():
        held: list[SessionHandle] = []
        with anyio.fail_after(PATIENCE_SECONDS):
            async with anyio.create_task_group() as tasks:
                async with EnclaveClient(plane.base_url, retry=None) as client:
                    for _ in range(5):
                        tasks.start_soon(hold, client, held)
                    while len(held) < 5:
                        await checkpoint()
                    tasks.cancel_scope.cancel()
        assert plane.created == 5
        assert plane.sessions == {}


async def test_blocks_whose_owners_go_on_lose_their_session_and_are_left_in_peace(plane: ControlPlane) -> None:
    async with plane.serve():
        client = EnclaveClient(plane.base_url, retry=None)
        with anyio.fail_after(PATIENCE_SECONDS):
            async with client.session("x") as session, client.session("y"):
                await client.aclose()
                assert plane.sessions == {}
                with pytest.raises(UsageError, match="closed"):
                    await session.refresh()
        assert sorted(plane.deleted) == ["s-1", "s-2"]


@pytest.mark.parametrize("place", ["POST seen", "POST done", "POST half"])
async def test_a_create_that_is_under_way_comes_to_its_end_first(plane: ControlPlane, place: str) -> None:
    async with plane.serve():
        gate = plane.hold(place)
        client = EnclaveClient(plane.base_url, retry=None)
        held: list[SessionHandle] = []
        with anyio.fail_after(PATIENCE_SECONDS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(hold, client, held)
                await gate.wait()
                async with anyio.create_task_group() as closing:
                    closing.start_soon(client.aclose)
                    await anyio.wait_all_tasks_blocked()
                    with pytest.raises(UsageError, match="closed"):  # no new one is begun
                        await client.run("z")
                    gate.opened.set()
                assert plane.sessions == {}
                tasks.cancel_scope.cancel()
        assert plane.created == 1
        assert [session.id for session in held] == ["s-1"]


async def test_a_run_that_is_under_way_gets_its_session(plane: ControlPlane) -> None:
    async with plane.serve():
        gate = plane.hold("POST seen")
        client = EnclaveClient(plane.base_url, retry=None)
        ids: list[str] = []

        async def run() -> None:
            ids.append((await client.run("x")).id)

        with anyio.fail_after(PATIENCE_SECONDS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run)
                await gate.wait()
                tasks.start_soon(client.aclose)
                await anyio.wait_all_tasks_blocked()
                gate.opened.set()
        assert ids == ["s-1"]
        assert set(plane.sessions) == {"s-1"}  # such a session outlives the client


async def test_a_teardown_that_fails_is_logged_and_told_to_the_owner_of_the_block(
    plane: ControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    async with plane.serve():
        plane.route("DELETE", "/sessions/*", response({"message": "not now"}, 500))
        client = EnclaveClient(plane.base_url, retry=NO_WAITS)
        with anyio.fail_after(PATIENCE_SECONDS), caplog.at_level(logging.WARNING, "enclave"):
            with pytest.raises(UsageError, match="closed"):
                async with client.session("x"):
                    await client.aclose()
    assert [record.message for record in caplog.records if "while its client was closed" in record.message] == [
        "tearing down session s-1 while its client was closed failed: DELETE /sessions/s-1: 500 not now"
    ]


async def test_a_server_that_is_silent_does_not_hold_up_the_close(plane: ControlPlane) -> None:
    async with plane.serve():
        plane.route("DELETE", "/sessions/*", silence)
        client = EnclaveClient(plane.base_url, retry=None, timeout=Timeout(teardown=0.2))
        with anyio.fail_after(PATIENCE_SECONDS), pytest.raises(UsageError, match="closed"):
            async with client.session("x"):
                await client.aclose()


async def test_a_close_that_is_cancelled_tears_down_all_the_same_and_raises_the_cancellation(
    plane: ControlPlane,
) -> None:
    async with plane.serve():
        client = EnclaveClient(plane.base_url, retry=None)
        deleting = anyio.Event()

        async def delete(request: Request) -> None:
            deleting.set()
            scope.cancel()
            await request.send(plane.perform(request))

        plane.route("DELETE", "/sessions/*", delete)
        scope = anyio.CancelScope()
        with anyio.fail_after(PATIENCE_SECONDS):
            async with client.session("x"):
                with scope:
                    await client.aclose()
                    await checkpoint()
                assert scope.cancelled_caught
        assert deleting.is_set()
        assert plane.sessions == {}


async def test_a_fan_out_that_its_client_leaves_behind_makes_no_more_sessions(plane: ControlPlane) -> None:
    async with plane.serve():
        plane.route("GET", "/sessions/*/stream", silence)
        client = EnclaveClient(plane.base_url, retry=None)
        with anyio.fail_after(PATIENCE_SECONDS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.map, ["x"] * 50)
                while len(plane.sessions) < 5:
                    await checkpoint()
                await client.aclose()
                assert plane.sessions == {}
        assert plane.sessions == {}
        assert sorted(plane.deleted) == sorted(f"s-{number}" for number in range(1, plane.created + 1))
