"""Leaving a `session` block: shielded, within a deadline, and never at the cost of the block's own exception."""

from __future__ import annotations

import re

import anyio
import pytest

from enclave import APITimeoutError, ConflictError, EnclaveClient, ServerError, Timeout
from tests.support import PATIENCE_SECONDS
from tests.support.messages import response
from tests.support.plane import ControlPlane, Gate
from tests.support.stepping import pending_tasks
from tests.support.ways import running_ways

pytestmark = pytest.mark.anyio

SHORT = Timeout(teardown=0.1)
# A loaded machine may stretch the time that passed.
TOO_LATE = r"DELETE /sessions/s-1: not done within 1?\d\.\d s"


class BodyError(Exception):
    pass


async def block(client: EnclaveClient) -> None:
    async with client.session("pass"):
        pass


async def failing_block(client: EnclaveClient) -> None:
    async with client.session("pass"):
        raise BodyError("the body's own")


async def test_a_failing_teardown_is_raised_when_the_body_was_well() -> None:
    with ControlPlane().in_thread() as plane, anyio.fail_after(PATIENCE_SECONDS):
        plane.route("DELETE", "/sessions/*", response({"message": "scripted"}, 500))
        async with EnclaveClient(plane.base_url) as client:
            with pytest.raises(ServerError, match="scripted"):
                await block(client)


async def test_the_bodys_exception_stays_primary_and_carries_the_failure_as_a_note() -> None:
    with ControlPlane().in_thread() as plane, anyio.fail_after(PATIENCE_SECONDS):
        plane.route("DELETE", "/sessions/*", response({"message": "scripted"}, 500))
        async with EnclaveClient(plane.base_url) as client:
            with pytest.raises(BodyError) as caught:
                await failing_block(client)
    assert caught.value.__notes__ == [
        "tearing down session s-1 failed as well: DELETE /sessions/s-1: 500 scripted",
    ]


async def test_a_session_that_is_gone_counts_as_torn_down() -> None:
    with ControlPlane().in_thread() as plane, anyio.fail_after(PATIENCE_SECONDS):
        plane.route("DELETE", "/sessions/*", response({"message": "scripted"}, 404))
        async with EnclaveClient(plane.base_url) as client:
            await block(client)
            with pytest.raises(BodyError) as caught:
                await failing_block(client)
    assert [request.method for request in plane.requests].count("DELETE") == 2
    assert not hasattr(caught.value, "__notes__")


async def test_a_conflict_is_told_where_the_session_cannot_be_looked_at() -> None:
    with ControlPlane().in_thread() as plane, anyio.fail_after(PATIENCE_SECONDS):
        plane.route("DELETE", "/sessions/*", response({"message": "busy"}, 409))
        plane.route("GET", "/sessions/s-1", response({"message": "broken"}, 500))
        async with EnclaveClient(plane.base_url) as client:
            with pytest.raises(ConflictError, match="busy"):
                await block(client)


async def test_a_teardown_that_hangs_releases_the_block_after_the_deadline() -> None:
    with ControlPlane().in_thread() as plane, anyio.fail_after(PATIENCE_SECONDS):
        plane.hold("DELETE seen")
        async with EnclaveClient(plane.base_url, timeout=SHORT) as client:
            with pytest.raises(APITimeoutError, match=TOO_LATE):
                await block(client)


async def test_a_teardown_that_hangs_is_noted_on_the_bodys_exception() -> None:
    with ControlPlane().in_thread() as plane, anyio.fail_after(PATIENCE_SECONDS):
        plane.hold("DELETE seen")
        async with EnclaveClient(plane.base_url, timeout=SHORT) as client:
            with pytest.raises(BodyError) as caught:
                await failing_block(client)
    (note,) = caught.value.__notes__
    assert re.fullmatch(f"tearing down session s-1 failed as well: {TOO_LATE}", note)


async def test_a_teardown_that_hangs_does_not_hold_up_a_cancellation_for_longer() -> None:
    for way, cancelled in running_ways().items():
        before = pending_tasks()
        with ControlPlane().in_thread() as plane, anyio.fail_after(PATIENCE_SECONDS):
            gate = plane.hold("DELETE seen")
            async with EnclaveClient(plane.base_url, timeout=SHORT) as client:
                entered = anyio.Event()

                async def operation(client: EnclaveClient = client, entered: anyio.Event = entered) -> None:
                    async with client.session("pass"):
                        entered.set()
                        await anyio.sleep_forever()

                assert await cancelled(operation, entered.wait), way
            await gate.wait()  # the client may have left before the server saw the request
        assert pending_tasks() <= before, way


