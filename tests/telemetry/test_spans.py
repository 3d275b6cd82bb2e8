"""`OpenTelemetryObserver`: which spans there are, what they say, and what they never say."""

from __future__ import annotations

import socket

import anyio
import httpx
import pytest

pytest.importorskip("opentelemetry.sdk", reason="the SDK of OpenTelemetry is not installed")

from enclave import (
    APIConnectionError,
    APIStatusError,
    ConnectError,
    EnclaveClient,
    NotFoundError,
    RetryPolicy,
    ServerError,
    ServiceUnavailableError,
    SessionLimits,
    StdoutFrame,
    StreamInterrupted,
    WorkloadFailed,
    __version__,
)
from enclave.opentelemetry import OpenTelemetryObserver
from enclave.simulator import Simulator
from tests.support import NO_WAITS, PATIENCE_SECONDS
from tests.support.messages import response
from tests.support.plane import closing, hang_up
from tests.support.spans import Tracing, attributes, events, status

STREAM = r"/sessions/[^/]+/stream"
RESULT = r"/sessions/[^/]+/result"
GET_STREAM = "GET /sessions/{id}/stream"


def client_of(sim: Simulator, tracing: Tracing, *, retry: RetryPolicy | None = NO_WAITS, **options) -> EnclaveClient:
    observer = OpenTelemetryObserver(tracing.provider, **options)
    return EnclaveClient(sim.base_url, api_key=sim.api_key, retry=retry, observer=observer)


async def test_a_session_with_a_stream_and_a_result_is_one_tree(sim, tracing):
    sim.script([StdoutFrame("a")], result=1)
    with anyio.fail_after(PATIENCE_SECONDS):
        async with client_of(sim, tracing) as client, client.session("x") as session:
            async with session.stream() as frames:
                count = len([frame async for frame in frames])
            await session.result()
    assert tracing.tree() == [
        "enclave.session",
        "  POST /sessions",
        "  enclave.stream",
        "    GET /sessions/{id}/stream",
        "  GET /sessions/{id}/result",
        "  DELETE /sessions/{id}",
    ]
    assert {status(span) for span in tracing.spans} == {"UNSET"}
    assert attributes(tracing.one("enclave.session")) == {
        "enclave.session.language": "python",
        "enclave.session.id": session.id,
        "enclave.session.phase": "succeeded",
        "enclave.session.backend": "simulator",
        "enclave.session.exit_code": 0,
        "enclave.session.torn_down": True,
    }
    assert attributes(tracing.named("enclave.stream")[0]) == {
        "enclave.session.id": session.id,
        "enclave.stream.frames": count,
        "enclave.stream.resumes": 0,
        "enclave.stream.complete": True,
    }
    kinds = {span.name: span.kind.name for span in tracing.spans}
    assert kinds.pop("enclave.session") == kinds.pop("enclave.stream") == "INTERNAL"
    assert set(kinds.values()) == {"CLIENT"}
    scope = tracing.spans[0].instrumentation_scope
    assert (scope.name, scope.version) == ("enclave", __version__)


async def test_a_request_is_described_by_the_conventions_for_http_clients(sim, tracing):
    async with client_of(sim, tracing) as client:
        handle = await client.run("pass")
        await handle.audit()
    port = int(sim.base_url.rpartition(":")[2])
    assert attributes(tracing.one("POST /sessions")) == {
        "http.request.method": "POST",
        "server.address": "127.0.0.1",
        "server.port": port,
        "url.full": f"{sim.base_url}/sessions",
        "url.template": "/sessions",
        "http.response.status_code": 201,
    }
    assert attributes(tracing.one("GET /sessions/{id}/audit")) == {
        "http.request.method": "GET",
        "server.address": "127.0.0.1",
        "server.port": port,
        "url.full": f"{sim.base_url}/sessions/{handle.id}/audit",
        "url.template": "/sessions/{id}/audit",
        "enclave.session.id": handle.id,
        "http.response.status_code": 200,
    }


@pytest.mark.parametrize(
    ("url", "address", "port"),
    [("https://enclave.invalid", "enclave.invalid", 443), ("http://[::1]", "::1", 80), ("http://[::1]:9", "::1", 9)],
)
async def test_where_a_request_goes_is_told_without_a_port_too(tracing, url, address, port):
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=[]))
    async with EnclaveClient(url, transport=transport, observer=OpenTelemetryObserver(tracing.provider)) as client:
        await client.list()
    told = attributes(tracing.one("GET /sessions"))
    assert (told["server.address"], told["server.port"]) == (address, port)


