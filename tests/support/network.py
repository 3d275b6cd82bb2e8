"""Control planes behind nginx and HAProxy, in the ways in which those are set up."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import psutil
import trustme

from enclave import EnclaveClient, RetryPolicy
from enclave.simulator import Bounds, Framing, Simulator
from enclave.types import StdoutFrame, StreamFrame

from . import proxies
from .proxies import Proxy, Site
from .upstream import Upstream

ANY_LONG_TIME_SECONDS = 3600
DEFAULT_RETRY = RetryPolicy()


class Route(msgspec.Struct, frozen=True, eq=False):
    """One way from a client through a proxy to a control plane."""

    name: str
    base_url: str
    ssl_context: ssl.SSLContext
    upstream: Upstream
    sim: Simulator

    def client(self, retry: RetryPolicy | None = DEFAULT_RETRY) -> EnclaveClient:
        return EnclaveClient(self.base_url, api_key=self.sim.api_key, ssl_context=self.ssl_context, retry=retry)

    async def create_without_a_proxy(self, frames: Iterable[StdoutFrame | float], **script: Any) -> str:
        """Create a session that plays these frames, by a request to the control plane itself. Gives its id."""
        async with EnclaveClient(self.sim.base_url, api_key=self.sim.api_key) as client:
            self.sim.script(frames, **script)
            return (await client.run("played by a script")).id

    async def stream_requests(self, session_id: str, times: int) -> None:
        """Wait until the control plane was asked for this session's stream so many times."""
        path = f"/sessions/{session_id}/stream"
        await self.sim.until(lambda sim: sum(request.path == path for request in sim.requests) >= times)

    async def frames_without_a_proxy(self, session_id: str) -> list[StreamFrame]:
        """All frames of a session that has ended, asked of the control plane itself."""
        async with EnclaveClient(self.sim.base_url, api_key=self.sim.api_key) as client:
            async with client.stream(session_id) as frames:
                return [frame async for frame in frames]


class Network(msgspec.Struct, frozen=True):
    """All routes, and what they lead through."""

    routes: list[Route]
    proxies: list[Proxy]
    sims: list[Simulator]
    upstreams: list[Upstream]

    def client_sockets(self) -> int:
        """How many connections to the proxies this process has."""
        ports = {int(route.base_url.rpartition(":")[2]) for route in self.routes}
        connections = psutil.Process().net_connections("tcp")
        return sum(bool(connection.raddr) and connection.raddr.port in ports for connection in connections)


@asynccontextmanager
async def serve_network(folder: Path, *, silence_seconds: int) -> AsyncIterator[Network]:
    """All routes. The proxies close a stream that is silent for so long, and the control planes send no heartbeats."""
    ca = trustme.CA()
    ssl_context = ssl.create_default_context()
    ca.configure_trust(ssl_context)
    network = Network(routes=[], proxies=[], sims=[], upstreams=[])
    async with AsyncExitStack() as stack:
        behind: dict[Site, tuple[Upstream, Simulator]] = {}
        for has_ids in (True, False):
            bounds = Bounds(heartbeat_seconds=ANY_LONG_TIME_SECONDS, max_running=1000)
            simulator = Simulator(framing=Framing(ids=has_ids), bounds=bounds)
            sim = await stack.enter_async_context(simulator.serve())
            network.sims.append(sim)
            for http in ("1.0", "1.1"):
                upstream = Upstream(int(sim.base_url.rpartition(":")[2]), http=http)
                network.upstreams.append(await stack.enter_async_context(upstream.serve()))
                behind |= dict.fromkeys(_sites(upstream.port, http), (upstream, sim))
        for program in ("nginx", "haproxy"):
            sites = [site for site in behind if site.program == program]
            proxy = stack.enter_context(proxies.serve(program, sites, folder, ca, silence_seconds=silence_seconds))
            network.proxies.append(proxy)
            for site, url in proxy.urls.items():
                upstream, sim = behind[site]
                name = f"{site}, {'ids' if sim.framing.ids else 'no ids'}"
                network.routes.append(Route(name, url, ssl_context, upstream, sim))
        yield network


def _sites(port: int, http: str) -> list[Site]:
    on_off = (True, False)
    nginx = [
        Site(program="nginx", port=port, http=http, buffering=buffering, gzip=gzip)
        for buffering, gzip in product(on_off, on_off)
    ]
    return nginx + [Site(program="haproxy", port=port, http=http, gzip=gzip) for gzip in on_off]
