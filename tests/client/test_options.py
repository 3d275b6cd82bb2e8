"""`with_options`, for single calls, and `ssl_context`, for authorities of one's own."""

from __future__ import annotations

import anyio
import httpx
import pytest

from enclave import (
    APITimeoutError,
    ConfigurationError,
    ConnectError,
    EnclaveClient,
    RetryPolicy,
    ServiceUnavailableError,
    UsageError,
)
from tests.support import PATIENCE_SECONDS
from tests.support.plane import ControlPlane, silence
from tests.support.scripted_transport import ScriptedTransport
from tests.support.tls import server_tls, trusting

OK = httpx.Response(200, json=[])
BUSY = httpx.Response(503)


async def test_other_timeouts_hold_for_the_view_and_not_for_the_client(server: ControlPlane):
    server.otherwise = silence
    with anyio.fail_after(PATIENCE_SECONDS):
        async with EnclaveClient(server.base_url, retry=None, timeout=60) as client:
            with pytest.raises(APITimeoutError):
                await client.with_options(timeout=0.05).get("s-1")
            with anyio.move_on_after(0.3) as scope:
                await client.get("s-1")
            assert scope.cancelled_caught


async def test_other_retries_hold_for_the_view_and_not_for_the_client():
    transport = ScriptedTransport(BUSY, BUSY, OK)
    async with EnclaveClient("http://127.0.0.1:1", transport=transport, retry=RetryPolicy(wait_seconds=0)) as client:
        with pytest.raises(ServiceUnavailableError):
            await client.with_options(retry=None).list()
        assert await client.list() == []


async def test_a_view_shares_the_connections_and_their_end():
    async with EnclaveClient("http://127.0.0.1:1", transport=ScriptedTransport(OK)) as client:
        view = client.with_options(timeout=5)
    with pytest.raises(UsageError):
        await view.list()


def test_what_cannot_be_used_is_refused_at_once():
    client = EnclaveClient("http://127.0.0.1:1")
    with pytest.raises(ConfigurationError, match=r"timeout\.connect"):
        client.with_options(timeout=-1)


async def test_a_private_authority_is_trusted_by_a_context_of_the_callers():
    with anyio.fail_after(PATIENCE_SECONDS):
        async with ControlPlane().serve(tls=server_tls()) as plane:
            async with EnclaveClient(plane.base_url, ssl_context=trusting()) as client:
                assert (await client.health()).ok
            async with EnclaveClient(plane.base_url, retry=None) as client:
                with pytest.raises(ConnectError, match="certificate"):
                    await client.health()
