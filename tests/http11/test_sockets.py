"""Which kind of socket a connection gets: the loop's own, whichever way the host is named."""

from __future__ import annotations

import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import anyio
import pytest

import enclave
from enclave import APIConnectionError
from enclave.transport._credential import Secret
from enclave.transport._settings import Settings
from enclave.transport._transports import Transports
from tests.support import PATIENCE_SECONDS
from tests.support.loops import ASYNCIO, TRIO, UVLOOP
from tests.support.messages import CHUNKED, OK
from tests.support.origin import Client, client_of, dial, pool_of, read_all
from tests.support.wire import Peer, Server, answering, in_thread, reset_on_close, serve

pytestmark = pytest.mark.anyio


async def test_a_host_known_by_name_is_served_like_one_known_by_address():
    async with serve(answering(OK), name="localhost") as server, client_of(server) as client:
        for _ in range(3):
            with anyio.fail_after(PATIENCE_SECONDS):
                assert (await client.get("/")).content == b"hello"
        assert len(pool_of(client).idle) == 1
    assert server.connections == 1


async def test_connecting_by_name_cancelled_at_each_of_its_steps_leaves_no_socket():
    async with serve(answering(OK), name="localhost") as server, client_of(server) as client:
        with anyio.fail_after(PATIENCE_SECONDS):
            for steps in range(40):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(client.get, "/")
                    for _ in range(steps):
                        await anyio.lowlevel.checkpoint()
                    tasks.cancel_scope.cancel()
            assert (await client.get("/")).content == b"hello"
        assert pool_of(client).open == set(pool_of(client).idle)


@pytest.mark.skipif(sys.platform == "win32", reason="there select counts sockets, and takes any descriptor")
async def test_a_process_with_thousands_of_open_files_uses_its_idle_connections_again():
    import resource  # noqa: PLC0415 - not on Windows

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], 4096), limits[1]))
    with ExitStack() as files:
        files.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        for _ in range(1024):  # select.select takes no descriptor that is larger
            files.enter_context(socket.socket())
        async with serve(answering(OK)) as server, client_of(server) as client:
            for _ in range(2):
                assert (await client.get("/")).content == b"hello"
    assert server.connections == 1


async def test_what_came_before_a_reader_that_was_away_is_all_there_when_it_comes_back():
    """The socket is read ahead of its reader, but not far, and nothing of that is lost or out of order."""
    pieces = [b"%06d" % number * 2000 for number in range(300)]

    async def script(peer: Peer, server: Server) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        for piece in pieces:
            await peer.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        await peer.send(b"0\r\n\r\n")

    received = b""
    async with serve(script) as server, client_of(server) as client:
        async with client.stream(is_stream=True) as response:
            with anyio.fail_after(PATIENCE_SECONDS):
                while data := await response.body.read():
                    received += data
                    for _ in range(5):  # meanwhile the event loop reads on
                        await anyio.lowlevel.checkpoint()
    assert received == b"".join(pieces)


