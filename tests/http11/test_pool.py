"""Which connection a request gets: reuse, staleness, limits, and the stream's own."""

from __future__ import annotations

import anyio
import pytest

from enclave import APIConnectionError, EnclaveError, UsageError
from tests.support import PATIENCE_SECONDS
from tests.support.messages import CHUNKED, OK
from tests.support.origin import Client, assert_whole, client_of, pool_of
from tests.support.wire import Peer, Server, answering, serve

pytestmark = pytest.mark.anyio


async def test_requests_one_after_the_other_share_a_connection():
    async with serve(answering(OK)) as server, client_of(server) as client:
        for _ in range(5):
            await client.get("/")
        assert len(pool_of(client).idle) == 1
        assert_whole(client)
    assert server.connections == 1


async def test_a_completed_stream_closes_its_connection():
    async with serve(answering(OK)) as server, client_of(server) as client:
        response = await client.get("/", is_stream=True)
        assert response.content == b"hello"
        assert not pool_of(client).open
    assert server.connections == 1


async def until_readable(client: Client) -> None:
    (connection,) = pool_of(client).idle
    with anyio.fail_after(PATIENCE_SECONDS):
        while not connection.is_stale():
            await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("rest", [b"", OK])
async def test_an_idle_connection_that_was_closed_or_spoke_unasked_is_not_used_again(rest):
    """Bytes nobody asked for would be taken for the answer to the next request."""
    speak = anyio.Event()

    async def script(peer: Peer, server: Server) -> None:
        await peer.request()
        await peer.send(OK)
        if peer.number == 1:
            await speak.wait()
            if not rest:
                return
            await peer.send(rest.replace(b"hello", b"wrong"))
        await peer.request()
        await peer.send(OK)

    async with serve(script) as server, client_of(server) as client:
        await client.get("/")
        speak.set()
        await until_readable(client)
        if rest:  # asyncio reads them meanwhile, and then the socket itself has nothing to tell
            for _ in range(5):
                await anyio.lowlevel.checkpoint()
        assert (await client.post("/")).content == b"hello"
        assert len(pool_of(client).open) == 1
        assert_whole(client)
    assert server.connections == 2


@pytest.mark.parametrize("rest", [b"x", OK])
async def test_bytes_right_after_a_response_keep_its_connection_from_being_used_again(rest):
    async with serve(answering(OK + rest)) as server, client_of(server) as client:
        for _ in range(2):
            assert (await client.get("/")).content == b"hello"
            assert not pool_of(client).open
            assert_whole(client)
    assert server.connections == 2


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_repeatable_request_survives_a_connection_that_dies_while_it_is_reused(method, reset):
    async def script(peer: Peer, server: Server) -> None:
        if peer.number == 1:
            await peer.request()
            await peer.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        server.requests.append(await peer.request())
        if peer.number == 1:
            if reset:
                peer.reset()
            return
        await peer.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        await peer.request()

    async with serve(script) as server, client_of(server) as client:
        await client.get("/")
        with anyio.fail_after(PATIENCE_SECONDS):
            assert (await client.exchange(method, "/again")).status == 204
        assert_whole(client)
    assert server.connections == 2
    assert [request.split(b" ")[1] for request in server.requests] == [b"/again", b"/again"]


async def test_a_request_that_may_not_be_repeated_is_not_even_then():
    async def script(peer: Peer, server: Server) -> None:
        await peer.request()
        await peer.send(OK)
        server.requests.append(await peer.request())

    async with serve(script) as server, client_of(server) as client:
        await client.get("/")
        with anyio.fail_after(PATIENCE_SECONDS), pytest.raises(APIConnectionError, match="without a response"):
            await client.post("/", content=b"once")
        assert not pool_of(client).open
        assert_whole(client)
    assert len(server.requests) == 1
    assert server.connections == 1


async def test_a_repeatable_request_is_not_repeated_on_a_fresh_connection_or_after_a_first_byte():
    async def script(peer: Peer, server: Server) -> None:
        request = await peer.request()
        if request is None:  # a look at whether the server speaks TLS
            return
        server.requests.append(request)
        if len(server.requests) == 2:
            await peer.send(OK)
            server.requests.append(await peer.request())
            await peer.send(b"H")

    async with serve(script) as server, client_of(server) as client:
        with pytest.raises(APIConnectionError, match="without a response"):
            await client.get("/")
        assert len(server.requests) == 1
        await client.get("/")
        with pytest.raises(APIConnectionError, match="after 1 bytes"):
            await client.get("/")
        assert_whole(client)
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("keepalive_seconds", "promise", "kept"),
    [
        (60, b"", True),
        (0, b"", False),
        (60, b"Keep-Alive: timeout=1\r\n", False),
        (60, b"Keep-Alive: timeout=9\r\n", True),
    ],
)
async def test_an_idle_connection_is_kept_no_longer_than_we_and_the_server_say(keepalive_seconds, promise, kept):
    wire = OK.replace(b"\r\nContent", b"\r\n" + promise + b"Content")
    async with serve(answering(wire)) as server, client_of(server, keepalive_seconds=keepalive_seconds) as client:
        await client.get("/")
        assert len(pool_of(client).idle) == kept
        if kept:
            (connection,) = pool_of(client).idle
            left = connection.expires_at - anyio.current_time()
            assert left < (8.5 if promise else 60.5)
            connection.expires_at = anyio.current_time() - 1  # its time is over
        await client.get("/")
        assert_whole(client)
    assert server.connections == 2


