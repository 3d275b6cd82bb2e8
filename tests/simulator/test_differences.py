"""A simulator that differs from the documented server: each difference shows on the wire, and nothing else changes."""

from __future__ import annotations

from typing import get_args

import anyio
import httpx
import msgspec
import pytest

from enclave.simulator import Bounds, Difference, Framing
from enclave.types import StderrFrame, StdoutFrame
from tests.support import PATIENCE_SECONDS

pytestmark = pytest.mark.anyio

HEARTBEAT = b": heartbeat"
FRAMES = [StdoutFrame("one\n"), StderrFrame("two\n")]


async def finished(api, **script):
    """A session that printed FRAMES and has ended."""
    api.sim.script(FRAMES, **{"result": {"n": 1}} | script)
    with anyio.fail_after(PATIENCE_SECONDS):
        session = await api.create(labels={"team": "a"})
        await api.sim.until(lambda sim: sim.unreclaimed_sessions == 0)
    return session


async def answers(api, session_id):
    """What the server says of a session: itself, as listed, its result and its trail."""
    get = api.http.get
    path = f"/sessions/{session_id}"
    return [(await get(url)).json() for url in (path, "/sessions", f"{path}/result", f"{path}/audit")]


async def read_open_stream(api, session_id):
    """The events of a stream that goes on, read until three heartbeats have come."""
    body = b""
    async with api.open_stream(session_id) as stream:
        while body.count(HEARTBEAT) < 3:
            body += await stream.read()
    return body.removesuffix(b"\n\n").split(b"\n\n")


async def test_times_are_milliseconds_since_1970(serving):
    async with serving() as api:
        session = await finished(api)
        exact = await answers(api, session["id"])
        api.sim.faults.differ("epoch_times")
        odd, (listed,), result, trail = await answers(api, session["id"])
        for name in ("createdAt", "startedAt", "finishedAt"):
            assert isinstance(odd[name], int)
            assert odd[name] == listed[name]
        assert result == exact[2]
        assert all(isinstance(entry["ts"], int) for entry in trail)
        frames = await api.frames(session["id"])
        assert isinstance(frames[0]["ts"], int)
        assert [isinstance(frame["event"]["ts"], int) for frame in frames if frame["kind"] == "audit"] == [True] * 4
        assert isinstance((await api.create())["createdAt"], int)


async def test_limits_are_texts_and_a_label_is_a_number(serving):
    async with serving() as api:
        api.sim.faults.differ("limits_with_units", "number_for_a_label")
        session = await api.create(limits={"memoryMb": 256, "gpus": 1}, labels={"team": "a"})
        limits = {"cpuMillis": "1000millis", "memoryMb": "256mb", "wallClockMs": "30000ms", "pids": "64", "gpus": "1"}
        assert session["limits"] == limits
        assert session["labels"] == {"team": "a", "build": 7}


@pytest.mark.parametrize("name", ["id", "phase"])
async def test_the_answer_to_a_create_lacks_a_field(serving, name):
    async with serving() as api:
        api.sim.faults.differ(f"no_{name}_on_create")
        session = await api.create()
        assert name not in session
        (listed,) = (await api.http.get("/sessions")).json()
        assert session.keys() == listed.keys() - {name}


async def test_details_of_audit_events_stand_beside_the_other_fields(serving):
    async with serving() as api:
        session = await finished(api)
        api.sim.faults.differ("flat_audit_events")
        trail = (await answers(api, session["id"]))[3]
        assert trail[0].keys() == {"type", "ts", "sessionId", "language"}
        frames = await api.frames(session["id"])
        assert [frame["event"] for frame in frames if frame["kind"] == "audit"] == trail


async def test_one_session_of_a_list_is_odd(serving):
    async with serving() as api:
        await finished(api)
        newest = await finished(api)
        api.sim.faults.differ("odd_session_in_list")
        odd, good = (await api.http.get("/sessions")).json()
        assert (odd["id"], odd["phase"]) == (newest["id"], "succeeded")
        assert all(isinstance(value, list) for name, value in odd.items() if name not in ("id", "phase"))
        assert isinstance(good["labels"], dict)


