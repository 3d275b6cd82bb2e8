"""A recorded stream that is played as it is also gives the result, the phase and the reason that it tells of."""

from __future__ import annotations

from typing import Any

import anyio
import httpx
import pytest

from enclave import EnclaveClient, KillReason, SessionLimits, SessionPhase, SessionTornDown, StreamFrame, UnknownFrame
from enclave.simulator import Simulator
from tests.support import PATIENCE_SECONDS

RECORDED = {
    "a value": "print('out'); enclave.result({'answer': 42})",
    "null": "enclave.result(None)",
    "a failure": "import sys; print('why', file=sys.stderr); sys.exit(3)",
    "a kill": "while True: pass",
}


async def frames_of(enclave: EnclaveClient, session_id: str) -> list[StreamFrame]:
    async with enclave.stream(session_id) as frames:
        return [frame async for frame in frames]


def as_line(frame: StreamFrame) -> bytes:
    return frame.raw if isinstance(frame, UnknownFrame) else frame.to_json()


@pytest.mark.parametrize("code", RECORDED.values(), ids=RECORDED.keys())
@pytest.mark.anyio
async def test_a_recorded_run_ends_as_it_did(code):
    with anyio.fail_after(PATIENCE_SECONDS):
        async with Simulator().serve() as sim, EnclaveClient(sim.base_url, api_key=sim.api_key) as enclave:
            async with enclave.session(code, limits=SessionLimits(wall_clock_ms=800)) as session:
                first = await session.result()
                frames = await frames_of(enclave, session.id)
            sim.script([as_line(frame) for frame in frames], raw=True)
            async with enclave.session("never run") as session:
                again = await session.result()
                assert await frames_of(enclave, session.id) == frames
                assert (await session.refresh()).phase == first.phase
            for name in ("exit_code", "value", "stdout", "stderr", "phase", "kill_reason", "ended_as"):
                assert getattr(again, name) == getattr(first, name), name


@pytest.mark.anyio
async def test_a_recording_of_a_session_that_was_torn_down_has_no_result():
    with anyio.fail_after(PATIENCE_SECONDS):
        async with Simulator().serve() as sim, EnclaveClient(sim.base_url, api_key=sim.api_key) as enclave:
            session = await enclave.run("import time; time.sleep(60)")
            await session.teardown()
            frames = await frames_of(enclave, session.id)
            sim.script([as_line(frame) for frame in frames], raw=True)
            async with enclave.session("never run") as session:
                with pytest.raises(SessionTornDown):
                    await session.result()
                assert await frames_of(enclave, session.id) == frames


OF_OTHER_SERVERS = {
    "killed, and nobody says why": (
        [{"kind": "result", "result": {"exitCode": 137}}, {"kind": "phase", "phase": "killed"}],
        (137, SessionPhase.KILLED, None),
    ),
    "a reason that is not known here": (
        [{"kind": "result", "result": {}}, {"kind": "phase", "phase": "killed", "killReason": "disk_exceeded"}],
        (None, SessionPhase.KILLED, KillReason("disk_exceeded")),
    ),
    "fields that are not documented, and epoch times": (
        [
            {"kind": "result", "result": {"exitCode": 2, "cost": 1.5}, "ts": 1764000000000},
            {"kind": "phase", "phase": "failed", "ts": 1764000000000},
        ],
        (2, SessionPhase.FAILED, None),
    ),
    "torn down afterwards": (
        [
            {"kind": "phase", "phase": "failed"},
            {"kind": "result", "result": {"exitCode": 1}},
            {"kind": "phase", "phase": "torn_down"},
        ],
        (1, SessionPhase.FAILED, None),
    ),
    "no phase": ([{"kind": "result", "result": {"exitCode": 4}}], (4, SessionPhase.FAILED, None)),
    "nothing of its end": ([{"kind": "stdout", "data": "x"}], (0, SessionPhase.SUCCEEDED, None)),
}


@pytest.mark.parametrize(("frames", "expected"), OF_OTHER_SERVERS.values(), ids=OF_OTHER_SERVERS.keys())
@pytest.mark.anyio
async def test_what_the_frames_of_another_server_say_of_the_end_counts(frames, expected):
    with anyio.fail_after(PATIENCE_SECONDS):
        async with Simulator().serve() as sim, EnclaveClient(sim.base_url, api_key=sim.api_key) as enclave:
            sim.script([*frames, {"kind": "end"}], raw=True)
            async with enclave.session("never run") as session:
                result = await session.result()
            assert (result.exit_code, result.ended_as, result.kill_reason) == expected


async def ended(sim: Simulator, enclave: EnclaveClient) -> dict[str, Any]:
    """The session as the server has it once it has ended. Its stream is not looked at."""
    session = await enclave.run("never run")
    with anyio.fail_after(PATIENCE_SECONDS):
        await sim.until(lambda simulator: simulator.unreclaimed_sessions == 0)
        return await enclave.request("GET", f"/sessions/{session.id}")


@pytest.mark.anyio
async def test_a_value_comes_back_as_it_was_recorded():
    value = b'{"integer":123456789012345678901234567890,"float":1e-300}'
    async with Simulator().serve() as sim, httpx.AsyncClient(base_url=sim.base_url, timeout=PATIENCE_SECONDS) as http:
        sim.script([b'{"kind":"result","result":{"json":%s}}' % value, b'{"kind":"end"}'], raw=True)
        async with EnclaveClient(sim.base_url, api_key=sim.api_key) as enclave:
            session_id = (await ended(sim, enclave))["id"]
        answer = await http.get(f"/sessions/{session_id}/result", headers={"authorization": f"Bearer {sim.api_key}"})
    assert value in answer.content


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"exit_code": 5}, (5, "failed", None, {"recorded": True})),
        ({"exit_code": 0}, (0, "succeeded", None, {"recorded": True})),
        ({"kill_reason": "cpu_exceeded"}, (None, "killed", "cpu_exceeded", {"recorded": True})),
        ({"result": "mine"}, (None, "killed", "pids_exceeded", "mine")),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
@pytest.mark.anyio
async def test_what_the_call_says_wins_over_the_frames(options, expected):
    frames = [
        {"kind": "result", "result": {"exitCode": 1, "json": {"recorded": True}}},
        {"kind": "phase", "phase": "killed", "killReason": "pids_exceeded"},
    ]
    async with Simulator().serve() as sim, EnclaveClient(sim.base_url, api_key=sim.api_key) as enclave:
        sim.script(frames, **options)
        session = await ended(sim, enclave)
    result = session["result"]
    assert (result["exitCode"], session["phase"], session.get("killReason"), result["json"]) == expected
