"""Reading a response: whole, in pieces, interrupted, left early."""

from __future__ import annotations

import socket
import threading

import anyio
import pytest

from enclave import APIConnectionError, ResponseTooLargeError, UsageError
from enclave.transport.http11._body import ResponseBody
from tests.support import PATIENCE_SECONDS
from tests.support.messages import CHUNKED, OK, chunk
from tests.support.origin import assert_whole, client_of, dial, pool_of, read_all
from tests.support.wire import Peer, Server, answering, reset_on_close, serve

pytestmark = pytest.mark.anyio


async def test_a_response_arrives_with_status_reason_version_headers_and_body():
    wire = b"HTTP/1.1 418 I'm a Teapot\r\nX-Mixed-Case: 1\r\nContent-Length: 5\r\n\r\nhello"
    async with serve(answering(wire)) as server, client_of(server) as client:
        response = await client.get("/")
    assert response.status == 418
    assert response.response.reason == b"I'm a Teapot"
    assert response.response.header(b"x-mixed-case") == "1"
    assert response.response.header(b"x-other") is None
    assert response.content == b"hello"


@pytest.mark.parametrize(
    ("wire", "body"),
    [
        (OK, b"hello"),
        (CHUNKED + chunk(b"hel") + chunk(b"lo") + b"0\r\nTrailer: 1\r\n\r\n", b"hello"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + OK, b"hello"),
    ],
)
async def test_framed_bodies_arrive_byte_by_byte_and_the_connection_is_used_again(wire, body):
    async def script(peer: Peer, server: Server) -> None:
        while await peer.request() is not None:
            for position in range(len(wire)):
                await peer.send(wire[position : position + 1])

    async with serve(script) as server, client_of(server) as client:
        for _ in range(3):
            with anyio.fail_after(PATIENCE_SECONDS):
                assert (await client.get("/")).content == body
        assert_whole(client)
    assert server.connections == 1


@pytest.mark.parametrize(
    "wire", [b"HTTP/1.0 200 OK\r\n\r\nhello", b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello"]
)
async def test_a_body_without_framing_ends_with_the_connection(wire):
    async with serve(answering(wire, close=True)) as server, client_of(server) as client:
        for _ in range(2):
            assert (await client.get("/")).content == b"hello"
            assert not pool_of(client).open
            assert_whole(client)
    assert server.connections == 2


async def test_one_network_read_gives_all_its_chunks_as_one_object():
    async def script(peer: Peer, server: Server) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"".join(chunk(b"%03d" % n) for n in range(200)))
        await peer.request()

    async with (
        serve(script) as server,
        client_of(server) as client,
        client.stream(is_stream=True) as response,
    ):
        with anyio.fail_after(PATIENCE_SECONDS):
            assert await response.body.read() == b"".join(b"%03d" % n for n in range(200))


async def test_a_cancelled_read_loses_nothing_and_reading_goes_on_after_it():
    proceed = [anyio.Event() for _ in range(20)]

    async def script(peer: Peer, server: Server) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        for number, event in enumerate(proceed):
            await event.wait()
            await peer.send(chunk(b"<%d>" % number))
        await peer.send(b"0\r\n\r\n")

    async with serve(script) as server, client_of(server, seconds=None) as client:
        async with client.stream() as response:
            body = response.body
            received = b""
            for event in proceed:
                with anyio.move_on_after(0):
                    received += await body.read()
                event.set()
                with anyio.CancelScope() as scope:
                    # Cancelled while, or just before, the bytes arrive: they may come now or with the next read.
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(scope_canceller, scope)
                        received += await body.read()
            with anyio.fail_after(PATIENCE_SECONDS):
                while data := await body.read():
                    received += data
        assert_whole(client)
    assert received == b"".join(b"<%d>" % number for number in range(20))


async def scope_canceller(scope: anyio.CancelScope) -> None:
    await anyio.lowlevel.checkpoint()
    scope.cancel()


async def test_nothing_is_read_from_the_socket_until_it_is_asked_for():
    piece = chunk(b"x" * 65_536)
    stuck = anyio.Event()
    sent = 0

    async def script(peer: Peer, server: Server) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(CHUNKED)
        while True:
            with anyio.move_on_after(0.5) as scope:
                await peer.send(piece)
                sent += len(piece)
            if scope.cancelled_caught:
                stuck.set()
                return

    async with serve(script) as server, client_of(server) as client, client.stream():
        with anyio.fail_after(PATIENCE_SECONDS):
            await stuck.wait()
    assert sent < 64 * 1024 * 1024