async def test_everything_has_an_unknown_field(serving):
    async with serving() as api:
        session = await finished(api)
        api.sim.faults.differ("unknown_fields")
        seen, (listed,), result, trail = await answers(api, session["id"])
        frames = await api.frames(session["id"])
        parts = [frame[name] for frame in frames for name in ("event", "result") if name in frame]
        assert len(parts) == 5
        for document in (seen, seen["result"], listed, listed["result"], result, *trail, *frames, *parts):
            assert document["unknown"] == {"from": "a later version"}


async def test_output_has_another_shape_or_is_no_json_and_all_else_stays(serving):
    async with serving() as api:
        session = await finished(api)
        exact = await api.events(session["id"])
        api.sim.faults.differ("misshapen_frames")
        odd = await api.frames(session["id"])
        assert [frame["data"] for frame in odd if "data" in frame] == [{"text": "one\n"}, {"text": "two\n"}]
        api.sim.faults.clear()
        api.sim.faults.differ("frames_without_json")
        texts = await api.events(session["id"])
        changed = [after for before, after in zip(exact, texts, strict=True) if before != after]
        assert [event["data"] for event in changed] == ["one", "two"]
        assert [event["id"] for event in exact] == [event["id"] for event in texts]


async def test_a_live_only_stream_begins_with_what_comes_next_and_is_empty_once_the_session_has_ended(serving):
    async with serving() as api:
        api.sim.faults.differ("live_only_stream")
        script = api.sim.script([StdoutFrame("before")], hold=True)
        session = await api.create()
        with anyio.fail_after(PATIENCE_SECONDS):
            await api.sim.until(lambda sim: sim.phases[session["id"]] == "running")
            async with api.open_stream(session["id"], **{"last-event-id": "1"}) as stream:
                script.push(StdoutFrame("after"))
                script.release()
                seen = [frame async for frame in stream]
        assert "before" not in [frame.get("data") for frame in seen]
        assert [frame["kind"] for frame in seen[-3:]] == ["result", "phase", "end"]
        assert await api.events(session["id"]) == []


async def test_a_stream_of_a_session_that_has_ended_only_has_heartbeats(serving):
    async with serving(bounds=Bounds(heartbeat_seconds=0.01)) as api:
        api.sim.faults.differ("heartbeats_only_stream")
        script = api.sim.script(hold=True)
        session = await api.create()
        with anyio.fail_after(PATIENCE_SECONDS):
            async with api.open_stream(session["id"]) as stream:
                script.release()
                assert [frame async for frame in stream][-1] == {"kind": "end"}
            assert await read_open_stream(api, session["id"]) == [HEARTBEAT] * 3


@pytest.mark.parametrize("framing", [Framing(), Framing(ids=False, chunk_bytes=7)])
async def test_a_stream_ends_in_good_order_after_the_terminal_phase_without_an_end(serving, framing):
    async with serving(framing=framing) as api:
        session = await finished(api)
        exact = await api.events(session["id"])
        api.sim.faults.differ("no_end_frame")
        assert await api.events(session["id"]) == exact[:-1]


async def test_a_stream_stays_open_after_the_terminal_phase(serving):
    async with serving(bounds=Bounds(heartbeat_seconds=0.01)) as api:
        session = await finished(api)
        api.sim.faults.differ("stream_stays_open")
        with anyio.fail_after(PATIENCE_SECONDS):
            events = await read_open_stream(api, session["id"])
        assert b'"phase":"succeeded"' in events[-4]
        assert events[-3:] == [HEARTBEAT] * 3


async def test_a_result_is_no_json(serving):
    async with serving() as api:
        session = await finished(api)
        api.sim.faults.differ("unreadable_result")
        answer = await api.http.get(f"/sessions/{session['id']}/result")
        assert answer.status_code == 200
        with pytest.raises(msgspec.DecodeError):
            msgspec.json.decode(answer.content)
        assert (await api.http.get(f"/sessions/{session['id']}")).json()["result"]["json"] == {"n": 1}


