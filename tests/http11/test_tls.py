"""TLS against a real TLS server: trust, names, bodies, endings, and idle connections."""

from __future__ import annotations

import ssl
from contextlib import suppress

import anyio
import pytest

from enclave import (
    APIConnectionError,
    ConfigurationError,
    ConnectTimeoutError,
    EnclaveClient,
)
from tests.support import PATIENCE_SECONDS
from tests.support.messages import CHUNKED, OK
from tests.support.origin import assert_whole, client_of, pool_of
from tests.support.wire import Peer, Server, answering, serve

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
async def test_requests_and_streams_work_over_tls(server_tls, trusting, name):
    protocols = set()

    async def script(peer: Peer, server: Server) -> None:
        protocols.add(peer.stream._ssl_object.selected_alpn_protocol())
        await answering(OK)(peer, server)

    async with serve(script, tls=server_tls, name=name) as server, client_of(server, ssl_context=trusting) as client:
        for _ in range(3):
            assert (await client.get("/")).content == b"hello"
        assert (await client.get("/", is_stream=True)).content == b"hello"
        assert_whole(client)
    assert server.connections == 2
    assert protocols == {"http/1.1"}


async def test_the_name_is_sent_so_that_the_server_can_choose_its_certificate(server_tls, trusting):
    names = []
    server_tls.sni_callback = lambda _, name, __: names.append(name)
    async with (
        serve(answering(OK), tls=server_tls, name="localhost") as server,
        client_of(server, ssl_context=trusting) as client,
    ):
        await client.get("/")
    assert names == ["localhost"]


@pytest.mark.parametrize("call", ["request", "create", "stream"])
async def test_https_to_a_server_without_tls_says_so_and_is_not_tried_again(trusting, call):
    async def script(peer: Peer, server: Server) -> None:
        await peer.stream.receive()
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with serve(script, name="localhost") as server:
        await says_which_scheme(server.origin.replace("http", "https"), call, trusting(), "write http ")
    assert server.connections == 1


@pytest.mark.parametrize("call", ["request", "create", "stream"])
async def test_http_to_a_server_with_tls_says_so_and_is_not_tried_again(server_tls, trusting, call):
    async with serve(answering(OK), tls=server_tls) as server:
        await says_which_scheme(server.origin.replace("https", "http"), call, trusting(), "write https ")


async def test_http_to_a_server_whose_tls_answers_with_an_alert_says_so(trusting):
    async def script(peer: Peer, server: Server) -> None:
        await peer.stream.receive()
        await peer.send(b"\x15\x03\x01\x00\x02\x02\x46")

    async with serve(script) as server:
        await says_which_scheme(server.origin, "request", trusting(), "write https ")
    assert server.connections == 1


async def test_a_server_that_hangs_up_on_plain_http_and_speaks_no_tls_is_not_taken_for_one():
    async def script(peer: Peer, server: Server) -> None:
        await peer.stream.receive()

    async with serve(script) as server, EnclaveClient(server.origin, retry=None) as client:
        with anyio.fail_after(PATIENCE_SECONDS), pytest.raises(APIConnectionError, match="without a response"):
            await client.get("s-1")


async def says_which_scheme(url: str, call: str, context: ssl.SSLContext, advice: str) -> None:
    async with EnclaveClient(url, ssl_context=context) as client:
        with anyio.fail_after(PATIENCE_SECONDS), pytest.raises(ConfigurationError, match=advice) as caught:
            match call:
                case "request":
                    await client.get("s-1")
                case "create":
                    await client.run("x")
                case _:
                    async with client.stream("s-1"):
                        pass
    assert caught.value.retries == 0


async def test_a_handshake_that_never_ends_is_a_connect_timeout(trusting):
    async def script(peer: Peer, server: Server) -> None:
        await peer.closed_by_client()

    async with serve(script, name="localhost") as server:
        server.origin = server.origin.replace("http", "https")
        async with client_of(server, ssl_context=trusting) as client:
            with anyio.fail_after(PATIENCE_SECONDS), pytest.raises(ConnectTimeoutError, match=r"within 0\.2 s"):
                await client.get("/", connect=0.2)
            assert_whole(client)


async def test_large_and_many_records_arrive_whole(server_tls, trusting):
    data = bytes(range(256)) * 4096
    wire = CHUNKED + b"%x\r\n%b\r\n" % (len(data), data) + b"5\r\nhello\r\n" * 1000 + b"0\r\n\r\n"
    async with (
        serve(answering(wire), tls=server_tls, name="localhost") as server,
        client_of(server, ssl_context=trusting) as client,
    ):
        for _ in range(2):
            with anyio.fail_after(PATIENCE_SECONDS):
                assert (await client.get("/")).content == data + b"hello" * 1000
        with anyio.fail_after(PATIENCE_SECONDS):
            await client.post("/", content=data)
    assert server.connections == 1
    assert server.requests[2].endswith(data)