async def test_not_even_a_new_connection_is_read_ahead_of_demand():
    flood, stuck = anyio.Event(), anyio.Event()

    async def script(peer: Peer, server: Server) -> None:
        await flood.wait()
        while True:
            with anyio.move_on_after(0.5) as scope:
                await peer.send(b"x" * 65_536)
            if scope.cancelled_caught:
                stuck.set()
                return

    async with serve(script) as server, client_of(server) as client:
        connection = await dial(client)
        flood.set()
        with anyio.fail_after(PATIENCE_SECONDS):
            await stuck.wait()
        pool_of(client).discard(connection)


async def test_leaving_a_body_early_closes_its_connection_and_frees_its_slot():
    async def script(peer: Peer, server: Server) -> None:
        await peer.request()
        await peer.send(CHUNKED + chunk(b"first"))
        await peer.closed_by_client()
        server.requests.append(b"closed")

    async with serve(script) as server, client_of(server, max_connections=1) as client:
        for _ in range(3):
            with anyio.fail_after(PATIENCE_SECONDS):
                async with client.stream() as response:
                    assert await response.body.read() == b"first"
            assert not pool_of(client).open
            assert_whole(client)


async def test_a_connection_goes_back_at_the_moment_its_response_is_complete():
    async with (
        serve(answering(OK)) as server,
        client_of(server, max_connections=1) as client,
        client.stream() as first,
    ):
        assert_whole(client)
        with anyio.fail_after(PATIENCE_SECONDS):
            assert (await client.get("/")).content == b"hello"
        assert await read_all(first) == b"hello"
    assert server.connections == 1


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", "incomplete body, 5 of 9 bytes"),
        (CHUNKED + chunk(b"hello"), "incomplete body, 5 bytes"),
        (CHUNKED + chunk(b"hello") + b"zz\r\n", "Invalid character in chunk size"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "within the response head, after 27 bytes"),
        (b"SMTP ready\r\n", "head is not HTTP/1.1"),
        (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", "switched to a protocol"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 20_000 + b"\r\n", "header section exceeds max_header_bytes=65536"),
    ],
)
async def test_a_broken_response_is_an_error_and_closes_the_connection(wire, message):
    async with serve(answering(wire, close=True)) as server, client_of(server) as client:
        with anyio.fail_after(PATIENCE_SECONDS), pytest.raises((APIConnectionError, ResponseTooLargeError)) as caught:
            await client.post("/")
        assert message in str(caught.value)
        assert not pool_of(client).open
        assert_whole(client)


async def test_what_came_before_a_break_is_delivered_first():
    async def script(peer: Peer, server: Server) -> None:
        await peer.request()
        await peer.send(CHUNKED + chunk(b"one") + chunk(b"two") + b"zz\r\n")
        await peer.request()

    async with serve(script) as server, client_of(server) as client, client.stream() as response:
        body = response.body
        assert await body.read() == b"onetwo"
        for _ in range(2):
            with pytest.raises(APIConnectionError, match="chunk size"):
                await body.read()


async def test_reading_on_after_closing_is_an_error_not_an_end():
    async with serve(answering(CHUNKED + chunk(b"hello"))) as server, client_of(server) as client:
        async with client.stream() as response:
            body = response.body
            assert await body.read() == b"hello"
        with pytest.raises(UsageError, match="closed before its end"):
            await body.read()


async def test_two_tasks_reading_one_response_is_a_clear_error_and_spares_the_first():
    proceed = anyio.Event()

    async def script(peer: Peer, server: Server) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        await proceed.wait()
        await peer.send(chunk(b"hello") + b"0\r\n\r\n")
        await peer.request()

    received = []

    async def reader(body: ResponseBody) -> None:
        received.append(await body.read())

    async with serve(script) as server, client_of(server) as client:
        async with client.stream() as response, anyio.create_task_group() as tasks:
            body = response.body
            tasks.start_soon(reader, body)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(UsageError, match="Another task"):
                await body.read()
            proceed.set()
        assert received == [b"hello"]


async def test_a_body_without_a_length_is_not_whole_if_the_connection_broke_while_the_request_was_sent():
    def answer_and_reset(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nthe first half ")
        reset_on_close(connection)
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer_and_reset, args=[listener], daemon=True)
        thread.start()
        async with client_of(f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
            with anyio.fail_after(PATIENCE_SECONDS), pytest.raises(APIConnectionError):
                await client.post(content=bytes(50_000_000))
        thread.join()


async def test_large_bodies_arrive_whole():
    data = bytes(range(256)) * 8192
    wire = CHUNKED + b"".join(chunk(data[i : i + 50_000]) for i in range(0, len(data), 50_000)) + b"0\r\n\r\n"
    async with serve(answering(wire)) as server, client_of(server) as client:
        for _ in range(2):
            with anyio.fail_after(PATIENCE_SECONDS):
                assert (await client.get("/")).content == data
    assert server.connections == 1