async def test_connections_past_their_time_are_closed_when_another_request_comes():
    async with serve(answering(OK)) as server, client_of(server) as client:
        arrived = 0
        everybody = anyio.Event()

        async def one() -> None:
            nonlocal arrived
            async with client.stream():
                arrived += 1
                if arrived == 5:
                    everybody.set()

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(one)
        pool = pool_of(client)
        for connection in list(pool.idle)[:-1]:
            connection.expires_at = anyio.current_time() - 1
        await client.get("/")
        assert len(pool.idle) == len(pool.open) == 1


async def test_a_request_that_is_cancelled_while_it_closes_old_connections_loses_no_good_one():
    both = anyio.Event()

    async def script(peer: Peer, server: Server) -> None:
        while await peer.request() is not None:
            if server.connections == 2:
                both.set()
            await both.wait()
            await peer.send(OK)

    async with serve(script) as server, client_of(server) as client:
        with anyio.fail_after(PATIENCE_SECONDS):
            async with anyio.create_task_group() as tasks:
                for _ in range(2):
                    tasks.start_soon(client.get, "/")
            pool_of(client).idle[0].expires_at = 0.0
            with anyio.CancelScope() as scope:
                scope.cancel()
                await client.get("/")
            assert scope.cancelled_caught
            assert_whole(client)
            assert (await client.get("/")).content == b"hello"


async def test_a_closed_transport_refuses_requests_and_says_so():
    async with serve(answering(OK)) as server, client_of(server) as client:
        await client.get("/")
        transport = client.transport
        await transport.aclose()
        await transport.aclose()
        for is_stream in (False, True):
            with pytest.raises(UsageError, match=f"127.0.0.1:{server.port} is closed"):
                await client.get("/", is_stream=is_stream)
        assert not pool_of(client).open
        assert_whole(client)


async def test_closing_ends_responses_in_flight_and_sends_the_queue_away():
    in_flight = 0
    both = anyio.Event()

    async def script(peer: Peer, server: Server) -> None:
        nonlocal in_flight
        await peer.request()
        await peer.send(CHUNKED)
        in_flight += 1
        if in_flight == 2:
            both.set()
        await peer.closed_by_client()

    async with serve(script) as server, client_of(server, max_connections=1) as client:
        errors = []

        async def one(is_stream: bool) -> None:
            with pytest.raises(EnclaveError) as caught:
                await client.get("/", is_stream=is_stream)
            errors.append(caught.value)

        with anyio.fail_after(PATIENCE_SECONDS):
            async with anyio.create_task_group() as tasks:
                for is_stream in (False, False, False, True):
                    tasks.start_soon(one, is_stream)
                await both.wait()
                await client.transport.aclose()
        assert sorted(type(error).__name__ for error in errors) == [*["APIConnectionError"] * 2, *["UsageError"] * 2]
        assert all(str(error) for error in errors)
        assert_whole(client)


async def test_a_response_cannot_be_read_on_once_the_transport_is_closed():
    async with serve(answering(CHUNKED)) as server, client_of(server) as client:
        async with client.stream() as response:
            await client.transport.aclose()
            with anyio.fail_after(PATIENCE_SECONDS), pytest.raises(APIConnectionError):
                await response.body.read()
        assert_whole(client)


async def test_closing_sends_the_queue_away_though_nobody_lets_go_of_a_slot():
    async with serve(answering(CHUNKED)) as server, client_of(server, max_connections=1) as client:
        async with client.stream(), anyio.create_task_group() as tasks:
            errors = []

            async def waiter() -> None:
                with pytest.raises(UsageError, match="is closed") as caught:
                    await client.get("/", acquire=None)
                errors.append(caught.value)

            for _ in range(3):
                tasks.start_soon(waiter)
            await anyio.wait_all_tasks_blocked()
            with anyio.fail_after(PATIENCE_SECONDS):
                await client.transport.aclose()
                while len(errors) < 3:
                    await anyio.lowlevel.checkpoint()
                with pytest.raises(UsageError, match="is closed"):
                    await client.get("/", acquire=None)
        assert_whole(client)
    assert server.connections == 1


async def test_a_connection_that_was_being_made_when_the_transport_closed_is_closed_too():
    async with serve(answering(OK)) as server, client_of(server) as client:
        pool = pool_of(client)
        dial = pool._dial

        async def dial_and_close(seconds, limit):
            connection = await dial(seconds, limit)
            await client.transport.aclose()
            return connection

        pool._dial = dial_and_close
        for is_stream in (False, True):
            pool.closed = False
            with pytest.raises(UsageError, match="is closed"):
                await client.get(is_stream=is_stream)
            assert not pool.open
            assert_whole(client)
    assert server.requests == []
