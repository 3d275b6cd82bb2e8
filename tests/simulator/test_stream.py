"""The live stream: order, replay, resumption, any number of readers, framing."""

from __future__ import annotations

import json

import anyio
import pytest

from enclave.simulator import Bounds, Framing
from enclave.types import EndFrame, ResultFrame, SessionResult, StderrFrame, StdoutFrame
from tests.support import PATIENCE_SECONDS

pytestmark = pytest.mark.anyio


def summary(frames):
    shown = []
    for frame in frames:
        kind = frame["kind"]
        detail = {"phase": "phase", "audit": "event", "result": "result"}.get(kind, "data")
        value = frame.get(detail)
        shown.append(f"{kind} {value['type'] if kind == 'audit' else value}" if kind in ("phase", "audit") else kind)
    return shown


async def test_a_clean_run_streams_its_phases_output_trail_result_and_end_in_order(serving):
    async with serving() as api:
        run = await api.run("print('hello')\nenclave.result({'answer': 285})")
        assert summary(run.frames) == [
            "phase pending",
            "audit session_created",
            "phase running",
            "audit sandbox_started",
            "stdout",
            "audit workload_exited",
            "audit result_collected",
            "result",
            "phase succeeded",
            "end",
        ]
        assert run.frames[-3]["result"] == run.result
        await api.http.delete(f"/sessions/{run.id}")
        audit = (await api.http.get(f"/sessions/{run.id}/audit")).json()
        assert [entry["type"] for entry in audit] == [
            "session_created",
            "sandbox_started",
            "workload_exited",
            "result_collected",
            "session_torn_down",
        ]
        assert all(entry["sessionId"] == run.id for entry in audit)
        assert audit == sorted(audit, key=lambda entry: entry["ts"])


async def test_a_session_torn_down_while_it_runs_ends_its_streams_with_that_phase(serving):
    async with serving() as api:
        api.sim.script(hold=True)
        session = await api.create()
        with anyio.fail_after(PATIENCE_SECONDS):
            async with api.open_stream(session["id"]) as frames:
                await anext(frames)
                await api.http.delete(f"/sessions/{session['id']}")
                rest = [frame async for frame in frames]
        assert summary(rest)[-3:] == ["audit session_torn_down", "phase torn_down", "end"]
        assert await api.frames(session["id"]) == (await api.frames(session["id"]))
        assert summary(await api.frames(session["id"]))[-1] == "end"


async def test_a_reader_gets_what_was_recorded_and_then_goes_on_live(serving):
    async with serving() as api:
        script = api.sim.script([StdoutFrame("early")], hold=True)
        session = await api.create()
        await api.sim.until(lambda sim: sim.phases[session["id"]] == "running")
        with anyio.fail_after(PATIENCE_SECONDS):
            async with api.open_stream(session["id"]) as frames:
                async for frame in frames:
                    if frame["kind"] == "stdout":
                        assert frame["data"] == "early"
                        break
                for text in ("a", "b"):
                    script.push(StdoutFrame(text))
                    assert (await anext(frames))["data"] == text
                script.release()
                assert [frame["kind"] async for frame in frames][-1] == "end"


async def test_any_number_of_readers_see_the_same_frames(serving):
    async with serving() as api:
        script = api.sim.script([StdoutFrame(str(number)) for number in range(100)], hold=True)
        session = await api.create()
        seen = []

        async def read():
            seen.append(await api.frames(session["id"]))

        with anyio.fail_after(PATIENCE_SECONDS):
            async with anyio.create_task_group() as group:
                for _ in range(8):
                    group.start_soon(read)
                await api.sim.until(lambda sim: sim.open_streams == 8)
                script.release()
        assert len(seen) == 8
        assert all(frames == seen[0] for frames in seen)
        assert [frame["data"] for frame in seen[0] if frame["kind"] == "stdout"] == [str(n) for n in range(100)]


async def test_last_event_id_resumes_after_that_frame(serving):
    async with serving() as api:
        api.sim.script([StdoutFrame(str(number)) for number in range(5)])
        session = await api.create()
        events = await api.events(session["id"])
        assert [event["id"] for event in events] == [str(number + 1) for number in range(len(events))]
        for index in range(len(events)):
            assert await api.events(session["id"], **{"last-event-id": events[index]["id"]}) == events[index + 1 :]


