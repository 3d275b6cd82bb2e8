"""`with_options`, for single calls, and `ssl_context`, for authorities of one's own."""

from __future__ import annotations

import ssl

import anyio
import anyio.streams.tls
import httpx
import pytest
import trustme

from enclave import (
    APITimeoutError,
    ConfigurationError,
    ConnectError,
    EnclaveClient,
    RetryPolicy,
    ServiceUnavailableError,
    UsageError,
)
from tests.support.scripted_transport import ScriptedTransport

OK = httpx.Response(200, json=[])
BUSY = httpx.Response(503)


async def test_other_timeouts_hold_for_the_view_and_not_for_the_client(silent_server):
    with anyio.fail_after(10):
        async with EnclaveClient(silent_server, retry=None, timeout=60) as client:
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
    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_side)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    async def answer(stream: anyio.abc.ByteStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b'HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{"ok":true}')

    plain = await anyio.create_tcp_listener(local_host="127.0.0.1")
    listener = anyio.streams.tls.TLSListener(plain, server_side, standard_compatible=False)
    port = plain.extra(anyio.abc.SocketAttribute.local_port)
    with anyio.fail_after(10):
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, answer)
            async with EnclaveClient(f"https://127.0.0.1:{port}", ssl_context=trusting) as client:
                assert (await client.health()).ok
            async with EnclaveClient(f"https://127.0.0.1:{port}", retry=None) as client:
                with pytest.raises(ConnectError, match="certificate"):
                    await client.health()
            tasks.cancel_scope.cancel()


@pytest.fixture
async def silent_server():
    async def say_nothing(stream: anyio.abc.ByteStream) -> None:
        async with stream:
            await anyio.sleep_forever()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, say_nothing)
        yield f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        tasks.cancel_scope.cancel()
