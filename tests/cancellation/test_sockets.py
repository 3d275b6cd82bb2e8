"""Cancel at random points over real sockets, through our own transport and through httpx's, and count what is open."""

from __future__ import annotations

import gc
import random
import ssl
from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress
from threading import Thread
from typing import Any

import anyio
import httpx
import psutil
import pytest

from enclave import EnclaveClient
from tests.support import PATIENCE_SECONDS
from tests.support.plane import ControlPlane, Gate
from tests.support.releases import anyio_closes_its_sockets
from tests.support.stepping import cancel_at, pending_tasks, ways

pytestmark = pytest.mark.anyio

ATTEMPTS = 6
EARLY_STEP = 3  # always before the end
LATEST_STEP = 80

TLS = ssl.create_default_context()  # never used, and takes httpx's transport long to make each time


def stock() -> httpx.AsyncHTTPTransport:
    return httpx.AsyncHTTPTransport(verify=TLS)


TRANSPORTS = [pytest.param(None, id="own"), pytest.param(stock, id="stock", marks=anyio_closes_its_sockets)]

Scenario = Callable[[EnclaveClient], Awaitable[Any]]


async def session_block(client: EnclaveClient) -> None:
    async with client.session("pass") as session:
        await session.result()


async def stream(client: EnclaveClient) -> None:
    async with client.stream("s-given") as frames:
        async for _ in frames.batches():
            pass


async def fan_out(client: EnclaveClient) -> None:
    async with client.fan_out(["pass"] * 3, max_concurrency=3) as outcomes:
        async for outcome in outcomes:
            assert outcome.verdict == "succeeded"


async def short_life(client: EnclaveClient) -> None:
    async with client:
        await client.result("s-given")


@pytest.mark.parametrize("scenario", [session_block, stream, fan_out, short_life])
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_cancelling_over_sockets_leaves_none_open(
    scenario: Scenario, transport: Callable[[], Any] | None
) -> None:
    chance = random.Random(f"{scenario.__name__} {transport}")
    before = pending_tasks()
    cancelled = 0
    with ControlPlane().in_thread() as plane, anyio.fail_after(PATIENCE_SECONDS):
        for way in ways():
            for step in [EARLY_STEP] + [chance.randrange(LATEST_STEP) for _ in range(ATTEMPTS - 1)]:
                client = EnclaveClient(plane.base_url, transport=transport() if transport else None)
                attempt = await cancel_at(step, lambda client=client: scenario(client), way)
                assert attempt.error is None, attempt
                assert attempt.cancelled != attempt.completed, attempt
                cancelled += attempt.cancelled
                assert plane.sessions == {}
                assert pending_tasks() <= before
                if scenario is not short_life:
                    assert (await client.health()).ok
                await client.aclose()
                assert client_sockets(plane.port) == []
        assert cancelled > 0
    gc.collect()  # a generator left suspended, or a socket left to the collector, shows as a warning: an error here


def client_sockets(server_port: int) -> list[Any]:
    """The sockets of this process that are connected to the control plane."""
    connections = psutil.Process().net_connections("tcp")
    return [each for each in connections if each.raddr and each.raddr.port == server_port]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_stream_that_is_left_early_closes_its_connection_at_once(transport: Callable[[], Any] | None) -> None:
    with ControlPlane().in_thread() as plane, anyio.fail_after(PATIENCE_SECONDS):
        async with EnclaveClient(plane.base_url, transport=transport() if transport else None) as client:
            async with client.stream("s-given") as frames:
                await anext(frames)
            assert len(client_sockets(plane.port)) <= 1  # an idle connection may wait for the next request
        assert client_sockets(plane.port) == []
    gc.collect()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_stream_that_is_cancelled_half_read_closes_its_connection(transport: Callable[[], Any] | None) -> None:
    with ControlPlane().in_thread() as plane, anyio.fail_after(PATIENCE_SECONDS):
        gate = plane.hold("GET half")
        async with EnclaveClient(plane.base_url, transport=transport() if transport else None) as client:
            with anyio.CancelScope() as scope:
                async with client.stream("s-given") as frames, anyio.create_task_group() as task_group:
                    task_group.start_soon(cancel_when_reached, scope, gate)
                    async for _ in frames:
                        pass
            assert scope.cancelled_caught
            assert client_sockets(plane.port) == []
        gate.opened.set()
    gc.collect()


async def leave_in_another_task(plane: ControlPlane, gate: Gate, left: list[str]) -> None:
    opened, closed = anyio.Event(), anyio.Event()

    async def leave() -> None:
        await opened.wait()
        with suppress(RuntimeError):  # trio's
            await frames.__aexit__(None, None, None)
        closed.set()

    async with EnclaveClient(plane.base_url) as client, anyio.create_task_group() as task_group:
        task_group.start_soon(leave)
        frames = client.stream("s-given")
        await frames.__aenter__()
        await gate.wait()
        opened.set()
        await closed.wait()
        assert client_sockets(plane.port) == []
        left.append("and the event loop goes on")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_stream_that_another_task_leaves_is_closed(backend: str) -> None:
    """As the finalizer of an async generator does. It is a mistake under trio, which says so in the owner's task."""
    left: list[str] = []

    def run() -> None:
        with suppress(RuntimeError) if backend == "trio" else nullcontext():
            anyio.run(leave_in_another_task, plane, gate, left, backend=backend)

    with ControlPlane().in_thread() as plane:
        gate = plane.hold("GET half")
        # In a thread, for an event loop that is brought to a halt would also hold up whoever times it.
        thread = Thread(target=run, daemon=True)
        thread.start()
        thread.join(PATIENCE_SECONDS)
        gate.opened.set()
    assert left == ["and the event loop goes on"]
    assert not thread.is_alive()
    gc.collect()


async def cancel_when_reached(scope: anyio.CancelScope, gate: Gate) -> None:
    await gate.wait()
    scope.cancel()
