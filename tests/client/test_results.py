"""`result()`: wait for the end of a session in whatever state it is found, and give its result."""

from __future__ import annotations

import anyio
import pytest

from enclave import (
    ConflictError,
    EnclaveClient,
    KillReason,
    MalformedResponseError,
    NotFoundError,
    ServerError,
    SessionHandle,
    SessionPhase,
    SessionResult,
    SessionTornDown,
    StreamInterrupted,
    WorkloadKilled,
)
from tests.support import PATIENCE_SECONDS
from tests.support.messages import END, SSE, event, response, session
from tests.support.plane import ControlPlane, Request

RESULT = {"exitCode": 0, "json": {"answer": 285}}
STREAM, FETCH, SESSION = "/sessions/s-1/stream", "/sessions/s-1/result", "/sessions/s-1"


def phase(name: str, **fields: str) -> bytes:
    return event({"kind": "phase", "phase": name, **fields})


def targets(server: ControlPlane) -> list[str]:
    return [request.target for request in server.requests]


@pytest.mark.parametrize("last", ["succeeded", "failed", "killed"])
async def test_a_live_session_is_waited_for(server: ControlPlane, handle: SessionHandle, last):
    going_on = anyio.Event()

    async def live(request: Request) -> None:
        await request.send(SSE, phase("pending"), phase("running"), event("hello\n"))
        await going_on.wait()
        await request.send(phase(last))
        await request.gone()  # the stream is left at the terminal phase, not at its end

    server.answers(live, response({"exitCode": 0 if last == "succeeded" else 1}))
    with anyio.fail_after(PATIENCE_SECONDS):
        async with anyio.create_task_group() as task_group:
            results: list[SessionResult] = []

            async def wait() -> None:
                results.append(await handle.result())

            task_group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            assert results == []
            going_on.set()
    assert results == [SessionResult(exit_code=0 if last == "succeeded" else 1, phase=SessionPhase(last))]
    # Why it was killed, no frame has said.
    assert targets(server) == [STREAM, FETCH, *([SESSION] if last == "killed" else [])]


async def test_a_session_that_ended_before_resolves_as_well(server: ControlPlane, handle: SessionHandle):
    server.streams(phase("running"), phase("succeeded"), END)
    server.answers(response(RESULT))
    assert (await handle.result(dict[str, int])).value == {"answer": 285}


async def test_a_stream_that_ends_without_a_terminal_phase_resolves_as_well(
    server: ControlPlane, handle: SessionHandle
):
    server.streams(END)
    server.answers(response(RESULT))
    assert (await handle.result()).value == {"answer": 285}


async def test_a_torn_down_session_whose_result_was_kept_gives_it(server: ControlPlane, handle: SessionHandle):
    server.streams(phase("torn_down"), END)
    server.answers(response(RESULT))
    assert (await handle.result()).value == {"answer": 285}


@pytest.mark.parametrize("status", [404, 409, 410, 500])
async def test_a_torn_down_session_may_tell_its_result_only_in_itself(
    server: ControlPlane, handle: SessionHandle, status
):
    server.streams(phase("torn_down"), END)
    server.answers(response({}, status), response(session(phase="torn_down", result=RESULT)))
    assert (await handle.result(dict[str, int])).value == {"answer": 285}


@pytest.mark.parametrize("status", [404, 409])
async def test_a_session_torn_down_before_it_had_a_result_says_so(server: ControlPlane, handle: SessionHandle, status):
    server.streams(phase("running"), phase("torn_down"), END)
    server.answers(response({}, status), response(session(phase="torn_down")))
    with pytest.raises(SessionTornDown, match="session s-1 was torn down before it had a result"):
        await handle.result()


async def test_why_a_session_was_killed_comes_from_its_phase_frame(server: ControlPlane, handle: SessionHandle):
    server.streams(phase("killed", killReason="memory_exceeded"), END)
    server.answers(response({"exitCode": None}))
    result = await handle.result(int)
    assert (result.exit_code, result.kill_reason) == (None, KillReason.MEMORY_EXCEEDED)
    with pytest.raises(WorkloadKilled, match="memory_exceeded"):
        result.raise_for_exit()


async def test_why_a_session_was_killed_comes_from_the_session_where_no_frame_says_it(
    server: ControlPlane, handle: SessionHandle
):
    server.streams(phase("torn_down"), END)
    server.answers(response({"exitCode": None}), response(session(phase="torn_down", killReason="pids_exceeded")))
    assert (await handle.result()).kill_reason is KillReason.PIDS_EXCEEDED


async def test_a_malformed_frame_on_the_way_costs_nothing(server: ControlPlane, handle: SessionHandle, caplog):
    server.streams(b"data: {\n\n", event("x"), b"data: []\n\n", phase("succeeded"), END)
    server.answers(response(RESULT))
    assert (await handle.result()).value == {"answer": 285}
    warnings = [record.getMessage() for record in caplog.records if record.name == "enclave"]
    assert len(warnings) == 2
    assert "frame 0 (kind '') cannot be read" in warnings[0]


