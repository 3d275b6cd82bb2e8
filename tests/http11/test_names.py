"""A host by its name: look-ups that are shared, slow or failing, and the race between the addresses that they give."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import anyio
import pytest

from enclave import ConfigurationError, ConnectError, ConnectTimeoutError
from enclave.transport.http11 import _resolver
from enclave.transport.http11._resolver import MAX_ADDRESSES
from tests.support import PATIENCE_SECONDS
from tests.support.loops import ASYNCIO, TRIO, UVLOOP
from tests.support.messages import CHUNKED, OK
from tests.support.names import Names, Sockaddr, black_hole
from tests.support.origin import Client, assert_whole, client_of, dial, open_sockets, pool_of
from tests.support.tls import server_tls, trusting
from tests.support.wire import Peer, Server, answering, refused_port, serve

pytestmark = pytest.mark.anyio

HOST = "plane.example"
URL = f"http://{HOST}:8088"


@pytest.fixture(params=[ASYNCIO, TRIO, UVLOOP])
def anyio_backend(request):
    return request.param


@pytest.fixture
def names(monkeypatch):
    return Names(monkeypatch)


def address(server: Server) -> Sockaddr:
    return ("127.0.0.1", server.port)


@contextmanager
def leading_nowhere(kinds: str) -> Iterator[list[Sockaddr]]:
    """Addresses: `r` refuses a connection, `h` lets it hang."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(black_hole()) if kind == "h" else ("127.0.0.1", stack.enter_context(refused_port()))
            for kind in kinds
        ]


async def assert_no_more_open_sockets(expected: int) -> None:
    """Wait until no more sockets are open. There may be fewer, if the collector closed those of earlier tests."""
    with anyio.fail_after(PATIENCE_SECONDS):
        while open_sockets() > expected:  # the server's end closes in a task of its own
            await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("before", ["", "r", "h", "rr", "rh", "hr", "hh"])
async def test_an_address_that_answers_is_found_behind_others_that_do_not(names, before):
    async with serve(answering(OK)) as server, client_of(URL) as client:
        with leading_nowhere(before) as nowhere, anyio.fail_after(PATIENCE_SECONDS):
            names.entries[HOST] = [*nowhere, address(server)]
            sockets = open_sockets()
            assert (await client.get()).content == b"hello"
            assert_whole(client)
            await assert_no_more_open_sockets(sockets + 2)  # both ends of the idle connection, and no attempt
        assert f"Host: {HOST}:8088".encode() in server.requests[0]


async def test_no_other_address_is_tried_where_the_first_one_answers(names):
    async with serve(answering(OK)) as first, serve(answering(OK)) as second, client_of(URL) as client:
        names.entries[HOST] = [address(first), address(second)]
        with anyio.fail_after(PATIENCE_SECONDS):
            assert (await client.get()).content == b"hello"
            await anyio.wait_all_tasks_blocked()
        assert (first.connections, second.connections) == (1, 0)


async def test_a_name_that_has_only_an_ipv6_address_is_reached(names):
    async with serve(answering(OK), local_host="::1") as server, client_of(URL) as client:
        names.entries[HOST] = [("::1", server.port, 0, 0)]
        assert (await client.get()).content == b"hello"


async def test_a_name_is_reached_by_the_family_that_answers(names):
    async with serve(answering(OK)) as server, client_of(URL) as client:
        with leading_nowhere("r") as [(_, port)]:
            names.entries[HOST] = [("::1", port, 0, 0), address(server)]
            assert (await client.get()).content == b"hello"


class WithoutIPv6(socket.socket):
    """What a socket is on a machine that was built without a family."""

    def __init__(self, family: int = -1, *arguments: int, **options: int) -> None:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        super().__init__(family, *arguments, **options)


async def test_an_address_of_a_family_that_the_machine_lacks_is_passed_over_and_told_where_none_answers(
    names, monkeypatch
):
    async with serve(answering(OK)) as server, client_of(URL) as client:
        monkeypatch.setattr(socket, "socket", WithoutIPv6)
        with leading_nowhere("r") as [refusing], anyio.fail_after(PATIENCE_SECONDS):
            names.entries[HOST] = [("::1", server.port, 0, 0), refusing]
            with pytest.raises(ConnectError, match=rf"\(::1, 127.0.0.1\): ::1: {os.strerror(errno.EAFNOSUPPORT)}, "):
                await client.get()
            names.entries[HOST] = [("::1", server.port, 0, 0), address(server)]
            assert (await client.get()).content == b"hello"
            assert_whole(client)