# Failures


async def test_retries_are_events_of_one_span_that_did_not_fail(keeper, tracing):
    keeper.answers(response(status=503, connection="close"), hang_up)
    observer = OpenTelemetryObserver(tracing.provider)
    async with EnclaveClient(keeper.base_url, retry=NO_WAITS, observer=observer) as client:
        await client.list()
    span = tracing.one("GET /sessions")
    assert events(span) == [
        ("retry", {"error.type": "503", "enclave.attempt": 1, "enclave.wait_seconds": 0.0}),
        ("retry", {"error.type": "APIConnectionError", "enclave.attempt": 2, "enclave.wait_seconds": 0.0}),
    ]
    told = attributes(span)
    assert (told["http.request.resend_count"], told["http.response.status_code"]) == (2, 200)
    assert "error.type" not in told
    assert status(span) == "UNSET"


async def test_a_request_that_failed_says_with_which_status_and_nothing_of_the_body(sim, tracing):
    async with client_of(sim, tracing) as client:
        with pytest.raises(NotFoundError):
            await client.get("s-none")
        sim.faults.respond(500, body=b'{"message": "MARKER"}')
        with pytest.raises(ServerError):
            await client.list()
    for name, code in (("GET /sessions/{id}", 404), ("GET /sessions", 500)):
        span = tracing.one(name)
        assert (status(span), span.status.description, events(span)) == ("ERROR", None, [])
        assert (attributes(span)["error.type"], attributes(span)["http.response.status_code"]) == (str(code), code)
    assert "MARKER" not in tracing.dump()


async def test_a_request_without_an_answer_has_no_status_also_where_an_earlier_attempt_had_one(keeper, tracing):
    keeper.answers(response(status=503, connection="close"), hang_up, hang_up)
    policy = RetryPolicy(attempts=3, wait_seconds=0)
    observer = OpenTelemetryObserver(tracing.provider)
    async with EnclaveClient(keeper.base_url, retry=policy, observer=observer) as client:
        with pytest.raises(APIConnectionError, match="gave up after 2 retries"):
            await client.list()
    told = attributes(tracing.one("GET /sessions"))
    assert "http.response.status_code" not in told
    assert (told["error.type"], told["http.request.resend_count"]) == ("APIConnectionError", 2)


async def test_a_refused_connection_is_told_by_its_type(tracing):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        async with EnclaveClient(url, retry=None, observer=OpenTelemetryObserver(tracing.provider)) as client:
            with pytest.raises(ConnectError):
                await client.list()
            with pytest.raises(ConnectError):
                async with client.session("x"):
                    pass
    assert tracing.tree() == ["GET /sessions", "enclave.session", "  POST /sessions"]
    assert {attributes(span)["error.type"] for span in tracing.spans} == {"ConnectError"}
    assert attributes(tracing.one("enclave.session"))["enclave.session.torn_down"] is False