async def test_a_close_without_goodbye_within_a_framed_body_is_an_error(server_tls, trusting):
    async with (
        serve(
            answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", close=True),
            tls=server_tls,
            name="localhost",
        ) as server,
        client_of(server, ssl_context=trusting) as client,
    ):
        with anyio.fail_after(PATIENCE_SECONDS), pytest.raises(APIConnectionError, match="5 of 9 bytes"):
            await client.get("/")


@pytest.mark.parametrize("unasked", [b"", OK.replace(b"hello", b"wrong")])
async def test_an_idle_tls_connection_that_was_closed_or_spoke_is_not_used_again(server_tls, trusting, unasked):
    speak = anyio.Event()

    async def script(peer: Peer, server: Server) -> None:
        await peer.request()
        await peer.send(OK)
        if peer.number == 1:
            await speak.wait()
            if unasked:
                await peer.send(unasked)
                await peer.request()
            return
        await peer.request()

    async with (
        serve(script, tls=server_tls, name="localhost") as server,
        client_of(server, ssl_context=trusting) as client,
    ):
        await client.get("/")
        (connection,) = pool_of(client).idle
        speak.set()
        with anyio.fail_after(PATIENCE_SECONDS):
            while not connection.is_stale():
                await anyio.lowlevel.checkpoint()
        if unasked:  # asyncio reads them meanwhile, and then the socket itself has nothing to tell
            for _ in range(5):
                await anyio.lowlevel.checkpoint()
        assert (await client.post("/")).content == b"hello"
        assert_whole(client)
    assert server.connections == 2


async def test_records_that_came_together_with_a_response_are_noticed(server_tls, trusting):
    async def script(peer: Peer, server: Server) -> None:
        await peer.request()
        tls = peer.stream
        tls._ssl_object.write(OK)
        tls._ssl_object.write(OK.replace(b"hello", b"wrong"))
        await tls.transport_stream.send(tls._write_bio.read())  # two records, one segment
        await peer.request()

    async with (
        serve(script, tls=server_tls, name="localhost") as server,
        client_of(server, ssl_context=trusting) as client,
    ):
        for _ in range(2):
            assert (await client.get("/")).content == b"hello"
    assert server.connections == 2


async def test_a_goodbye_that_came_together_with_a_response_is_noticed(server_tls, trusting):
    async def script(peer: Peer, server: Server) -> None:
        await peer.request()
        tls = peer.stream
        tls._ssl_object.write(OK)
        with suppress(ssl.SSLWantReadError):  # the client's goodbye is not waited for
            tls._ssl_object.unwrap()
        await tls.transport_stream.send(tls._write_bio.read())
        await Peer(tls.transport_stream, peer.number).closed_by_client()  # TLS itself would refuse to read on

    async with (
        serve(script, tls=server_tls, name="localhost") as server,
        client_of(server, ssl_context=trusting) as client,
    ):
        for _ in range(2):
            with anyio.fail_after(PATIENCE_SECONDS):
                assert (await client.post("/")).content == b"hello"
    assert server.connections == 2


async def test_a_read_over_tls_can_be_cancelled_and_taken_up_again(server_tls, trusting):
    proceed = anyio.Event()

    async def script(peer: Peer, server: Server) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        await proceed.wait()
        await peer.send(b"5\r\nhello\r\n0\r\n\r\n")

    async with (
        serve(script, tls=server_tls, name="localhost") as server,
        client_of(server, ssl_context=trusting) as client,
        client.stream() as response,
    ):
        with anyio.move_on_after(0.05) as scope:
            await response.body.read()
        assert scope.cancelled_caught
        proceed.set()
        with anyio.fail_after(PATIENCE_SECONDS):
            assert await response.body.read() == b"hello"


async def test_a_context_that_an_http2_client_uses_too_speaks_http11_here(server_tls, trusting):
    protocols = []

    async def script(peer: Peer, server: Server) -> None:
        protocols.append(peer.stream._ssl_object.selected_alpn_protocol())
        await answering(OK)(peer, server)

    shared = trusting()
    async with (
        serve(script, tls=server_tls) as server,
        client_of(server, ssl_context=lambda: shared, keepalive_seconds=0) as client,
    ):
        await client.get()
        shared.set_alpn_protocols(["h2"])
        await client.get()
    assert protocols == ["http/1.1", "http/1.1"]
