"""Faults on request: exactly what was asked, as often as asked, and then never again."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import anyio
import h11
import httpx
import pytest

from enclave.simulator import Bounds, Framing, Simulator
from enclave.types import StdoutFrame
from tests.support import PATIENCE_SECONDS

pytestmark = pytest.mark.anyio

FRAMES = [StdoutFrame("zero"), StdoutFrame("one"), StdoutFrame("two")]


async def scripted(api):
    """A finished session whose stream is FRAMES, and its bytes."""
    api.sim.script(FRAMES, raw=True)
    session = await api.create()
    with anyio.fail_after(PATIENCE_SECONDS):
        await api.sim.until(lambda sim: sim.phases[session["id"]] == "succeeded")
    return session["id"], [
        Framing().event(n + 1, b'{"kind":"stdout","data":"%b"}' % text)
        for n, text in enumerate([b"zero", b"one", b"two"])
    ]


async def read_all(stream):
    """The body, and whether it ended in good order."""
    body = b""
    with anyio.fail_after(PATIENCE_SECONDS):
        try:
            while data := await stream.read():
                body += data
        except (h11.RemoteProtocolError, anyio.BrokenResourceError):
            return body, False
        return body, True


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("after_bytes", [0, 1, 10])
async def test_a_stream_is_cut_after_a_frame_or_inside_the_next_and_the_next_connection_is_whole(
    serving, after_bytes, reset
):
    async with serving() as api:
        session_id, events = await scripted(api)
        fault = api.sim.faults.drop_stream(after_frames=2, after_bytes=after_bytes, reset=reset)
        async with api.open_stream(session_id) as stream:
            body, in_order = await read_all(stream)
            assert not in_order
            assert body == events[0] + events[1] + events[2][:after_bytes]
        assert (fault.times, fault.hits, api.sim.faults.armed) == (0, 1, [])
        async with api.open_stream(session_id) as stream:
            assert await read_all(stream) == (b"".join(events), True)


async def test_two_drops_cut_two_connections_one_after_the_other(serving):
    async with serving() as api:
        session_id, events = await scripted(api)
        api.sim.faults.drop_stream(after_frames=0)
        api.sim.faults.drop_stream(after_frames=1, times=2)
        bodies = []
        for _ in range(4):
            async with api.open_stream(session_id) as stream:
                bodies.append(await read_all(stream))
        assert bodies == [(b"", False), (events[0], False), (events[0], False), (b"".join(events), True)]


async def test_frames_are_counted_from_where_a_connection_resumes(serving):
    async with serving() as api:
        session_id, events = await scripted(api)
        api.sim.faults.drop_stream(after_frames=1)
        async with api.open_stream(session_id, **{"last-event-id": "1"}) as stream:
            assert await read_all(stream) == (events[1], False)


async def test_a_stream_may_close_in_good_order_without_its_end(serving):
    async with serving() as api:
        session_id, events = await scripted(api)
        api.sim.faults.end_stream(after_frames=1)
        async with api.open_stream(session_id) as stream:
            assert await read_all(stream) == (events[0], True)


async def test_bytes_are_injected_at_an_exact_place_and_faults_combine(serving):
    async with serving() as api:
        session_id, events = await scripted(api)
        api.sim.faults.inject(b"data: {broken\n\n", after_frames=1)
        api.sim.faults.inject(b": again\n\n", after_frames=2, also=True)
        api.sim.faults.drop_stream(after_frames=2, also=True)
        async with api.open_stream(session_id) as stream:
            body, in_order = await read_all(stream)
        assert body == events[0] + b"data: {broken\n\n" + events[1] + b": again\n\n"
        assert not in_order


async def test_a_stalled_stream_sends_nothing_not_even_heartbeats_until_its_reader_leaves(serving):
    async with serving(bounds=Bounds(heartbeat_seconds=0.01)) as api:
        session_id, events = await scripted(api)
        api.sim.faults.stall_stream(after_frames=1)
        with anyio.fail_after(PATIENCE_SECONDS):
            async with api.open_stream(session_id) as stream:
                body = b""
                while len(body) < len(events[0]):
                    body += await stream.read()
                with anyio.move_on_after(0.2) as scope:
                    body += await stream.read()
                assert scope.cancelled_caught
                assert body == events[0]
            await api.sim.until(lambda sim: sim.open_streams == 0)


async def test_a_stalled_stream_goes_on_afterwards(serving):
    async with serving() as api:
        session_id, events = await scripted(api)
        api.sim.faults.stall_stream(after_frames=1, seconds=0.05)
        async with api.open_stream(session_id) as stream:
            assert await read_all(stream) == (b"".join(events), True)


async def test_the_next_requests_are_answered_by_a_status_and_then_the_route_again(serving):
    async with serving() as api:
        api.sim.faults.respond(429, times=2, retry_after=1.5)
        answers = [await api.http.get("/sessions") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [429, 429, 200]
        assert answers[0].headers["retry-after"] == "1.5"
        assert answers[0].json()["error"] == "Too Many Requests"


async def test_retry_after_may_be_a_date_and_a_body_anything(serving):
    async with serving() as api:
        when = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
        api.sim.faults.respond(503, retry_after=when, body=b"<html>", content_type="text/html", headers={"x-a": "b"})
        answer = await api.http.get("/healthz")
        assert answer.headers["retry-after"] == "Wed, 02 Jan 2030 03:04:05 GMT"
        assert (answer.content, answer.headers["content-type"], answer.headers["x-a"]) == (b"<html>", "text/html", "b")


async def test_a_fault_waits_for_its_method_and_path(serving):
    async with serving() as api:
        api.sim.faults.respond(500, method="post", path="/sessions")
        assert (await api.http.get("/sessions")).status_code == 200
        assert (await api.http.get("/healthz")).status_code == 200
        assert (await api.http.post("/sessions", json={"code": "x"})).status_code == 500
        assert api.sim.phases == {}
        api.sim.faults.respond(500, path=r"/sessions/[^/]+")
        api.sim.faults.clear()
        assert (await api.http.get("/sessions/s-1")).status_code == 404


async def test_a_fault_is_armed_at_least_once(serving):
    async with serving() as api:
        with pytest.raises(ValueError, match="times"):
            api.sim.faults.respond(500, times=0)


@pytest.mark.parametrize(
    ("fault", "arguments", "error", "message"),
    [
        ("respond", {"status": "500"}, TypeError, "status: expected a whole number"),
        ("respond", {"status": 99}, ValueError, "status: expected a final status"),
        ("respond", {"status": 600}, ValueError, "status: expected a final status"),
        ("respond", {"status": 500, "when": "during"}, ValueError, "when: expected one of before, after"),
        ("respond", {"status": 500, "body": "text"}, TypeError, "body: expected bytes"),
        ("respond", {"status": 500, "body": {"a": 1}}, TypeError, "body: expected bytes"),
        ("respond", {"status": 500, "headers": {"x": 1}}, TypeError, r"headers\['x'\]: expected a text"),
        ("respond", {"status": 500, "headers": {"x": "a\r\nb"}}, ValueError, r"headers\['x'\]"),
        ("respond", {"status": 500, "headers": {"x y": "a"}}, ValueError, "'x y' is no name of a header"),
        ("respond", {"status": 500, "headers": ["x"]}, TypeError, "headers: expected a dict"),
        ("respond", {"status": 500, "retry_after": "a\nb"}, ValueError, "retry-after"),
        ("respond", {"status": 500, "retry_after": True}, TypeError, "retry_after: expected seconds"),
        ("respond", {"status": 500, "method": 1}, TypeError, "method: expected a text"),
        ("respond", {"status": 500, "times": "2"}, TypeError, "times: expected a whole number"),
        ("respond", {"status": 500, "times": 1.5}, TypeError, "times: expected a whole number"),
        ("respond", {"status": 500, "times": True}, TypeError, "times: expected a whole number"),
        ("respond", {"status": 500, "times": -1}, ValueError, "times: must be at least 1"),
        ("respond", {"status": 500, "method": "PSOT"}, ValueError, "method: expected one of .*POST.*, got 'PSOT'"),
        ("refuse", {"method": ""}, ValueError, "method: expected one of"),
        ("refuse", {"path": 1}, TypeError, "path: expected a text"),
        ("respond", {"status": 500, "path": "sessions"}, ValueError, "path: must begin with '/'"),
        ("delay", {"seconds": 1, "path": "http://127.0.0.1/sessions"}, ValueError, "path: must begin with '/'"),
        ("rewrite", {"change": str, "path": ""}, ValueError, "path: must begin with '/'"),
        ("lose_response", {"path": "/sessions/*"}, ValueError, r"path: .* Write '/\[\^/\]\+'"),
        ("inject", {"data": b"", "path": "sessions"}, ValueError, "path: must begin with '/'"),
        ("end_stream", {"path": "/sessions/*/stream"}, ValueError, "path: .*any number of slashes"),
        ("drop_stream", {"path": "/sessions/s-6b44fc-2"}, ValueError, "path: expected the path of a stream"),
        ("stall_stream", {"path": "/sessions"}, ValueError, "path: expected the path of a stream"),
        ("refuse", {"reset": "yes"}, TypeError, "reset: expected True or False"),
        ("lose_response", {"after_bytes": -1}, ValueError, "after_bytes: must not be negative"),
        ("delay", {"seconds": "1"}, TypeError, "seconds: expected a number of seconds"),
        ("delay", {"seconds": -1}, ValueError, "seconds: must be a number of seconds from 0"),
        ("delay", {"seconds": math.nan}, ValueError, "seconds: must be a number of seconds from 0"),
        ("rewrite", {"change": {"id": 7}}, TypeError, "change: expected a function"),
        ("drop_stream", {"after_frames": -1}, ValueError, "after_frames: must not be negative"),
        ("drop_stream", {"after_frames": 1.0}, TypeError, "after_frames: expected a whole number"),
        ("drop_stream", {"also": 1}, TypeError, "also: expected True or False"),
        ("stall_stream", {"seconds": math.inf}, ValueError, "seconds: must be a number of seconds from 0"),
        ("inject", {"data": "data: x"}, TypeError, "data: expected bytes"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_the_call_and_arms_nothing(fault, arguments, error, message):
    faults = Simulator().faults
    with pytest.raises(error, match=message):
        getattr(faults, fault)(**arguments)
    assert faults.armed == []


@pytest.mark.parametrize("path", ["/sessions/[^/]+/stream", ".*/stream", "(?i)/SESSIONS/.+", "^/sessions/s-1/stream$"])
def test_a_path_may_be_any_expression_that_a_path_can_match(path):
    assert Simulator().faults.drop_stream(path=path).path == path


@pytest.mark.parametrize("status", [418, 499, 520, 599])
async def test_a_status_need_not_be_a_registered_one(serving, status):
    async with serving() as api:
        api.sim.faults.respond(status)
        answer = await api.http.get("/healthz")
        assert (answer.status_code, answer.json()["statusCode"]) == (status, status)


@pytest.mark.parametrize("reset", [False, True])
async def test_a_refused_request_never_reaches_the_route(serving, reset):
    async with serving() as api:
        api.sim.faults.refuse(method="POST", reset=reset)
        url = api.http.base_url
        with anyio.fail_after(PATIENCE_SECONDS):
            async with await anyio.connect_tcp(url.host, url.port) as stream:
                await stream.send(b"POST /sessions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n")
                # An older anyio takes a reset for an end.
                expected = (anyio.BrokenResourceError, anyio.EndOfStream) if reset else anyio.EndOfStream
                with pytest.raises(expected):
                    await stream.receive()
        assert api.sim.phases == {}


@pytest.mark.parametrize("after_bytes", [0, 5])
async def test_a_lost_response_was_handled(serving, after_bytes):
    async with serving() as api:
        api.sim.faults.lose_response(method="POST", after_bytes=after_bytes)
        api.sim.script(hold=True)
        with pytest.raises(httpx.RemoteProtocolError):
            await api.http.post("/sessions", json={"code": "pass"})
        assert len(api.sim.phases) == 1


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_delay_strikes_before_or_after_the_work_is_done(serving, when):
    async with serving() as api:
        api.sim.faults.delay(60, method="POST", when=when)
        api.sim.script(hold=True)

        async def create():
            await api.http.post("/sessions", json={"code": "pass"})

        with anyio.fail_after(PATIENCE_SECONDS):
            async with anyio.create_task_group() as group:
                group.start_soon(create)
                if when == "after":
                    await api.sim.until(lambda sim: len(sim.phases) == 1)
                else:
                    await api.sim.until(lambda sim: len(sim.requests) == 1)
                    assert api.sim.phases == {}
                group.cancel_scope.cancel()
        assert (await api.http.get("/healthz")).status_code == 200


async def test_a_short_delay_only_delays(serving):
    async with serving() as api:
        api.sim.faults.delay(0.01)
        assert (await api.http.get("/healthz")).status_code == 200


async def test_requests_are_recorded_up_to_a_bound(serving):
    async with serving() as api:
        await api.http.get("/sessions?limit=1", headers={"x-mark": "y"})
        (request,) = api.sim.requests
        assert (request.method, request.path, request.query) == ("GET", "/sessions", "limit=1")
        assert request.headers["x-mark"] == "y"
        assert api.sim.requests.maxlen is not None
