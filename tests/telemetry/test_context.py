"""Which span is whose parent: across tasks, loops, generators and contexts, and how the trace goes on to the server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Callable

import anyio
import pytest

pytest.importorskip("opentelemetry.sdk", reason="the SDK of OpenTelemetry is not installed")

from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from enclave import EnclaveClient, StdoutFrame
from enclave.opentelemetry import OpenTelemetryObserver
from enclave.simulator import Simulator
from tests.support import NO_WAITS, PATIENCE_SECONDS
from tests.support.messages import event, response
from tests.support.spans import Tracing


@pytest.fixture
async def client(sim: Simulator, tracing: Tracing) -> AsyncIterator[EnclaveClient]:
    observer = OpenTelemetryObserver(tracing.provider)
    async with EnclaveClient(sim.base_url, api_key=sim.api_key, retry=NO_WAITS, observer=observer) as client:
        yield client


def current_name() -> str | None:
    return getattr(trace.get_current_span(), "name", None)


async def test_inside_the_block_the_session_is_current_and_outside_what_was_before(sim, client, tracing):
    sim.script(hold=True)
    with anyio.fail_after(PATIENCE_SECONDS), tracing.tracer.start_as_current_span("caller"):
        async with client.session("x"):
            with tracing.tracer.start_as_current_span("step"):
                await client.list()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.list)
            assert current_name() == "enclave.session"
        assert current_name() == "caller"
    assert current_name() is None
    assert tracing.tree() == [
        "caller",
        "  enclave.session",
        "    POST /sessions",
        "    step",
        "      GET /sessions",
        "    GET /sessions",
        "    DELETE /sessions/{id}",
    ]


async def test_a_failing_block_leaves_nothing_current_either(sim, client):
    sim.script(hold=True)
    with anyio.fail_after(PATIENCE_SECONDS):
        with pytest.raises(ZeroDivisionError):
            async with client.session("x"):
                raise ZeroDivisionError
        assert current_name() is None
        with pytest.raises(TypeError):
            async with client.session(5):
                pass
        assert current_name() is None


async def test_a_stream_is_below_the_span_it_was_entered_in_and_is_not_current_in_its_block(sim, client, tracing):
    sim.script([StdoutFrame("a"), StdoutFrame("b")], result=1)
    sim.faults.drop_stream(after_frames=2)
    with anyio.fail_after(PATIENCE_SECONDS):
        handle = await client.run("x")
        stream = handle.stream()  # made outside. What counts is where it is entered

        async def follow() -> None:
            with tracing.tracer.start_as_current_span("follow"):
                async with stream as frames:
                    async for _ in frames:
                        assert current_name() == "follow"
                assert current_name() == "follow"

        with tracing.tracer.start_as_current_span("spawner"):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(follow)
    assert tracing.tree() == [
        "POST /sessions",
        "spawner",
        "  follow",
        "    enclave.stream",
        *["      GET /sessions/{id}/stream"] * 2,
    ]


async def test_sessions_at_once_do_not_mix(sim, client, tracing):
    count = 8

    async def one(number: int) -> None:
        with tracing.tracer.start_as_current_span(f"job {number}"):
            async with client.session(f"enclave.result({number})") as session:
                await session.result(int)
            assert current_name() == f"job {number}"

    for number in range(count):
        sim.script([StdoutFrame("a")], result=number)
    with anyio.fail_after(PATIENCE_SECONDS):
        async with anyio.create_task_group() as tasks:
            for number in range(count):
                tasks.start_soon(one, number)
    lines = tracing.tree()
    below = ["POST /sessions", "enclave.stream", "  GET /sessions/{id}/stream", "GET /sessions/{id}/result"]
    expected = ["  enclave.session", *(f"    {name}" for name in [*below, "DELETE /sessions/{id}"])]
    size = 1 + len(expected)
    assert len(lines) == count * size
    assert {lines[start] for start in range(0, len(lines), size)} == {f"job {number}" for number in range(count)}
    assert all(lines[start + 1 : start + size] == expected for start in range(0, len(lines), size))
    ids = {span.context.span_id: span.attributes["enclave.session.id"] for span in tracing.named("enclave.session")}
    for span in tracing.named("DELETE /sessions/{id}"):
        assert ids[span.parent.span_id] == span.attributes["enclave.session.id"]


async def test_the_sessions_of_a_fan_out_are_below_the_span_it_was_entered_in(sim, client, tracing):
    for number in range(3):
        sim.script(result=number)
    with anyio.fail_after(PATIENCE_SECONDS), tracing.tracer.start_as_current_span("batch"):
        outcomes = await client.map(["x"] * 3, max_concurrency=2)
        assert current_name() == "batch"
    assert [outcome.verdict for outcome in outcomes] == ["succeeded"] * 3
    assert [line for line in tracing.tree() if not line.startswith("    ")] == ["batch", *["  enclave.session"] * 3]


async def test_a_token_callable_runs_below_the_request_it_is_for(sim, tracing):
    async def token() -> str:
        with tracing.tracer.start_as_current_span("fetch token"):
            return sim.issue_token()

    observer = OpenTelemetryObserver(tracing.provider)
    async with EnclaveClient(sim.base_url, token=token, observer=observer) as client:
        await client.list()
    assert tracing.tree() == ["GET /sessions", "  fetch token"]


async def test_wherever_it_was_cancelled_every_span_ends_and_none_stays_current(sim, client, tracing):
    with anyio.fail_after(60):
        for step in range(40):
            sim.script([StdoutFrame("a")], result=1)
            sim.faults.drop_stream(after_frames=1)
            with tracing.tracer.start_as_current_span("caller"):
                with anyio.move_on_after(step * 0.001):
                    async with client.session("x") as session:
                        await session.result(int)
                assert current_name() == "caller"
            assert tracing.open == 0
            sim.faults.clear()
        # Whatever was cut off, all of it is below its own caller, and says how it ended.
        assert {line for line in tracing.tree() if not line.startswith(" ")} == {"caller"}
        assert {span.attributes["error.type"] for span in tracing.spans if "error.type" in span.attributes} <= {
            "cancelled"
        }
        assert sim.unreclaimed_sessions == 0


# Contexts that do not match


async def in_tasks(*calls: Callable[[], object]) -> None:
    """Each in a task, and so a context, of its own, one after the other."""
    for call in calls:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)


async def test_a_block_that_is_left_in_another_context_logs_no_error_and_ends_its_span(sim, client, tracing):
    sim.script(hold=True)
    block = client.session("x")

    async def enter() -> None:
        await block.__aenter__()

    async def leave() -> None:
        with tracing.tracer.start_as_current_span("elsewhere"):
            await block.__aexit__(None, None, None)
            assert current_name() == "elsewhere"

    with anyio.fail_after(PATIENCE_SECONDS):
        await in_tasks(enter, leave)
    assert current_name() is None
    assert tracing.tree() == ["enclave.session", "  POST /sessions", "elsewhere", "  DELETE /sessions/{id}"]


async def test_a_block_that_is_left_in_a_copy_of_its_context_is_current_in_neither(sim, client, tracing):
    for _ in range(2):
        sim.script(hold=True)
    with anyio.fail_after(PATIENCE_SECONDS), tracing.tracer.start_as_current_span("caller"):
        block = client.session("x")
        await block.__aenter__()

        async def leave() -> None:
            await block.__aexit__(None, None, None)
            assert current_name() == "caller"

        await in_tasks(leave)
        # Here the ended session is current still: nobody can change another context. It is nobody's parent any more.
        async with client.session("y"):
            assert current_name() == "enclave.session"
        assert current_name() == "caller"
    assert [line for line in tracing.tree() if not line.startswith("    ")] == ["caller", *["  enclave.session"] * 2]


async def test_a_generator_that_holds_a_session_and_is_closed_elsewhere_leaves_no_trace_behind(sim, client, tracing):
    async def sessions():
        async with client.session("x") as session:
            yield session

    with anyio.fail_after(PATIENCE_SECONDS):
        for _ in range(3):
            sim.script(hold=True)
            generator = sessions()
            await anext(generator)

            async def close(generator=generator):
                await generator.aclose()

            await in_tasks(close)
        await client.list()
    assert [line for line in tracing.tree() if not line.startswith(" ")] == [*["enclave.session"] * 3, "GET /sessions"]
    assert {span.attributes["enclave.session.torn_down"] for span in tracing.named("enclave.session")} == {True}


async def test_blocks_that_are_left_in_the_wrong_order_leave_nothing_current(sim, client, tracing):
    for _ in range(2):
        sim.script(hold=True)
    with anyio.fail_after(PATIENCE_SECONDS):
        first, second = client.session("x"), client.session("y")
        await first.__aenter__()
        await second.__aenter__()
        await first.__aexit__(None, None, None)
        assert current_name() == "enclave.session"
        await second.__aexit__(None, None, None)
        assert current_name() is None


# On to the server


def traceparent(span) -> str:
    return f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-{span.context.trace_flags:02x}"


async def test_each_attempt_carries_the_request_s_own_trace_context(keeper, tracing):
    keeper.answers(response(status=503))
    observer = OpenTelemetryObserver(tracing.provider)
    with tracing.tracer.start_as_current_span("caller"):
        token = context.attach(baggage.set_baggage("tenant", "a b"))
        async with EnclaveClient(keeper.base_url, api_key="ek_a_b", retry=NO_WAITS, observer=observer) as client:
            await client.list()
        context.detach(token)
    expected = traceparent(tracing.one("GET /sessions"))
    assert [request.values("traceparent") for request in keeper.requests] == [[expected], [expected]]
    assert [request.values("baggage") for request in keeper.requests] == [["tenant=a+b"]] * 2


async def test_each_connection_of_a_stream_carries_the_trace_context_of_its_own_request(keeper, tracing):
    first = b'id: 1\ndata: {"kind":"stdout","data":"a"}\n\n'
    keeper.streams(first)
    keeper.streams(event({"kind": "end"}, "2"))
    observer = OpenTelemetryObserver(tracing.provider)
    with anyio.fail_after(PATIENCE_SECONDS):
        async with EnclaveClient(keeper.base_url, api_key="ek_a_b", retry=NO_WAITS, observer=observer) as client:
            async with client.stream("s-1") as frames:
                assert len([frame async for frame in frames]) == 2
    spans = tracing.named("GET /sessions/{id}/stream")
    assert [request.values("traceparent") for request in keeper.requests] == [[traceparent(span)] for span in spans]
    assert len({request.headers["traceparent"] for request in keeper.requests}) == 2
    assert {span.context.trace_id for span in spans} == {tracing.one("enclave.stream").context.trace_id}
    assert keeper.requests[1].values("last-event-id") == ["1"]


async def test_nothing_is_sent_along_where_that_is_switched_off(keeper, tracing):
    observer = OpenTelemetryObserver(tracing.provider, propagate=False)
    async with EnclaveClient(keeper.base_url, observer=observer) as client:
        await client.list()
    assert not keeper.requests[0].headers.keys() & {"traceparent", "tracestate", "baggage"}
    assert tracing.tree() == ["GET /sessions"]


async def test_a_trace_that_is_not_sampled_goes_on_as_that_and_without_a_provider_there_is_none(keeper):
    tracing = Tracing(ALWAYS_OFF)
    for provider in (tracing.provider, trace.NoOpTracerProvider()):
        observer = OpenTelemetryObserver(provider)
        async with EnclaveClient(keeper.base_url, observer=observer) as client:
            await client.list()
    assert tracing.spans == []
    flags = int(keeper.requests[0].headers["traceparent"].rpartition("-")[2], 16)
    assert flags & 1 == 0
    assert "traceparent" not in keeper.requests[1].headers


def test_a_global_provider_that_is_set_after_the_observer_was_made_gets_the_spans():
    program = """
import anyio
from enclave import ConnectError, EnclaveClient
from enclave.opentelemetry import OpenTelemetryObserver

observer = OpenTelemetryObserver()

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)

async def main():
    async with EnclaveClient("http://127.0.0.1:1", retry=None, observer=observer) as client:
        try:
            await client.list()
        except ConnectError:
            print([span.name for span in exporter.get_finished_spans()])

anyio.run(main)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "['GET /sessions']\n")
