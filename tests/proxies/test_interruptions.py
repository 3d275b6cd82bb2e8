"""A proxy that is reloaded, and an upstream that is gone for a moment, cut open streams. Not a frame is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager

import anyio
import pytest

from enclave import EnclaveClient, RetryPolicy, ServerError, SessionHandle
from enclave.simulator import Script
from enclave.types import StdoutFrame, StreamFrame
from tests.support.network import Network, Route

RETRY = RetryPolicy(attempts=10)
RELOADS = 3
ANSWER = 285
FRAMES = [StdoutFrame(f"{number} é\n") for number in range(50)]


class Reading:
    """A session whose stream is read and whose result is waited for, while the test decides what the session does."""

    def __init__(self, route: Route, client: EnclaveClient, script: Script, session: SessionHandle) -> None:
        self.route = route
        self.client = client
        self.script = script
        self.session = session
        self.frames: list[StreamFrame] = []
        self.value: int | None = None

    async def read(self) -> None:
        async with self.session.stream() as stream:
            async for frame in stream:
                self.frames.append(frame)

    async def wait_for_result(self) -> None:
        self.value = (await self.session.result(int)).value

    async def connected(self, times: int) -> None:
        """Wait until its two streams have come through to the control plane so many times each, or together."""
        await self.route.stream_requests(self.session.id, 2 * times)


@asynccontextmanager
async def reading(network: Network) -> AsyncIterator[list[Reading]]:
    """Sessions on all routes, each with two streams. After the block they end, and must have been read whole."""
    readings: list[Reading] = []
    async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
        for route in network.routes:
            script = route.sim.script(FRAMES, result=ANSWER, hold=True)
            client = await stack.enter_async_context(route.client(RETRY))
            one = Reading(route, client, script, await client.run("played by the script"))
            readings.append(one)
            tasks.start_soon(one.read)
            tasks.start_soon(one.wait_for_result)
            await one.connected(times=1)
        yield readings
        for one in readings:
            one.script.push(*FRAMES)
            one.script.release()
    for one in readings:
        assert one.value == ANSWER, one.route.name
        assert one.frames == await one.route.frames_without_a_proxy(one.session.id), one.route.name


async def test_a_reload_of_the_proxy_loses_no_frame_and_fails_no_request(patient: Network):
    with anyio.fail_after(120):
        async with reading(patient) as readings:
            for turn in range(1, RELOADS + 1):
                for proxy in patient.proxies:
                    proxy.reload()
                for one in readings:
                    one.script.push(StdoutFrame(f"turn {turn}"))
                    await one.connected(times=1 + turn)
                    assert (await one.session.refresh()).id == one.session.id


async def test_an_upstream_that_is_gone_for_a_moment_loses_no_frame(patient: Network):
    with anyio.fail_after(120):
        async with reading(patient) as readings:
            with ExitStack() as stack:
                for upstream in patient.upstreams:
                    stack.enter_context(upstream.gone())
                for one in readings:
                    async with one.route.client(retry=None) as impatient_client:
                        with pytest.raises(ServerError) as caught:
                            await impatient_client.get(one.session.id)
                        assert caught.value.status == 502
                for upstream in patient.upstreams:
                    routes = sum(one.route.upstream is upstream for one in readings)
                    await upstream.until(lambda upstream, routes=routes: upstream.refused >= 3 * routes)
            for one in readings:
                await one.connected(times=2)
