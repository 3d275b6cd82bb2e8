"""The map of errors is total; each error says what happened; timeouts are kept."""

from __future__ import annotations

import inspect
import socket
import ssl
from contextlib import aclosing

import anyio
import httptools
import httpx
import pytest

from enclave.transport.http11 import OriginTransport
from enclave.transport.http11._errors import ERROR_MAP, FOREIGN, describe, translate
from tests.support.messages import CHUNKED, OK
from tests.support.origin import AS_STREAM, anyio_stops_reading_when_cancelled, assert_whole, client_of, pool_of
from tests.support.wire import Peer, Server, answering, serve, silent_listener

pytestmark = pytest.mark.anyio

PHASES = ("connect", "write", "read")

# Classes that no call of this transport can raise, each with the part of the library that raises it.
ELSEWHERE = {
    "BrokenWorkerProcess": "to_process",
    "BrokenWorkerInterpreter": "to_interpreter",
    "DelimiterNotFound": "buffered streams",
    "IncompleteRead": "buffered streams",
    "TypedAttributeLookupError": "extra() of an attribute that a stream has not",
    "WouldBlock": "the nowait calls",
    "NoEventLoopError": "calls outside an event loop",
    "RunFinishedError": "from_thread",
    "TaskFailed": "task handles",
    "TaskCancelled": "task handles",
    "TaskNotFinished": "task handles",
    "FutureFailed": "futures",
    "FutureCancelled": "futures",
    "FutureNotFinished": "futures",
    "FutureAlreadyFinished": "futures",
}


def exception_classes(module: object) -> list[type[Exception]]:
    found = {
        value for _, value in inspect.getmembers(module) if isinstance(value, type) and issubclass(value, Exception)
    }
    return sorted((cls for cls in found if cls.__name__ not in ELSEWHERE), key=lambda cls: cls.__name__)


FOREIGN_CLASSES = [
    *exception_classes(anyio),
    *exception_classes(ssl),
    *exception_classes(httptools),
    *exception_classes(httptools.parser.errors),
    *[cls for cls in exception_classes(socket) if issubclass(cls, OSError)],
    *[BrokenPipeError, ConnectionAbortedError, ConnectionRefusedError, ConnectionResetError, OSError, UnicodeError],
]


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("cls", FOREIGN_CLASSES, ids=lambda cls: cls.__name__)
def test_every_foreign_exception_is_mapped_to_one_of_httpx_with_a_message(cls, phase):
    assert issubclass(cls, FOREIGN)
    error = cls.__new__(cls)
    mapped = translate(error, phase, "host:1")
    assert isinstance(mapped, httpx.TransportError)
    assert "host:1" in str(mapped)
    assert cls.__name__ in str(mapped)


def test_the_most_specific_class_stands_first():
    classes = [cls for cls, _ in ERROR_MAP]
    for position, cls in enumerate(classes):
        assert not any(issubclass(cls, earlier) for earlier in classes[:position]), cls


def test_an_unmapped_exception_is_not_disguised():
    with pytest.raises(TypeError, match="KeyError is not in ERROR_MAP"):
        translate(KeyError("x"), "read", "host:1")


def test_the_text_comes_from_the_cause_where_the_error_itself_is_empty():
    error = anyio.BrokenResourceError()
    assert describe(error) == "BrokenResourceError"
    error.__cause__ = ConnectionResetError(104, "Connection reset by peer")
    assert describe(error) == "ConnectionResetError: [Errno 104] Connection reset by peer"
    error.__cause__ = ExceptionGroup("attempts", [OSError("one"), OSError("two"), OSError("one")])
    assert describe(error) == "OSError: one; OSError: two"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_refused_connection_says_where_and_why(host):
    port = free_port()
    async with httpx.AsyncClient(transport=OriginTransport(f"http://{host}:{port}")) as client:
        with anyio.fail_after(10), pytest.raises(httpx.ConnectError) as caught:
            await client.get(f"http://{host}:{port}/")
        assert f"cannot connect to {host}:{port}: ConnectionRefusedError" in str(caught.value)
        assert_whole(client)


async def test_an_unknown_host_is_a_connect_error():
    async with httpx.AsyncClient(transport=OriginTransport("http://no-such-host.invalid")) as client:
        with anyio.fail_after(20), pytest.raises(httpx.ConnectError, match=r"no-such-host\.invalid:80: gaierror"):
            await client.get("http://no-such-host.invalid/", timeout=None)
        assert_whole(client)