@pytest.mark.parametrize("place", ["DELETE seen", "DELETE done"])
@pytest.mark.parametrize("scenario", [block, failing_block])
async def test_a_cancellation_while_tearing_down_waits_for_it_and_is_not_swallowed(
    scenario: type[block], place: str
) -> None:
    for way, cancelled in running_ways().items():
        before = pending_tasks()
        with ControlPlane().in_thread() as plane, anyio.fail_after(PATIENCE_SECONDS):
            async with EnclaveClient(plane.base_url) as client, anyio.create_task_group() as task_group:
                gate, come = plane.hold(place), anyio.Event()

                async def moment(gate: Gate = gate, come: anyio.Event = come) -> None:
                    await gate.wait()
                    come.set()

                async def release(gate: Gate = gate, come: anyio.Event = come) -> None:
                    await come.wait()
                    await anyio.wait_all_tasks_blocked()
                    gate.opened.set()

                task_group.start_soon(release)
                assert await cancelled(lambda client=client: scenario(client), moment), way
                assert plane.sessions == {}, way
        assert pending_tasks() <= before, way


async def test_a_failure_that_is_no_error_of_ours_does_not_replace_the_bodys_exception_either() -> None:
    calls = 0

    async def token() -> str:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise LookupError("no token any more")
        return "a-token"

    with ControlPlane().in_thread() as plane, anyio.fail_after(PATIENCE_SECONDS):
        async with EnclaveClient(plane.base_url, token=token) as client:
            with pytest.raises(BodyError) as caught:
                await failing_block(client)
    assert caught.value.__notes__ == ["tearing down session s-1 failed as well: no token any more"]


async def test_a_failing_teardown_of_a_cancelled_block_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    for way, cancelled in running_ways().items():
        caplog.clear()
        with ControlPlane().in_thread() as plane, anyio.fail_after(PATIENCE_SECONDS):
            plane.route("DELETE", "/sessions/*", response({"message": "scripted"}, 500))
            async with EnclaveClient(plane.base_url) as client:
                entered = anyio.Event()

                async def operation(client: EnclaveClient = client, entered: anyio.Event = entered) -> None:
                    async with client.session("pass"):
                        entered.set()
                        await anyio.sleep_forever()

                assert await cancelled(operation, entered.wait), way
        messages = [record.getMessage() for record in caplog.records if record.name == "enclave"]
        assert messages == ["tearing down session s-1 failed: DELETE /sessions/s-1: 500 scripted"], way


async def test_a_failing_teardown_that_is_itself_cancelled_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with ControlPlane().in_thread() as plane, anyio.fail_after(PATIENCE_SECONDS):
        plane.route("DELETE", "/sessions/*", response({"message": "scripted"}, 500))
        gate = plane.hold("DELETE seen")
        async with EnclaveClient(plane.base_url) as client, anyio.create_task_group() as task_group:
            with anyio.CancelScope() as scope:

                async def cancel() -> None:
                    await gate.wait()
                    scope.cancel()
                    gate.opened.set()

                task_group.start_soon(cancel)
                await block(client)
    assert scope.cancelled_caught
    messages = [record.getMessage() for record in caplog.records if record.name == "enclave"]
    assert messages == ["tearing down session s-1 failed, and was cancelled: DELETE /sessions/s-1: 500 scripted"]


async def test_an_exception_that_answers_a_cancellation_leaves_the_block_as_it_is() -> None:
    with ControlPlane().in_thread() as plane, anyio.fail_after(PATIENCE_SECONDS):
        async with EnclaveClient(plane.base_url) as client:
            # Not the other way round: the scope would take a cancellation in, and nobody would miss the exception.
            with pytest.raises(BodyError), anyio.CancelScope() as scope:
                async with client.session("pass"):
                    scope.cancel()
                    try:
                        await anyio.sleep_forever()
                    finally:
                        raise BodyError("cancelled")
        assert plane.sessions == {}