@pytest.mark.parametrize("anyio_backend", [ASYNCIO, TRIO, UVLOOP], indirect=True)
async def test_a_connection_says_whether_it_was_closed_here_or_reset_by_the_peer():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with client_of(f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
            with anyio.fail_after(PATIENCE_SECONDS):
                connection = await dial(client)
                listener.accept()[0].close()
                for _ in range(2):
                    connection.close()
                with pytest.raises(APIConnectionError, match=r"while the response was read: ClosedResourceError$"):
                    await connection.receive()
                with pytest.raises(APIConnectionError, match=r"while the request was sent: ClosedResourceError$"):
                    await connection.send(memoryview(b"x"))
                connection = await dial(client)
                peer, _ = listener.accept()
                reset_on_close(peer)
                peer.close()
                with pytest.raises(APIConnectionError, match=r"\(ConnectionResetError\)$"):
                    await connection.receive()
                pool_of(client).discard(connection)


def test_a_trio_program_imports_neither_asyncio_nor_httpx_for_a_request():
    code = """
import sys, trio
from enclave import ConnectError, EnclaveClient

async def main():
    async with EnclaveClient("http://127.0.0.1:9", retry=None) as client:
        try:
            await client.health()
        except ConnectError:
            print("asyncio" in sys.modules, "httpx" in sys.modules)

trio.run(main)
"""
    root = Path(enclave.__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=root, text=True)
    assert done.stdout == "False False\n"


@pytest.mark.parametrize("anyio_backend", [ASYNCIO], indirect=True)
async def test_trio_as_a_guest_of_asyncio_gets_sockets_of_trios():
    import asyncio  # noqa: PLC0415 - the host loop is the point of this test

    import trio  # noqa: PLC0415

    async with serve(answering(OK)) as server:

        async def guest() -> bytes:
            async with client_of(server) as client:
                return (await client.get()).content

        loop = asyncio.get_running_loop()
        done = loop.create_future()
        trio.lowlevel.start_guest_run(
            guest, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=done.set_result
        )
        with anyio.fail_after(PATIENCE_SECONDS):
            assert (await done).unwrap() == b"hello"


@pytest.mark.parametrize("anyio_backend", [ASYNCIO, UVLOOP], indirect=True)
async def test_sending_again_after_a_cancelled_send_waits_for_the_peer_and_no_more():
    from enclave.transport.http11._asyncio_stream import AsyncioStream  # noqa: PLC0415 - names asyncio

    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    stream = await AsyncioStream.wrap(ours, memoryview(bytearray(65_536)))

    async def drain() -> None:
        while True:
            await anyio.wait_readable(theirs)
            theirs.recv(1_048_576)

    with theirs, anyio.fail_after(PATIENCE_SECONDS):
        with anyio.move_on_after(0.1) as scope:
            await stream.send(bytes(4 * 1024 * 1024))
        assert scope.cancelled_caught
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(drain)
            await stream.send(b"the rest")
            tasks.cancel_scope.cancel()
        stream.close()
        await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("anyio_backend", [ASYNCIO, UVLOOP], indirect=True)
async def test_others_have_their_turn_while_the_kernel_takes_all_that_is_sent():
    from enclave.transport.http11._asyncio_stream import AsyncioStream  # noqa: PLC0415 - names asyncio

    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    stream = await AsyncioStream.wrap(ours, memoryview(bytearray(65_536)))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    with theirs, anyio.fail_after(PATIENCE_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other)
            for _ in range(100):
                await stream.send(b"x")
            assert turns >= 10
            tasks.cancel_scope.cancel()
        stream.close()
        await anyio.lowlevel.checkpoint()


def test_one_client_serves_two_event_loops_at_once_without_mixing_their_bytes():
    bodies = {name: b'{"backend":"%s","ok":true}' % (name * 30_000) for name in (b"a", b"b")}

    async def script(peer: Peer, server: Server) -> None:
        while (request := await peer.request()) is not None:
            body = bodies[b"a" if b"user-agent: a" in request.lower() else b"b"]
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    async def use(name: bytes) -> None:
        transport = transports[name]
        for _ in range(200):
            response = await transport.send(Client(transport).request("GET", headers=[(b"User-Agent", name)]))
            assert await read_all(response) == bodies[name]
        await transport.aclose()

    with in_thread(serve(script)) as server, ThreadPoolExecutor(2) as threads:
        settings = Settings.resolve(
            Secret(server.origin),
            api_key=Secret(None),
            token=Secret(None),
            timeout=None,
            max_event_bytes=1,
            max_response_bytes=1,
            max_buffered_bytes=1,
        )
        shared = Transports(settings, None)
        transports = dict.fromkeys((b"a", b"b"), shared)
        for done in [threads.submit(anyio.run, use, name) for name in bodies]:
            done.result(PATIENCE_SECONDS)
