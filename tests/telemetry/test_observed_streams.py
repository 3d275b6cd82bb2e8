"""`Observer`: what it hears of streams, and how each of them ended."""

from __future__ import annotations

import anyio
import pytest

from enclave import EndFrame, FrameStream, Observer, RequestObservation, StdoutFrame, StreamObservation
from tests.support import PATIENCE_SECONDS
from tests.support.recorder import STREAM, Recorder, client_of


async def test_resumes_are_told_apart_from_a_stream_that_could_not_be_opened(sim):
    recorder = Recorder()
    sim.script([StdoutFrame("a"), StdoutFrame("b"), StdoutFrame("c"), EndFrame()], raw=True)
    with anyio.fail_after(PATIENCE_SECONDS):
        async with client_of(sim, recorder) as client:
            handle = await client.run("x")
            await sim.until(lambda sim: sim.phases[handle.id] == "succeeded")
            sim.faults.respond(503, path=STREAM)
            sim.faults.drop_stream(after_frames=2)
            async with handle.stream() as frames:
                texts = [(await anext(frames)).data for _ in range(3)]
    assert texts == ["a", "b", "c"]
    calls = [call for call in recorder.of("stream") if call[0] != "stream"]
    assert calls[0] == ("stream.retrying", "ServiceUnavailableError", 1, 0.0)
    assert (calls[1][0], calls[1][2:]) == ("stream.resuming", (1, 0.0, 2))
    assert [call[0] for call in recorder.of("request")].count("request") == 4  # POST, and three GETs


async def test_leaving_a_stream_early_ends_it_as_cancelled_and_once(sim):
    recorder = Recorder()
    script = sim.script([StdoutFrame("a")], hold=True)
    with anyio.fail_after(PATIENCE_SECONDS):
        async with client_of(sim, recorder) as client, client.session("x") as session:
            async with session.stream() as frames:
                await anext(frames)
            assert recorder.heard[-1][:2] == ("stream.ended", "cancelled")
            async with session.stream() as frames:
                await anext(frames)
                frames.cancel()
            script.release()
    ended = [call for call in recorder.heard if call[0] == "stream.ended"]
    assert [call[1] for call in ended] == ["cancelled", "cancelled"]


async def test_nothing_is_called_for_a_frame(sim):
    few, many = Recorder(), Recorder()
    with anyio.fail_after(PATIENCE_SECONDS):
        for count, recorder in ((1, few), (500, many)):
            sim.script([StdoutFrame("x")] * count, result=1)
            async with client_of(sim, recorder) as client, client.session("x") as session:
                async with session.stream() as frames:
                    async for _ in frames:
                        pass
    assert [call[0] for call in many.heard] == [call[0] for call in few.heard]
    assert many.of("stream")[-1][2] == few.of("stream")[-1][2] + 499


@pytest.mark.parametrize("hook", ["stream", "ended"])
async def test_what_is_not_an_exception_leaves_a_stream_and_nobody_waits_for_its_task(sim, hook):
    class Stop(BaseException):
        pass

    class Observation(StreamObservation):
        def ended(self, *_, **__):
            raise Stop

    class Stopping(Observer):
        def stream(self, *_):
            if hook == "stream":
                raise Stop
            return Observation()

    sim.script([StdoutFrame("a")], result=1)
    with anyio.fail_after(PATIENCE_SECONDS):
        async with client_of(sim, Stopping()) as client, client.session("x") as session:
            with pytest.raises(Stop):
                async with session.stream() as frames:
                    async for _ in frames:
                        pass


async def test_a_stream_that_is_cancelled_as_its_request_fails_ends_as_cancelled(sim):
    errors: list[BaseException | None] = []
    streams: list[FrameStream] = []

    class Failing(RequestObservation):
        def ended(self, error):
            for stream in streams:
                stream.cancel()

    class Observation(StreamObservation):
        def ended(self, error, **_):
            errors.append(error)

    class Cancelling(Observer):
        def request(self, *_, **__):
            return Failing()

        def stream(self, *_):
            return Observation()

    sim.script([StdoutFrame("a")], result=1)
    sim.faults.respond(503, path=STREAM)
    with anyio.fail_after(PATIENCE_SECONDS):
        async with client_of(sim, Cancelling()) as client, client.session("x") as session:
            streams.append(session.stream())
            async with streams[0] as frames:
                assert [frame async for frame in frames] == []
            streams.clear()
    assert [type(error) for error in errors] == [anyio.get_cancelled_exc_class()]