async def test_a_body_that_cannot_be_read_fails_the_request_although_it_was_answered(keeper, tracing):
    keeper.answers(closing(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n["))
    observer = OpenTelemetryObserver(tracing.provider)
    async with EnclaveClient(keeper.base_url, retry=None, observer=observer) as client:
        with pytest.raises(APIConnectionError):
            await client.list()
    told = attributes(tracing.one("GET /sessions"))
    assert (told["http.response.status_code"], told["error.type"]) == (200, "APIConnectionError")


# Streams


async def test_a_resumed_stream_tells_each_resume_and_its_requests_are_below_it(sim, tracing):
    sim.script([StdoutFrame(text) for text in "abc"], result=1)
    sim.faults.drop_stream(after_frames=2)
    sim.faults.end_stream(after_frames=1)
    with anyio.fail_after(PATIENCE_SECONDS):
        async with client_of(sim, tracing) as client, client.session("x") as session:
            async with session.stream() as frames:
                count = len([frame async for frame in frames])
    assert tracing.tree() == [
        "enclave.session",
        "  POST /sessions",
        "  enclave.stream",
        *["    GET /sessions/{id}/stream"] * 3,
        "  DELETE /sessions/{id}",
    ]
    span = tracing.one("enclave.stream")
    told = attributes(span)
    assert (told["enclave.stream.frames"], told["enclave.stream.resumes"]) == (count, 2)
    assert told["enclave.stream.complete"] is True
    assert [(name, event["error.type"], event["enclave.stream.frames"]) for name, event in events(span)] == [
        ("resume", "APIConnectionError", 2),
        ("resume", "Dropped", 3),
    ]
    assert status(span) == "UNSET"


async def test_a_stream_that_is_opened_at_the_second_attempt_tells_a_retry(sim, tracing):
    sim.script(result=1)
    sim.faults.respond(503, path=STREAM)
    with anyio.fail_after(PATIENCE_SECONDS):
        async with client_of(sim, tracing) as client, client.session("x") as session:
            await session.result()
    span = tracing.one("enclave.stream")
    assert events(span) == [("retry", {"error.type": "503", "enclave.attempt": 1, "enclave.wait_seconds": 0.0})]
    assert [status(request) for request in tracing.named(GET_STREAM)] == ["ERROR", "UNSET"]


async def test_a_stream_that_could_not_be_resumed_failed(sim, tracing):
    sim.script([StdoutFrame("a"), StdoutFrame("b")], result=1)
    sim.faults.drop_stream(after_frames=1, reset=True)
    with anyio.fail_after(PATIENCE_SECONDS):
        async with client_of(sim, tracing, retry=None) as client, client.session("x") as session:
            async with session.stream() as frames:
                with pytest.raises(StreamInterrupted):
                    async for _ in frames:
                        pass
    span = tracing.one("enclave.stream")
    assert (status(span), attributes(span)["error.type"]) == ("ERROR", "StreamInterrupted")
    assert (attributes(span)["enclave.stream.complete"], attributes(span)["enclave.stream.frames"]) == (False, 1)
    assert status(tracing.one("enclave.session")) == "UNSET"  # the block saw to it


async def test_leaving_a_stream_early_is_no_failure(sim, tracing):
    sim.script([StdoutFrame("a")], hold=True)
    with anyio.fail_after(PATIENCE_SECONDS):
        async with client_of(sim, tracing) as client, client.session("x") as session:
            async with session.stream() as frames:
                await anext(frames)
    span = tracing.one("enclave.stream")
    assert (status(span), attributes(span)["enclave.stream.complete"]) == ("UNSET", False)


# How sessions end


async def test_a_workload_that_failed_is_told_and_is_no_failure_of_the_session(sim, tracing):
    sim.script(exit_code=3)
    sim.script(exit_code=0, kill_reason="memory_exceeded")
    with anyio.fail_after(PATIENCE_SECONDS):
        async with client_of(sim, tracing) as client:
            for _ in range(2):
                async with client.session("x", language="node") as session:
                    await session.result()
    failed, killed = tracing.named("enclave.session")
    assert (attributes(failed)["enclave.session.phase"], attributes(failed)["enclave.session.exit_code"]) == (
        "failed",
        3,
    )
    assert attributes(killed)["enclave.session.phase"] == "killed"
    assert attributes(killed)["enclave.session.kill_reason"] == "memory_exceeded"
    assert "enclave.session.exit_code" not in attributes(killed)
    assert attributes(killed)["enclave.session.language"] == "node"
    assert status(failed) == status(killed) == "UNSET"


async def test_what_leaves_the_block_fails_the_session_by_its_type_alone(sim, tracing):
    class Odd(Exception):
        pass

    with anyio.fail_after(PATIENCE_SECONDS):
        async with client_of(sim, tracing) as client:
            for error in (Odd("MARKER"), ExceptionGroup("MARKER", [Odd("MARKER")]), KeyboardInterrupt("MARKER")):
                sim.script(hold=True)
                with pytest.raises(type(error)):
                    async with client.session("x"):
                        raise error
            sim.script(exit_code=1)
            with pytest.raises(WorkloadFailed):
                async with client.session("x") as session:
                    (await session.result()).raise_for_exit()
    sessions = tracing.named("enclave.session")
    assert [attributes(span)["error.type"].rpartition(".")[2] for span in sessions] == [
        *("Odd", "ExceptionGroup", "KeyboardInterrupt", "WorkloadFailed"),
    ]
    assert all((status(span), span.status.description) == ("ERROR", None) for span in sessions)
    assert all(attributes(span)["enclave.session.torn_down"] for span in sessions)
    assert "MARKER" not in tracing.dump()


async def test_a_teardown_that_fails_is_told(sim, tracing):
    sim.faults.respond(500, method="DELETE", times=2)
    with anyio.fail_after(PATIENCE_SECONDS):
        async with client_of(sim, tracing) as client:
            sim.script(hold=True)
            with pytest.raises(APIStatusError):
                async with client.session("x"):
                    pass
            sim.script(hold=True)
            with pytest.raises(ZeroDivisionError):
                async with client.session("x"):
                    raise ZeroDivisionError
    first, second = tracing.named("enclave.session")
    assert (attributes(first)["error.type"], attributes(first)["enclave.session.torn_down"]) == ("500", False)
    assert attributes(second)["error.type"] == "ZeroDivisionError"
    assert attributes(second)["enclave.session.torn_down"] is False
    assert {status(span) for span in tracing.named("DELETE /sessions/{id}")} == {"ERROR"}


# Cancellation


async def test_a_cancelled_block_is_no_failure_and_its_requests_that_were_cut_off_are(sim, tracing):
    sim.script(hold=True)
    with anyio.fail_after(PATIENCE_SECONDS):
        async with client_of(sim, tracing) as client:
            sim.faults.delay(30, path=RESULT)
            with anyio.CancelScope() as scope:
                async with client.session("x") as session:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(client._http.request, "GET", f"/sessions/{session.id}/result")
                        await sim.until(lambda sim: not sim.faults.armed)
                        scope.cancel()
    assert tracing.tree() == [
        "enclave.session",
        "  POST /sessions",
        "  GET /sessions/{id}/result",
        "  DELETE /sessions/{id}",
    ]
    span = tracing.one("enclave.session")
    assert status(span) == "UNSET"
    assert attributes(span)["enclave.session.cancelled"] is True
    assert attributes(span)["enclave.session.torn_down"] is True
    cut = tracing.one("GET /sessions/{id}/result")
    assert (status(cut), attributes(cut)["error.type"]) == ("ERROR", "cancelled")
    assert status(tracing.one("DELETE /sessions/{id}")) == "UNSET"


async def test_a_creation_that_was_cancelled_still_tells_which_session_it_made_and_that_it_is_gone(sim, tracing):
    sim.script(hold=True)
    delay = sim.faults.delay(0.2, method="POST", when="after")
    with anyio.fail_after(PATIENCE_SECONDS):
        async with client_of(sim, tracing) as client, anyio.create_task_group() as tasks:

            async def create() -> None:
                async with client.session("x"):
                    raise AssertionError("was to be cancelled")

            tasks.start_soon(create)
            await sim.until(lambda _: delay.hits == 1)
            tasks.cancel_scope.cancel()
    assert tracing.tree() == ["enclave.session", "  POST /sessions", "  DELETE /sessions/{id}"]
    told = attributes(tracing.one("enclave.session"))
    assert told["enclave.session.id"] in sim.phases
    assert (told["enclave.session.cancelled"], told["enclave.session.torn_down"]) == (True, True)


async def test_limits_that_were_exceeded_are_told_by_a_real_workload(sim, tracing):
    with anyio.fail_after(PATIENCE_SECONDS):
        async with client_of(sim, tracing) as client:
            async with client.session("while True: pass", limits=SessionLimits(wall_clock_ms=200)) as session:
                await session.result()
    told = attributes(tracing.one("enclave.session"))
    assert (told["enclave.session.phase"], told["enclave.session.kill_reason"]) == ("killed", "wall_clock_exceeded")


async def test_a_request_that_ran_out_of_retries_failed_with_the_last_of_its_errors(sim, tracing):
    sim.faults.respond(503, times=9)
    async with client_of(sim, tracing, retry=RetryPolicy(attempts=2, wait_seconds=0)) as client:
        with pytest.raises(ServiceUnavailableError):
            await client.list()
    span = tracing.one("GET /sessions")
    assert (status(span), attributes(span)["error.type"]) == ("ERROR", "503")
    assert [name for name, _ in events(span)] == ["retry"]