@pytest.mark.parametrize("extensions", [{}, AS_STREAM])
async def test_a_connection_not_made_in_time_is_a_connect_timeout(extensions):
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
            async with httpx.AsyncClient(transport=OriginTransport(f"http://127.0.0.1:{port}")) as client:
                with anyio.fail_after(5), pytest.raises(httpx.ConnectTimeout) as caught:
                    await client.get(
                        f"http://127.0.0.1:{port}/", timeout=httpx.Timeout(None, connect=0.2), extensions=extensions
                    )
                assert str(caught.value) == f"no connection to 127.0.0.1:{port} within 0.2 s"
                assert_whole(client)
        finally:
            for filler in fillers:
                filler.close()


@pytest.mark.parametrize("wire", [b"", b"HTTP/1.1 200 OK\r\nConte", CHUNKED, CHUNKED + b"5\r\nhel"])
async def test_a_silent_server_is_a_read_timeout(wire):
    async with serve(answering(wire)) as server, client_of(server) as client:
        timeout = httpx.Timeout(None, read=0.1)
        with anyio.fail_after(5), pytest.raises(httpx.ReadTimeout) as caught:
            await client.get("/", timeout=timeout)
        assert str(caught.value) == f"127.0.0.1:{server.port} sent nothing for 0.1 s"
        assert not pool_of(client).open
        assert_whole(client)


async def test_the_read_timeout_counts_from_the_last_bytes():
    pauses = 6

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
        response = await client.get("/", timeout=httpx.Timeout(None, read=1.0))
        assert response.content == b"x" * pauses
        assert anyio.current_time() - start > 1.0


async def test_without_timeouts_a_quiet_stream_lives():
    proceed = anyio.Event()

    async def script(peer: Peer, server: Server) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        await proceed.wait()
        await peer.send(b"1\r\nx\r\n0\r\n\r\n")

    async with serve(script) as server, client_of(server, timeout=None) as client:
        async with client.stream("GET", "/") as response, anyio.create_task_group() as tasks:
            received = []

            async def read() -> None:
                received.append(await response.aread())

            tasks.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            proceed.set()
        assert received == [b"x"]


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_server_that_takes_nothing_is_a_write_timeout(streamed):
    async def endless():
        while True:
            yield b"x" * 1_000_000

    with silent_listener() as port:
        origin = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(transport=OriginTransport(origin)) as client, aclosing(endless()) as stream:
            content = stream if streamed else b"x" * 50_000_000
            with anyio.fail_after(10), pytest.raises(httpx.WriteTimeout) as caught:
                await client.post(origin, content=content, timeout=httpx.Timeout(None, write=0.2))
            assert str(caught.value) == f"127.0.0.1:{port} took no more of the request for 0.2 s"
            assert not pool_of(client).open
            assert_whole(client)


async def test_no_free_connection_in_time_is_a_pool_timeout():
    async with serve(answering(CHUNKED)) as server, client_of(server, max_connections=1) as client:
        async with client.stream("GET", "/"):
            with anyio.fail_after(5), pytest.raises(httpx.PoolTimeout) as caught:
                await client.get("/", timeout=httpx.Timeout(None, pool=0.1))
            assert str(caught.value) == f"none of the 1 connections to 127.0.0.1:{server.port} became free within 0.1 s"
        assert_whole(client)


@anyio_stops_reading_when_cancelled
async def test_a_reset_in_the_middle_of_a_body_is_a_read_error():
    async def script(peer: Peer, server: Server) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"5\r\nhello\r\n")
        await peer.request()
        peer.reset()

    async with serve(script) as server, client_of(server) as client:
        async with client.stream("GET", "/") as response:
            pieces = response.aiter_raw()
            assert await anext(pieces) == b"hello"
            (connection,) = pool_of(client).open
            await connection.send(memoryview(b"\r\n\r\n"), None)
            with anyio.fail_after(5), pytest.raises(httpx.ReadError, match="ConnectionResetError"):
                await anext(pieces)
        assert_whole(client)


async def test_an_ipv6_origin_is_reached_and_named_in_brackets():
    async with serve(answering(OK), local_host="::1") as server, client_of(server) as client:
        assert (await client.get("/")).content == b"hello"
        assert f"Host: [::1]:{server.port}".encode() in server.requests[0]
    async with httpx.AsyncClient(transport=OriginTransport(server.origin)) as client:
        with pytest.raises(httpx.ConnectError, match=rf"cannot connect to \[::1\]:{server.port}"):
            await client.get(server.origin)


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


async def test_a_request_needs_no_httpx_client():
    async with serve(answering(OK)) as server, OriginTransport(server.origin) as transport:
        response = await transport.handle_async_request(httpx.Request("GET", server.origin))
        assert await response.aread() == b"hello"