@pytest.mark.parametrize("last_event_id", ["", "x", "-1", "999", "1.5", "9" * 400, "\u0661".encode()])
async def test_an_id_that_was_never_given_out_replays_everything(serving, last_event_id):
    async with serving() as api:
        api.sim.script([StdoutFrame("x")])
        session = await api.create()
        assert await api.frames(session["id"], **{"last-event-id": last_event_id}) == await api.frames(session["id"])


async def test_without_ids_a_reconnect_replays_everything(serving):
    async with serving(framing=Framing(ids=False)) as api:
        session = await api.create("print(1)")
        events = await api.events(session["id"])
        assert all("id" not in event for event in events)
        assert await api.events(session["id"], **{"last-event-id": "2"}) == events


async def test_a_quiet_stream_has_heartbeats_and_its_headers_come_at_once(serving):
    async with serving(bounds=Bounds(heartbeat_seconds=0.05)) as api:
        api.sim.script(raw=True, hold=True)
        session = await api.create()
        with anyio.fail_after(PATIENCE_SECONDS):
            async with api.open_stream(session["id"]) as stream:
                assert stream.headers["content-type"] == "text/event-stream"
                assert stream.headers["cache-control"] == "no-cache"
                received = b""
                while received.count(b"\n\n") < 3:
                    received += await stream.read()
        assert received == b": heartbeat\n\n" * 3


async def test_a_reader_that_goes_away_is_noticed_although_nothing_is_sent(serving):
    async with serving() as api:
        api.sim.script(hold=True)
        session = await api.create()
        with anyio.fail_after(PATIENCE_SECONDS):
            async with api.open_stream(session["id"]) as frames:
                await anext(frames)
                assert api.sim.open_streams == 1
            await api.sim.until(lambda sim: sim.open_streams == 0)


async def test_a_reader_that_reads_nothing_holds_back_neither_the_workload_nor_other_readers(serving):
    async with serving() as api:
        code = "import sys\nfor _ in range(6000): sys.stdout.write('x' * 999 + chr(10))"
        with anyio.fail_after(PATIENCE_SECONDS):
            script = api.sim.script(hold=True)
            slow = await api.create()
            async with api.open_stream(slow["id"]):
                script.push(*(StdoutFrame("x" * 100_000) for _ in range(100)))
                script.release()
                await api.sim.until(lambda sim: sim.phases[slow["id"]] == "succeeded")
                run = await api.run(code)
                assert run.phase == "succeeded"
                assert len(run.output()) == 6_000_000
                assert len(await api.frames(slow["id"])) > 100
            await api.sim.until(lambda sim: sim.open_streams == 0)


async def test_output_beyond_the_bound_is_dropped_with_one_notice_and_the_result_still_counts(serving):
    async with serving(bounds=Bounds(max_log_bytes=100_000, max_capture_bytes=1000)) as api:
        run = await api.run("for _ in range(100_000): print('0123456789')\nenclave.result('done')")
        assert run.phase == "succeeded"
        assert run.result["json"] == "done"
        assert len(run.result["stdout"]) == 1000
        assert sum(len(frame["data"]) for frame in run.frames if frame["kind"] == "stdout") < 100_000
        notices = [frame["data"] for frame in run.frames if frame["kind"] == "stderr"]
        assert notices == ["[enclave simulator] output beyond max_log_bytes=100000 is dropped\n"]


FRAMINGS = [
    Framing(ids=False),
    Framing(newline="\r"),
    Framing(newline="\r\n", comments=True),
    Framing(bom=True, retry_ms=250, event_names=True),
    Framing(kind_in_event_only=True),
    Framing(data_lines=3),
    Framing(chunk_bytes=3),
    Framing(chunk_bytes=7, newline="\r\n", data_lines=2, bom=True, comments=True),
    Framing(frames_per_write=1),
]


