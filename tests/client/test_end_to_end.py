"""The client against a control plane that really runs code, in the words of the README."""

from __future__ import annotations

import anyio
import msgspec
import pytest

from enclave import (
    AuditType,
    EgressPolicy,
    EnclaveClient,
    EndFrame,
    KillReason,
    NotFoundError,
    PermissionDeniedError,
    PhaseFrame,
    SessionLimits,
    SessionPhase,
    SessionTornDown,
    StderrFrame,
    StdoutFrame,
    WorkloadFailed,
    WorkloadKilled,
)
from enclave.simulator import Framing, Simulator
from tests.support import PATIENCE_SECONDS

CODE = """
import sys
print("hello é")
print("oops", file=sys.stderr)
enclave.result({"answer": sum(n * n for n in range(10))})
"""


class Answer(msgspec.Struct):
    answer: int


async def test_code_runs_its_frames_arrive_live_and_its_result_comes_typed(sim: Simulator, sim_client: EnclaveClient):
    with anyio.fail_after(PATIENCE_SECONDS):
        async with sim_client.session(CODE, egress=EgressPolicy.deny_all(), labels={"a": "b"}) as session:
            async with session.stream() as frames:
                seen = [frame async for frame in frames]
            result = await session.result(Answer)
            refreshed = await session.refresh()
            trail = [entry.type for entry in await session.audit()]
    assert result.raise_for_exit().value == Answer(285)
    assert "".join(frame.data for frame in seen if isinstance(frame, StdoutFrame)) == "hello é\n"
    assert "".join(frame.data for frame in seen if isinstance(frame, StderrFrame)) == "oops\n"
    assert [frame.phase for frame in seen if isinstance(frame, PhaseFrame)][-1] is SessionPhase.SUCCEEDED
    assert isinstance(seen[-1], EndFrame)
    assert (refreshed.language, refreshed.backend, refreshed.labels["a"]) == ("python", "simulator", "b")
    assert trail[:2] == [AuditType.SESSION_CREATED, AuditType.SANDBOX_STARTED]
    assert sim.phases == {session.id: "torn_down"}


async def test_a_workload_that_fails_and_one_that_is_killed_say_how(sim_client: EnclaveClient):
    with anyio.fail_after(PATIENCE_SECONDS):
        async with sim_client.session("raise SystemExit(3)") as session:
            with pytest.raises(WorkloadFailed, match="exit code 3"):
                (await session.result(Answer)).raise_for_exit()
        limits = SessionLimits(wall_clock_ms=300)
        async with sim_client.session("while True: pass", limits=limits) as session:
            with pytest.raises(WorkloadKilled, match="wall_clock_exceeded") as caught:
                (await session.result(Answer)).raise_for_exit()
    assert caught.value.kill_reason is KillReason.WALL_CLOCK_EXCEEDED


async def test_a_session_torn_down_by_another_ends_the_waiting_for_its_result(
    sim: Simulator, sim_client: EnclaveClient
):
    script = sim.script(hold=True)
    with anyio.fail_after(PATIENCE_SECONDS):
        handle = await sim_client.run("x")
        await sim.until(lambda _: script.session_id is not None)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(_torn_down, handle)
            await sim.until(lambda sim: sim.open_streams == 1)
            await sim_client.teardown(handle.id)
            await sim_client.teardown(handle.id)


async def _torn_down(handle) -> None:
    with pytest.raises(SessionTornDown):
        await handle.result()


async def test_another_org_finds_nothing_and_a_viewer_may_only_look(sim: Simulator, sim_client: EnclaveClient):
    sim.script(hold=True)
    handle = await sim_client.run("x")
    stranger = EnclaveClient(sim.base_url, api_key=sim.add_api_key(org_id=sim.org_ids[1]))
    viewer = EnclaveClient(sim.base_url, token=sim.issue_token(role="viewer"))
    async with stranger, viewer:
        for call in (stranger.get, stranger.audit, stranger.result, stranger.teardown):
            with pytest.raises(NotFoundError):
                await call(handle.id)
        assert (await viewer.get(handle.id)).id == handle.id
        with pytest.raises(PermissionDeniedError):
            await viewer.run("x")
        with pytest.raises(PermissionDeniedError):
            await viewer.teardown(handle.id)
    await handle.teardown()


FRAMINGS = [
    Framing(),
    Framing(ids=False),
    Framing(newline="\r\n", comments=True, event_names=True),
    Framing(newline="\r", bom=True, chunk_bytes=1, retry_ms=1),
    Framing(ids=False, kind_in_event_only=True, frames_per_write=1),
    Framing(data_lines=3, chunk_bytes=5),
]


@pytest.mark.parametrize("framing", FRAMINGS, ids=repr)
async def test_a_stream_under_every_fault_is_the_sessions_frames(
    sim: Simulator, sim_client: EnclaveClient, framing: Framing
):
    sim.framing = framing
    sim.script([StdoutFrame(f"{number} 😀\n") for number in range(8)], result=1)
    sim.faults.drop_stream(after_frames=2)
    sim.faults.drop_stream(after_frames=3, after_bytes=17)
    sim.faults.drop_stream(after_frames=1, after_bytes=30, reset=True)
    sim.faults.end_stream(after_frames=4)
    sim.faults.respond(503, path=r"/sessions/[^/]+/stream", retry_after=0)
    with anyio.fail_after(PATIENCE_SECONDS):
        async with sim_client.session("x") as session, session.stream() as frames:
            seen = [frame async for frame in frames]
            assert frames.resumes >= 2
    texts = [frame.data for frame in seen if isinstance(frame, StdoutFrame)]
    assert texts == [f"{number} 😀\n" for number in range(8)]
    assert isinstance(seen[-1], EndFrame)
    assert not sim.faults.armed


async def test_a_reader_that_comes_late_sees_what_one_that_was_there_saw(sim: Simulator, sim_client: EnclaveClient):
    sim.script([StdoutFrame("a"), StdoutFrame("b")], result=1)
    with anyio.fail_after(PATIENCE_SECONDS):
        handle = await sim_client.run("x")
        async with handle.stream() as frames:
            there = [frame async for frame in frames]
        async with sim_client.stream(handle.id) as frames:
            late = [frame async for batch in frames.batches() for frame in batch]
        await handle.teardown()
    assert late[: len(there) - 1] == there[:-1]