async def test_a_certificate_is_verified_for_the_name_whichever_address_answers(names):
    async with (
        serve(answering(OK), tls=server_tls(HOST)) as server,
        client_of(f"https://{HOST}", ssl_context=trusting) as client,
    ):
        with leading_nowhere("rh") as nowhere, anyio.fail_after(PATIENCE_SECONDS):
            names.entries[HOST] = [*nowhere, address(server)]
            assert (await client.get()).content == b"hello"


async def test_bytes_that_a_server_sends_at_once_are_not_lost(names):
    async def script(peer: Peer, server: Server) -> None:
        await peer.send(b"too early")
        await peer.closed_by_client()

    async with serve(script) as server, client_of(URL) as client:
        names.entries[HOST] = [address(server)]
        for _ in range(50):
            connection = await dial(client)
            assert await connection.receive() == b"too early"
            pool_of(client).discard(connection)


# When nothing answers


async def test_the_error_names_every_address_that_refused(names):
    async with client_of(URL) as client:
        with leading_nowhere("rr") as [first, (_, port)]:
            names.entries[HOST] = [first, ("127.0.0.2", port)]
            with anyio.fail_after(PATIENCE_SECONDS), pytest.raises(ConnectError) as caught:
                await client.get()
        assert str(caught.value).startswith(f"cannot connect to {HOST}:8088 (127.0.0.1, 127.0.0.2): ")
        assert str(caught.value).endswith("(ConnectionRefusedError)")
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)
        assert_whole(client)


async def test_the_error_says_what_each_address_failed_with_where_they_differ(names):
    async with client_of(URL) as client:
        with leading_nowhere("r") as [refusing]:
            # No packet leaves the machine for this one: an address of the documentation range with a bad zone.
            names.entries[HOST] = [("fe80::1", 80, 0, 999_999), refusing]
            with anyio.fail_after(PATIENCE_SECONDS), pytest.raises(ConnectError) as caught:
                await client.get()
        text = str(caught.value)
        assert text.startswith(f"cannot connect to {HOST}:8088 (fe80::1, 127.0.0.1): fe80::1: ")
        assert f"127.0.0.1: {os.strerror(111)}" in text
        assert_whole(client)


@pytest.mark.parametrize("kinds", ["h", "hh", "rh"])
async def test_the_time_limit_is_for_all_addresses_and_its_error_names_them(names, kinds):
    async with client_of(URL) as client:
        with leading_nowhere(kinds) as nowhere:
            names.entries[HOST] = nowhere
            sockets = open_sockets()
            with anyio.fail_after(PATIENCE_SECONDS), pytest.raises(ConnectTimeoutError) as caught:
                await client.get(connect=1.5)
            tried = ", ".join("127.0.0.1" for _ in kinds)
            assert str(caught.value) == f"no connection to {HOST}:8088 ({tried}) within 1.5 s"
            assert_whole(client)
            await assert_no_more_open_sockets(sockets)


async def test_no_more_addresses_are_tried_than_a_bound(names):
    async with client_of(URL) as client:
        with leading_nowhere("r") as [(_, port)]:
            names.entries[HOST] = [(f"127.0.0.{number}", port) for number in range(1, 200)]
            with anyio.fail_after(PATIENCE_SECONDS), pytest.raises(ConnectError) as caught:
                await client.get()
        assert str(caught.value).count("127.0.0.") == MAX_ADDRESSES


async def test_a_name_without_an_internet_address_is_a_connect_error(names, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(socket.AF_UNIX, socket.SOCK_STREAM, 0, "", "/run/x")])
    async with client_of(URL) as client:
        with anyio.fail_after(PATIENCE_SECONDS), pytest.raises(ConnectError, match=f"{HOST}:8088: .*no address"):
            await client.get()


async def test_a_name_that_cannot_be_is_a_configuration_error(monkeypatch):
    monkeypatch.undo()  # the real look-up refuses it before it asks anybody
    async with client_of(f"http://{'a' * 64}.example") as client:
        with anyio.fail_after(PATIENCE_SECONDS), pytest.raises(ConfigurationError, match="cannot connect to aaa"):
            await client.get()


# Look-ups


async def get_many(client: Client, count: int) -> int:
    """Send so many requests at once, on a connection each. Gives how many were answered."""
    answered = 0

    async def one() -> None:
        nonlocal answered
        try:
            async with client.stream(is_stream=True):
                answered += 1
        except ConnectError:
            pass

    with anyio.fail_after(PATIENCE_SECONDS):
        async with anyio.create_task_group() as tasks:
            for _ in range(count):
                tasks.start_soon(one)
    return answered