@pytest.mark.parametrize("framing", FRAMINGS, ids=lambda framing: repr(framing)[8:50])
async def test_every_framing_carries_the_same_frames(serving, framing):
    async with serving() as api:
        api.sim.script([StdoutFrame("ümlaut\n"), '{"kind":"novel","x":[1,{"a":"b"}]}', StdoutFrame("")])
        session = await api.create()
        plain = await api.frames(session["id"])
        api.sim.framing = framing
        events = await api.events(session["id"])
        frames = [{**json.loads(event["data"])} for event in events]
        if framing.kind_in_event_only:
            assert all("kind" not in frame for frame in frames)
            frames = [{"kind": event["event"], **frame} for event, frame in zip(events, frames, strict=True)]
        assert frames == plain
        assert all(("id" in event) == framing.ids for event in events)


async def test_the_bytes_of_a_framing_are_as_asked(serving):
    async with serving() as api:
        api.sim.script(['{"kind":"stdout","data":"x"}'], raw=True)
        session = await api.create()
        await api.frames(session["id"])
        path = f"/sessions/{session['id']}/stream"
        api.sim.framing = Framing(newline="\r\n", bom=True, retry_ms=5, event_names=True, comments=True, data_lines=2)
        assert (await api.http.get(path)).content == (
            b"\xef\xbb\xbfretry: 5\r\n\r\n"
            b": frame 1\r\nid: 1\r\nevent: stdout\r\n"
            b'data: {\r\ndata: "kind":"stdout","data":"x"}\r\n\r\n'
        )


@pytest.mark.parametrize("options", [{"newline": "\n\n"}, {"chunk_bytes": -1}, {"data_lines": 0}])
def test_a_framing_that_is_not_sse_is_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Framing(**options)


async def test_a_raw_script_is_the_whole_stream(serving):
    async with serving() as api:
        api.sim.script([b"not json", {"kind": "novel"}, 0.001, '{"kind":"end"}'], raw=True)
        session = await api.create()
        data = [event["data"] for event in await api.events(session["id"])]
        assert data == ["not json", '{"kind":"novel"}', '{"kind":"end"}']
        assert api.sim.phases[session["id"]] == "succeeded"


@pytest.mark.parametrize(
    ("options", "phase", "exit_code"),
    [({}, "succeeded", 0), ({"exit_code": 3}, "failed", 3), ({"kill_reason": "pids_exceeded"}, "killed", None)],
)
async def test_a_script_chooses_the_outcome(serving, options, phase, exit_code):
    async with serving() as api:
        api.sim.script(result=None, **options)
        run = await api.run("never run")
        assert run.phase == phase
        assert run.result["exitCode"] == exit_code
        assert run.result["json"] is None
        assert run.session.get("killReason") == options.get("kill_reason")
        assert ("session_killed" in run.trail) == (phase == "killed")


async def test_the_result_of_a_script_holds_what_its_frames_print(serving):
    frames = [
        StdoutFrame("a\n"),
        StderrFrame("e\n"),
        b"not json",
        '{"kind":"stdout","data":"\\ud83d"}',
        {"kind": "novel"},
    ]
    async with serving(bounds=Bounds(max_capture_bytes=6)) as api:
        script = api.sim.script(frames, hold=True)
        script.push(StdoutFrame("b beyond the bound"))
        script.release()
        session = await api.create()
        *_, result, phase, _ = [event["data"] for event in await api.events(session["id"])]
        assert json.loads(phase)["phase"] == "succeeded"
        assert json.loads(result)["result"]["stdout"] == "a\n\ufffdb"
        assert (await api.http.get(f"/sessions/{session['id']}/result")).json()["stderr"] == "e\n"


async def test_a_script_may_give_the_texts_of_its_result_itself(serving):
    own = ResultFrame(SessionResult(exit_code=0, stdout="own"))
    async with serving() as api:
        api.sim.script([StdoutFrame("a"), StderrFrame("e"), own, EndFrame()], raw=True)
        run = await api.run("never run")
        assert (run.result["stdout"], run.result["stderr"]) == ("own", "e")


async def test_frames_are_pushed_only_to_a_script_that_holds(serving):
    async with serving() as api:
        script = api.sim.script()
        with pytest.raises(RuntimeError, match="hold=True"):
            script.push(StdoutFrame("x"))


async def test_a_finished_session_may_be_torn_down_by_itself(serving):
    async with serving(auto_teardown=True) as api:
        session = await api.create()
        await api.frames(session["id"])
        with anyio.fail_after(PATIENCE_SECONDS):
            await api.sim.until(lambda sim: sim.phases[session["id"]] == "torn_down")
