"""A caller that is cancelled leaves no session, no socket, and no connection of the proxy to its upstream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import anyio
import pytest

from enclave import EnclaveClient
from tests.support.network import Network

CODE = "played by a script"


async def read_a_stream(client: EnclaveClient) -> None:
    async with client.session(CODE) as session, session.stream() as frames:
        async for _ in frames:
            pass


async def wait_for_a_result(client: EnclaveClient) -> None:
    async with client.session(CODE) as session:
        await session.result()


async def map_a_request(client: EnclaveClient) -> None:
    await client.map([CODE])


async def open_clients(network: Network, stack: AsyncExitStack) -> list[EnclaveClient]:
    """A client for each route, and a session that only runs, for it to create."""
    for route in network.routes:
        route.sim.script(hold=True)
    return [await stack.enter_async_context(route.client()) for route in network.routes]


async def every_stream_is_open(network: Network) -> None:
    for sim in network.sims:
        routes = [route for route in network.routes if route.sim is sim]
        await sim.until(lambda sim, routes=routes: sim.open_streams == len(routes))


async def no_stream_is_open(network: Network) -> None:
    for sim in network.sims:
        await sim.until(lambda sim: sim.open_streams == 0)
    for upstream in network.upstreams:
        await upstream.until(lambda upstream: upstream.open_connections == 0)


async def no_session_is_left(network: Network) -> None:
    for sim in network.sims:
        await sim.until(lambda sim: bool(sim.phases) and set(sim.phases.values()) == {"torn_down"})
        await sim.until(lambda sim: sim.unreclaimed_sessions == 0)


@pytest.mark.parametrize("use", [read_a_stream, wait_for_a_result, map_a_request])
async def test_a_cancelled_caller_leaves_no_session_and_no_connection(
    patient: Network, use: Callable[[EnclaveClient], Awaitable[None]]
):
    with anyio.fail_after(60):
        async with AsyncExitStack() as stack:
            clients = await open_clients(patient, stack)
            async with anyio.create_task_group() as callers:
                for client in clients:
                    callers.start_soon(use, client)
                await every_stream_is_open(patient)
                callers.cancel_scope.cancel()
            await no_session_is_left(patient)
            await no_stream_is_open(patient)
            for client in clients:
                assert (await client.health()).ok
    assert patient.client_sockets() == 0


async def test_a_caller_cancelled_while_its_session_is_created_leaves_none(patient: Network):
    with anyio.fail_after(60):
        async with AsyncExitStack() as stack:
            clients = await open_clients(patient, stack)
            async with anyio.create_task_group() as callers:
                # So long that no create is answered before all have come, which takes a busy machine a while.
                for sim in patient.sims:
                    sim.faults.delay(4.0, when="after", method="POST", times=len(patient.routes))
                for client in clients:
                    callers.start_soon(read_a_stream, client)
                for sim in patient.sims:
                    routes = [route for route in patient.routes if route.sim is sim]
                    await sim.until(lambda sim, routes=routes: len(sim.phases) == len(routes))
                callers.cancel_scope.cancel()
            await no_session_is_left(patient)
        for sim in patient.sims:
            assert not any(request.path.endswith("/stream") for request in sim.requests)
    assert patient.client_sockets() == 0


async def test_a_stream_that_is_left_closes_the_connection_to_the_upstream_too(patient: Network):
    with anyio.fail_after(60):
        async with AsyncExitStack() as stack:
            clients = await open_clients(patient, stack)
            sessions = [await client.run(CODE) for client in clients]
            async with anyio.create_task_group() as readers:
                for session in sessions:
                    readers.start_soon(session.result)
                await every_stream_is_open(patient)
                readers.cancel_scope.cancel()
            await no_stream_is_open(patient)
            for session in sessions:
                assert (await session.refresh()).phase == "running"
    assert patient.client_sockets() == 0