async def test_dropped_connections_are_resumed_on_the_way(server: ControlPlane, handle: SessionHandle):
    server.streams(event("x", "1"))
    server.answers(response({}, 503))
    server.streams(event({"kind": "phase", "phase": "succeeded"}, "2"))
    server.answers(response({}, 502), response(RESULT))
    assert (await handle.result()).value == {"answer": 285}
    assert server.requests[2].headers["last-event-id"] == "1"


async def test_a_stream_broken_for_good_does_not_matter_once_the_session_has_ended(
    server: ControlPlane, handle: SessionHandle
):
    server.streams(event("x"))
    server.streams(event("y") + END)  # history changed
    server.answers(response(session(phase="failed")), response({"exitCode": 2}))
    assert (await handle.result()).exit_code == 2


@pytest.mark.parametrize(
    "answer", [response(b"<html>", content_type="text/html"), response({}, 500), response({}, 410)]
)
async def test_a_session_without_a_stream_resolves_once_it_has_ended(
    server: ControlPlane, handle: SessionHandle, answer
):
    server.answers(answer, response(session(phase="succeeded")), response(RESULT))
    assert (await handle.result()).value == {"answer": 285}


async def test_a_stream_broken_for_good_is_raised_while_the_session_goes_on(
    server: ControlPlane, handle: SessionHandle
):
    server.streams(event("x"))
    server.streams(event("y") + END)
    server.answers(response(session(phase="running")))
    with pytest.raises(StreamInterrupted, match="differs"):
        await handle.result()


async def test_the_streams_own_error_is_raised_where_the_session_cannot_be_asked(
    server: ControlPlane, handle: SessionHandle
):
    server.answers(response({"message": "stream says no"}, 500), response({"message": "session says no"}, 500))
    with pytest.raises(ServerError, match="stream says no"):
        await handle.result()


async def test_a_session_that_does_not_exist_is_not_found(server: ControlPlane, client: EnclaveClient):
    server.answers(*[response({"message": "no s-1"}, 404)] * 3)
    with pytest.raises(NotFoundError, match="no s-1"):
        await client.result("s-1")


async def test_a_result_that_is_not_ready_right_after_the_phase_is_asked_for_again(
    server: ControlPlane, handle: SessionHandle
):
    server.streams(phase("succeeded"), END)
    for _ in range(3):
        server.answers(response({}, 409), response(session(phase="succeeded")))
    server.answers(response(RESULT))
    assert (await handle.result()).value == {"answer": 285}


async def test_a_result_that_never_gets_ready_is_a_conflict_in_the_end(server: ControlPlane, handle: SessionHandle):
    server.streams(phase("succeeded"), END)
    for _ in range(5):
        server.answers(response({"message": "not ready"}, 409), response(session(phase="succeeded")))
    with pytest.raises(ConflictError, match="not ready"):
        await handle.result()


async def test_a_result_that_cannot_be_read_is_an_error_where_the_session_has_none(
    server: ControlPlane, handle: SessionHandle
):
    server.streams(phase("succeeded"), END)
    server.answers(response([]), response(session(phase="succeeded")))
    with pytest.raises(MalformedResponseError):
        await handle.result()


async def test_a_session_block_gives_its_result_and_tears_down(server: ControlPlane, client: EnclaveClient):
    server.answers(response(session("s-9"), 201))
    server.streams(phase("succeeded"), END)
    server.answers(response(RESULT), response(status=204))
    async with client.session("x", labels={"a": "b"}) as handle:
        assert "s-9" in repr(handle)
        assert (await handle.result()).value == {"answer": 285}
    assert [(request.method, request.target) for request in server.requests] == [
        ("POST", "/sessions"),
        ("GET", "/sessions/s-9/stream"),
        ("GET", "/sessions/s-9/result"),
        ("DELETE", "/sessions/s-9"),
    ]


async def test_a_session_that_is_gone_already_counts_as_torn_down(server: ControlPlane, client: EnclaveClient):
    server.answers(response(session(), 201), response({}, 404), response({}, 404))
    async with client.session("x"):
        pass


async def test_a_teardown_that_fails_is_raised(server: ControlPlane, client_once: EnclaveClient):
    server.answers(response(session(), 201), response({"message": "stuck"}, 500))
    with pytest.raises(ServerError, match="stuck"):
        async with client_once.session("x"):
            pass


async def test_a_teardown_that_fails_is_noted_on_the_blocks_own_exception(
    server: ControlPlane, client_once: EnclaveClient
):
    server.answers(response(session(), 201), response({"message": "stuck"}, 500))
    raised = LookupError("mine")
    with pytest.raises(LookupError) as caught:
        async with client_once.session("x"):
            raise raised
    assert caught.value is raised
    (note,) = raised.__notes__
    assert "tearing down session s-1 failed as well" in note
    assert "stuck" in note


async def test_a_handle_refreshes_what_it_knows_of_its_session(server: ControlPlane, client: EnclaveClient):
    handle = client.attach("s-1")
    assert (handle.last_seen, handle.phase) == (None, None)
    server.answers(response(session(phase="pending")), response(session(phase="running")))
    assert (await handle.refresh()).phase == "pending"
    assert (await handle.refresh()).phase == "running"
    assert handle.last_seen.phase == handle.phase == "running"
    assert "running" in repr(handle)
