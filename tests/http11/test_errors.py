"""Each error says what happened and where, and timeouts are kept."""

from __future__ import annotations

import re
import socket
from contextlib import ExitStack

import anyio
import pytest

from enclave import APIConnectionError, APITimeoutError, ConnectError, ConnectTimeoutError
from tests.support import PATIENCE_SECONDS
from tests.support.messages import CHUNKED, OK
from tests.support.origin import assert_whole, client_of, pool_of, read_all
from tests.support.wire import Peer, Server, answering, refused_port, serve, silent_listener

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_refused_connection_says_where_and_why(host):
    with refused_port() as port:
        await refuses(host, port)


async def refuses(host: str, port: int) -> None:
    async with client_of(f"http://{host}:{port}") as client:
        with anyio.fail_after(PATIENCE_SECONDS), pytest.raises(ConnectError) as caught:
            await client.get()
        text = str(caught.value)
        assert re.match(rf"cannot connect to {host}:{port}( \([^)]*127\.0\.0\.1[^)]*\))?: ", text)
        assert text.endswith("(ConnectionRefusedError)")
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)
        assert_whole(client)


async def test_an_unknown_host_is_a_connect_error(monkeypatch):
    def unknown(host, *_args, **_kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    async with client_of("http://enclave.test", seconds=None) as client:
        with (
            anyio.fail_after(PATIENCE_SECONDS),
            pytest.raises(ConnectError, match=r"enclave\.test:80: .*not known \(gaierror\)"),
        ):
            await client.get()
        assert_whole(client)


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_connection_not_made_in_time_is_a_connect_timeout(is_stream):
    # A listener whose queue of one is full drops what else knocks.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            async with client_of(f"http://127.0.0.1:{port}") as client:
                with anyio.fail_after(PATIENCE_SECONDS), pytest.raises(ConnectTimeoutError) as caught:
                    await client.get(connect=0.2, is_stream=is_stream)
                assert str(caught.value) == f"no connection to 127.0.0.1:{port} within 0.2 s"
                assert_whole(client)
        finally:
            for filler in fillers:
                filler.close()


@pytest.mark.parametrize("wire", [b"", b"HTTP/1.1 200 OK\r\nConte", CHUNKED, CHUNKED + b"5\r\nhel"])
async def test_a_silent_server_is_a_read_timeout(wire):
    async with serve(answering(wire)) as server, client_of(server) as client:
        with anyio.fail_after(PATIENCE_SECONDS), pytest.raises(APITimeoutError) as caught:
            await client.get(read=0.1)
        assert str(caught.value) == f"127.0.0.1:{server.port} sent nothing for 0.1 s"
        assert not pool_of(client).open
        assert_whole(client)


async def test_the_read_timeout_counts_from_the_last_bytes():
    pauses = 9

    async def script(peer: Peer, server: Server) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        for _ in range(pauses):
            with anyio.move_on_after(0.25):
                await peer.closed_by_client()
            await peer.send(b"1\r\nx\r\n")
        await peer.send(b"0\r\n\r\n")

    async with serve(script) as server, client_of(server) as client:
        start = anyio.current_time()
        response = await client.get("/", read=2.0)
        assert response.content == b"x" * pauses
        assert anyio.current_time() - start > 2.0


async def test_without_timeouts_a_quiet_stream_lives():
    proceed = anyio.Event()

    async def script(peer: Peer, server: Server) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        await proceed.wait()
        await peer.send(b"1\r\nx\r\n0\r\n\r\n")

    async with serve(script) as server, client_of(server, seconds=None) as client:
        async with client.stream() as response, anyio.create_task_group() as tasks:
            received = []

            async def read() -> None:
                received.append(await read_all(response))

            tasks.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            proceed.set()
        assert received == [b"x"]


async def test_a_server_that_takes_nothing_is_a_write_timeout():
    with silent_listener() as port:
        async with client_of(f"http://127.0.0.1:{port}") as client:
            with anyio.fail_after(PATIENCE_SECONDS), pytest.raises(APITimeoutError) as caught:
                await client.post(content=b"x" * 50_000_000, write=0.2, read=0.2)
            assert str(caught.value) == f"127.0.0.1:{port} took no more of the request for 0.2 s"
            assert not pool_of(client).open
            assert_whole(client)


async def test_a_server_that_answers_and_takes_no_more_of_the_request_is_heard():
    with socket.socket() as listener, ExitStack() as peers:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        async def refuse() -> None:
            await anyio.wait_readable(listener)
            peer, _ = listener.accept()
            peers.enter_context(peer)
            peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\nlarge")  # and it reads nothing

        async with client_of(f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
            with anyio.fail_after(PATIENCE_SECONDS):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(refuse)
                    answer = await client.post(content=b"x" * 50_000_000, write=0.2)
            assert (answer.status, answer.content) == (413, b"large")
            assert not pool_of(client).open  # a part of the request is still to be sent over the connection
            assert_whole(client)


async def test_time_that_runs_out_for_the_whole_response_is_told_as_that():
    async def script(peer: Peer, server: Server) -> None:
        await peer.request()
        await peer.send(OK[:-1])
        await anyio.sleep_forever()

    async with serve(script) as server, client_of(server) as client:
        with (
            anyio.fail_after(PATIENCE_SECONDS),
            pytest.raises(APITimeoutError, match=r"^no whole response came within 0\.3 s$"),
        ):
            await client.get(total=0.3)
        assert not pool_of(client).open
        assert_whole(client)


async def test_no_free_connection_in_time_is_a_pool_timeout():
    async with serve(answering(CHUNKED)) as server, client_of(server, max_connections=1) as client:
        async with client.stream():
            with anyio.fail_after(PATIENCE_SECONDS), pytest.raises(ConnectTimeoutError) as caught:
                await client.get("/", acquire=0.1)
            assert str(caught.value) == f"none of the 1 connections to 127.0.0.1:{server.port} became free within 0.1 s"
        assert_whole(client)


async def test_a_reset_in_the_middle_of_a_body_is_a_read_error():
    async def script(peer: Peer, server: Server) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"5\r\nhello\r\n")
        await peer.request()
        peer.reset()

    async with serve(script) as server, client_of(server) as client:
        async with client.stream() as response:
            assert await response.body.read() == b"hello"
            (connection,) = pool_of(client).open
            await connection.send(memoryview(b"\r\n\r\n"))
            # A server on an older anyio ends the connection before it resets it.
            told = "ConnectionResetError|closed the connection within the response"
            with anyio.fail_after(PATIENCE_SECONDS), pytest.raises(APIConnectionError, match=told):
                await response.body.read()
        assert_whole(client)


async def test_an_ipv6_origin_is_reached_and_named_in_brackets():
    async with serve(answering(OK), local_host="::1") as server, client_of(server) as client:
        assert (await client.get("/")).content == b"hello"
        assert f"Host: [::1]:{server.port}".encode() in server.requests[0]
    with refused_port("::1") as port:
        async with client_of(f"http://[::1]:{port}") as client:
            with pytest.raises(ConnectError, match=rf"cannot connect to \[::1\]:{port}"):
                await client.get()


async def test_a_host_name_is_resolved():
    async with serve(answering(OK), name="localhost") as server, client_of(server) as client:
        assert (await client.get("/")).content == b"hello"


async def test_sockets_are_set_up_for_promptness_and_for_silent_peers():
    async with serve(answering(OK)) as server, client_of(server) as client:
        await client.get("/")
        (connection,) = pool_of(client).idle
        raw = connection._socket
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_KEEPIDLE"):
            assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