async def test_a_burst_of_connections_looks_the_name_up_once(names, monkeypatch):
    monkeypatch.setattr(_resolver, "SHARED_SECONDS", 1_000)
    async with serve(answering(CHUNKED)) as server, client_of(URL) as client:
        names.entries[HOST] = [address(server)]
        assert await get_many(client, 50) == 50
        assert await get_many(client, 50) == 50
        assert names.asked == [HOST]


async def test_a_look_up_serves_for_a_short_time(names, monkeypatch):
    monkeypatch.setattr(_resolver, "SHARED_SECONDS", 0)
    async with serve(answering(CHUNKED)) as server, client_of(URL) as client:
        names.entries[HOST] = [address(server)]
        assert await get_many(client, 1) == 1
        assert await get_many(client, 1) == 1
        assert names.asked == [HOST] * 2


async def test_a_failed_look_up_is_not_kept(names):
    async with serve(answering(CHUNKED)) as server, client_of(URL) as client:
        assert await get_many(client, 1) == 0
        names.entries[HOST] = [address(server)]
        assert await get_many(client, 1) == 1
        assert names.asked == [HOST] * 2


async def test_addresses_that_led_nowhere_are_looked_up_again_once(names):
    async with serve(answering(CHUNKED)) as server, client_of(URL) as client:
        with leading_nowhere("r") as nowhere:
            names.entries[HOST] = nowhere
            assert await get_many(client, 20) == 0
        names.entries[HOST] = [address(server)]
        assert await get_many(client, 20) == 20
        assert names.asked == [HOST] * 2


async def test_one_who_is_cancelled_leaves_the_look_up_to_the_others(names):
    answers = []

    async def one(client: Client) -> None:
        answers.append((await client.get()).content)

    async with serve(answering(OK)) as server, client_of(URL) as client, anyio.create_task_group() as tasks:
        names.entries[HOST] = [address(server)]
        with names.hanging():
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as first:
                    first.start_soon(one, client)
                    await anyio.wait_all_tasks_blocked()
                    tasks.start_soon(one, client)
                    await anyio.wait_all_tasks_blocked()
                    scope.cancel()
            assert answers == []
        with anyio.fail_after(PATIENCE_SECONDS):
            while not answers:
                await anyio.lowlevel.checkpoint()
        assert answers == [b"hello"]
        assert names.asked == [HOST]
        assert_whole(client)


async def test_a_look_up_that_hangs_ends_with_the_time_limit(names):
    async with client_of(URL) as client:
        with names.hanging():
            with anyio.fail_after(PATIENCE_SECONDS), pytest.raises(ConnectTimeoutError) as caught:
                await client.get(connect=0.1)
            assert str(caught.value) == f"no connection to {HOST}:8088 within 0.1 s: its name was not looked up by then"
            assert_whole(client)


# Cancellation


async def test_a_race_that_is_cancelled_at_each_of_its_steps_leaves_no_socket(names, monkeypatch):
    monkeypatch.setattr("enclave.transport.http11._race.ATTEMPT_DELAY_SECONDS", 0)
    cancelled = 0
    async with (
        serve(answering(OK), tls=server_tls(HOST)) as server,
        client_of(f"https://{HOST}", ssl_context=trusting, keepalive_seconds=0) as client,
    ):
        with leading_nowhere("rhh") as nowhere:
            names.entries[HOST] = [*nowhere, address(server)]
            sockets = open_sockets()
            for steps in range(40):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(client.get)
                    for _ in range(steps):
                        await anyio.lowlevel.checkpoint()
                    tasks.cancel_scope.cancel()
                cancelled += tasks.cancel_scope.cancelled_caught
                assert_whole(client)
            await assert_no_more_open_sockets(sockets)
    assert cancelled


PROGRAM = """
import socket, sys, threading
import anyio
from enclave import EnclaveClient

asked = threading.Event()

def never(host, *_arguments, **_options):
    asked.set()
    threading.Event().wait()

socket.getaddrinfo = never

async def main():
    async with EnclaveClient("http://plane.example:8088") as client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.health)
        while not asked.is_set():
            await anyio.sleep(0.001)
        tasks.cancel_scope.cancel()

anyio.run(main, backend=sys.argv[1])
print("the event loop has ended")
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_neither_the_event_loop_nor_the_process_waits_for_a_look_up(backend):
    with anyio.fail_after(PATIENCE_SECONDS):
        process = await anyio.run_process([sys.executable, "-c", PROGRAM, backend], stderr=subprocess.STDOUT)
    assert process.stdout.strip() == b"the event loop has ended"