async def test_a_killed_session_has_exit_code_137_and_another_its_own(serving):
    async with serving() as api:
        killed = await finished(api, kill_reason="memory_exceeded")
        failed = await finished(api, exit_code=3)
        api.sim.faults.differ("exit_code_137_when_killed")
        for session, code in ((killed, 137), (failed, 3)):
            seen, _, result, _ = await answers(api, session["id"])
            framed = [frame["result"] for frame in await api.frames(session["id"]) if frame["kind"] == "result"]
            assert [document["exitCode"] for document in (seen["result"], result, *framed)] == [code] * 3


async def test_health_is_503_with_a_good_body(serving):
    async with serving() as api:
        api.sim.faults.differ("health_503")
        answer = await api.http.get("/healthz")
        assert answer.status_code == 503
        assert answer.json() == {"ok": False, "backend": "simulator", "backendHealthy": False}


async def test_a_proxy_answers_in_place_of_a_server_that_did_its_work(serving):
    async with serving() as api:
        api.sim.script(hold=True)
        api.sim.faults.respond(504, when="after", method="POST")
        assert (await api.http.post("/sessions", json={"code": "pass"})).status_code == 504
        assert len(api.sim.phases) == 1


async def test_any_answer_can_be_rewritten(serving):
    async with serving() as api:
        fault = api.sim.faults.rewrite(lambda session: {**session, "id": 7}, method="POST", path="/sessions")
        assert (await api.create())["id"] == 7
        assert (fault.hits, api.sim.faults.armed) == (1, [])
        api.sim.faults.rewrite(lambda _: b"{", path="/sessions")
        assert (await api.http.get("/sessions")).content == b"{"


async def test_a_difference_lasts_until_it_is_cleared_or_as_often_as_asked(serving):
    async with serving() as api:
        api.sim.faults.differ("no_phase_on_create")
        api.sim.faults.differ("number_for_a_label", times=1)
        first, second = await api.create(), await api.create()
        assert (first["labels"], second["labels"]) == ({"build": 7}, {})
        assert "phase" not in first.keys() | second.keys()
        api.sim.faults.clear()
        assert "phase" in await api.create()


async def test_an_error_shows_no_difference(serving):
    async with serving() as api:
        api.sim.faults.differ(*get_args(Difference))
        answer = await api.http.get("/sessions/s-none")
        assert answer.json() == {"statusCode": 404, "error": "Not Found", "message": "session s-none not found"}


async def test_all_differences_together_leave_a_server_that_works(serving):
    async with serving() as api:
        api.sim.faults.differ(*get_args(Difference))
        assert (await api.http.post("/sessions", json={"code": "pass"})).status_code == 201
        (listed,) = (await api.http.get("/sessions")).json()
        assert (await api.http.delete(f"/sessions/{listed['id']}")).status_code == 204


async def test_an_unknown_difference_is_refused_and_none_is_armed(serving):
    async with serving() as api:
        with pytest.raises(ValueError, match="'no_ids'"):
            api.sim.faults.differ("epoch_times", "no_ids")
        assert api.sim.faults.armed == []


async def test_a_path_that_is_no_pattern_is_refused(serving):
    async with serving() as api:
        with pytest.raises(ValueError, match="path"):
            api.sim.faults.refuse(path="(")
        with pytest.raises(ValueError, match="path: must begin with '/'"):
            api.sim.faults.differ("epoch_times", "no_end_frame", path="sessions")
        assert api.sim.faults.armed == []


async def test_a_stream_that_never_ends_does_not_hold_up_leaving(serving):
    with anyio.fail_after(PATIENCE_SECONDS):
        async with anyio.create_task_group() as group:
            async with serving() as api:
                session = await finished(api)
                api.sim.faults.differ("stream_stays_open")

                async def read(http=api.http):
                    with pytest.raises(httpx.HTTPError):
                        await http.get(f"/sessions/{session['id']}/stream")

                group.start_soon(read)
                await api.sim.until(lambda sim: sim.open_streams == 1)
                assert api.sim.open_streams == 1
