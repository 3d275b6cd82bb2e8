"""Many bodies that are delivered at once. On trio one of their tasks reads for all, and whoever leaves hands over."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from enclave import APIConnectionError
from enclave.transport._messages import Response
from enclave.transport.http11._reactor import HAS_EPOLL, Reactor
from enclave.transport.http11._socket_stream import SocketStream
from tests.support import PATIENCE_SECONDS
from tests.support.loops import TRIO
from tests.support.messages import CHUNKED, chunk
from tests.support.origin import client_of, open_sockets
from tests.support.wire import Peer, Server, serve

pytestmark = pytest.mark.anyio
needs_epoll = pytest.mark.skipif(not HAS_EPOLL, reason="needs epoll")

END = b"0\r\n\r\n"


class Line:
    """One of the connections, with both of its ends, and the task that reads it."""

    def __init__(self, peer: Peer, hang_up: anyio.Event) -> None:
        self.peer = peer
        self.hang_up = hang_up
        self.response: Response
        self.scope = anyio.CancelScope()
        self.left = anyio.Event()
        self.error: Exception | None = None
        self.is_faulty = False
        self.taken = b""
        self._came = anyio.Event()

    def take(self, data: bytes) -> bool:
        if self.is_faulty:
            raise ValueError("odd")
        self.taken += data
        self._came.set()
        return self.taken.endswith(b"enough")

    async def run(self) -> None:
        with self.scope:
            try:
                while await self.response.body.deliver(self.take):
                    await anyio.lowlevel.checkpoint()
            except (APIConnectionError, ValueError) as error:
                self.error = error
        await self.response.body.aclose()
        self.left.set()

    async def gets(self, data: bytes) -> None:
        self._came = anyio.Event()
        await self.peer.send(chunk(data))
        while not self.taken.endswith(data):
            await self._came.wait()
            self._came = anyio.Event()


@asynccontextmanager
async def lines(number: int) -> AsyncIterator[list[Line]]:
    """So many bodies, each of which is being delivered."""
    made: list[Line] = []

    async def script(peer: Peer, server: Server) -> None:
        await peer.request()
        line = Line(peer, anyio.Event())
        made.append(line)
        await peer.send(CHUNKED)
        await line.hang_up.wait()

    async with serve(script) as server, client_of(server) as client, anyio.create_task_group() as tasks:
        with anyio.fail_after(PATIENCE_SECONDS):
            for _ in range(number):
                response = await client.send("GET", is_stream=True)
                made[-1].response = response
                tasks.start_soon(made[-1].run)
            await anyio.wait_all_tasks_blocked()
            yield made
            for line in made:
                line.hang_up.set()


async def cancel(line: Line) -> None:
    line.scope.cancel()


async def close(line: Line) -> None:
    await line.response.body.aclose()


async def finish(line: Line) -> None:
    await line.peer.send(END)


async def break_off(line: Line) -> None:
    line.hang_up.set()


async def reset(line: Line) -> None:
    line.peer.reset()
    line.hang_up.set()


async def fail(line: Line) -> None:
    line.is_faulty = True
    await line.peer.send(chunk(b"x"))


def held() -> int:
    """How many sockets and epolls this process has. Event loops keep other files too."""
    count = open_sockets()
    for descriptor in Path("/dev/fd").iterdir():
        with contextlib.suppress(OSError):  # the one that lists the directory is closed by now
            count += "eventpoll" in str(descriptor.readlink())
    return count


@pytest.mark.parametrize("leave", [cancel, close, finish, break_off, reset, fail])
@pytest.mark.parametrize("order", ["oldest first", "youngest first", "at random"])
async def test_whoever_leaves_the_others_get_what_comes(leave, order):
    before = held()
    async with lines(6) as all_of_them:
        assert held() > before
        staying = list(all_of_them)
        if order == "youngest first":
            staying.reverse()
        elif order == "at random":
            random.Random(leave.__name__).shuffle(staying)
        while staying:
            leaving = staying.pop(0)
            await leave(leaving)
            for line in staying:
                await line.gets(b"%d left" % len(staying))
            await leaving.left.wait()
    assert [line.error is None for line in all_of_them] == [leave in (cancel, finish)] * 6
    assert held() == before


async def test_all_may_leave_in_the_same_turn():
    async with lines(6) as all_of_them:
        for line in all_of_them[::2]:
            await cancel(line)
        for line in all_of_them[1::2]:
            await close(line)
        for line in all_of_them:
            await line.left.wait()
    async with lines(2) as later:
        for line in later:
            await line.gets(b"hello")


async def test_one_that_has_enough_for_now_goes_on_when_it_comes_back():
    async with lines(3) as all_of_them:
        for _ in range(5):
            for line in all_of_them:
                await line.gets(b"this is enough")
    assert {line.taken for line in all_of_them} == {b"this is enough" * 5}


async def test_a_wait_that_begins_while_the_last_one_ends_is_not_lost():
    async with lines(2) as (first, second):
        await cancel(first)
        await cancel(second)
        async with lines(1) as (third,):
            await third.gets(b"hello")


async def test_a_fault_in_one_delivery_is_raised_by_that_one_once():
    async with lines(3) as all_of_them:
        for line in all_of_them:
            line.is_faulty = True
            await line.peer.send(chunk(b"x"))
            await line.left.wait()
    assert [repr(line.error) for line in all_of_them] == ["ValueError('odd')"] * 3
    assert len({id(line.error) for line in all_of_them}) == 3


@pytest.mark.parametrize("anyio_backend", [TRIO], indirect=True)
@needs_epoll
async def test_without_a_file_for_an_epoll_each_waits_for_its_own(monkeypatch):
    def refuse() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("enclave.transport.http11._reactor._EPOLL", refuse)
    async with lines(3) as all_of_them:
        for line in all_of_them:
            await line.gets(b"hello")
        await cancel(all_of_them[1])
        for line in all_of_them[::2]:
            await line.gets(b"hello again")


@pytest.mark.parametrize("anyio_backend", [TRIO], indirect=True)
@needs_epoll
async def test_where_the_event_loop_can_watch_no_epoll_each_waits_for_its_own(monkeypatch):
    wait_readable = anyio.wait_readable

    async def refuse(file: Any) -> None:
        if not isinstance(file, socket.socket):
            raise OSError(errno.ENOSPC, "No space left on device")
        await wait_readable(file)

    monkeypatch.setattr(anyio, "wait_readable", refuse)
    async with lines(3) as all_of_them:
        for line in all_of_them:
            await line.gets(b"hello")


@pytest.mark.parametrize("anyio_backend", [TRIO], indirect=True)
async def test_a_socket_that_other_code_has_closed_makes_the_others_not_deaf():
    async with lines(3) as all_of_them:
        for line in all_of_them[:2]:
            connection = line.response.body._lease.connection
            os.close(connection.stream.socket.detach())
            line.scope.cancel()
            await line.left.wait()
            await all_of_them[2].gets(b"hello")


@pytest.mark.parametrize("anyio_backend", [TRIO], indirect=True)
async def test_without_epoll_each_waits_for_its_own(monkeypatch):
    monkeypatch.setattr("enclave.transport.http11._dial.HAS_EPOLL", False)
    async with lines(3) as all_of_them:
        await cancel(all_of_them[1])
        for line in all_of_them[::2]:
            await line.gets(b"hello")


class Pair:
    """A stream on one end of a pair of sockets, for what a response cannot be made to do."""

    def __init__(self, sockets: contextlib.ExitStack, reactor: Reactor, scratch_bytes: int = 65_536) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.peer = sockets.enter_context(theirs)
        self.stream = SocketStream(ours, memoryview(bytearray(scratch_bytes)), reactor)
        sockets.callback(self.stream.close)


@pytest.mark.parametrize("anyio_backend", [TRIO], indirect=True)
@pytest.mark.parametrize("leads", [True, False])
@needs_epoll
async def test_a_fault_is_not_lost_to_a_cancellation_that_comes_with_it(leads):
    def fail(data: bytes) -> bool:
        scope.cancel()
        raise ValueError("odd")

    taken: list[bytes] = []
    scope = anyio.CancelScope()
    reactor = Reactor()
    with contextlib.ExitStack() as sockets, anyio.fail_after(PATIENCE_SECONDS):
        other, one = Pair(sockets, reactor), Pair(sockets, reactor)
        async with anyio.create_task_group() as tasks:
            if not leads:
                tasks.start_soon(other.stream.deliver, bool)
                await anyio.wait_all_tasks_blocked()
            tasks.start_soon(_send_when_blocked, one.peer)
            with scope:
                await one.stream.deliver(fail)
            with pytest.raises(ValueError, match="odd"):
                await one.stream.deliver(bool)
            one.peer.send(b"hello")
            await one.stream.deliver(lambda data: taken.append(data) or True)
            other.peer.send(b"and on")
    assert taken == [b"hello"]


async def _send_when_blocked(peer: socket.socket) -> None:
    await anyio.wait_all_tasks_blocked()
    peer.send(b"x")


@pytest.mark.parametrize("anyio_backend", [TRIO], indirect=True)
@pytest.mark.parametrize("has_enough", [True, False])
@pytest.mark.parametrize("leads", [True, False])
@needs_epoll
async def test_a_stream_may_be_closed_by_what_takes_its_bytes(leads, has_enough):
    def close(data: bytes) -> bool:
        one.stream.close()
        return has_enough

    async def deliver() -> None:
        with contextlib.suppress(anyio.ClosedResourceError):
            await one.stream.deliver(close)
            assert has_enough

    reactor = Reactor()
    with contextlib.ExitStack() as sockets, anyio.fail_after(PATIENCE_SECONDS):
        other, one = Pair(sockets, reactor), Pair(sockets, reactor)
        async with anyio.create_task_group() as tasks:
            for call in (deliver, lambda: other.stream.deliver(bool))[:: 1 if leads else -1]:
                tasks.start_soon(call)
                await anyio.wait_all_tasks_blocked()
            one.peer.send(b"x")
            await anyio.wait_all_tasks_blocked()
            other.peer.send(b"x")


@pytest.mark.parametrize("anyio_backend", [TRIO], indirect=True)
@needs_epoll
async def test_bytes_that_nobody_waits_for_keep_nobody_busy():
    reactor = Reactor()
    with contextlib.ExitStack() as sockets, anyio.fail_after(PATIENCE_SECONDS):
        other, one = Pair(sockets, reactor), Pair(sockets, reactor)
        async with anyio.create_task_group() as tasks:
            for pair in (other, one):
                tasks.start_soon(pair.stream.deliver, bool)
                await anyio.wait_all_tasks_blocked()
            for _ in range(2):  # the second time there is nobody to take them
                one.peer.send(b"x")
                await anyio.wait_all_tasks_blocked()
            tasks.start_soon(one.stream.deliver, bool)
            other.peer.send(b"x")


@pytest.mark.parametrize("anyio_backend", [TRIO], indirect=True)
@needs_epoll
async def test_others_have_their_turn_while_many_are_read():
    taken_in_a_turn = [0]

    def take(data: bytes) -> bool:
        taken_in_a_turn[-1] += 1
        return data.endswith(b"!")

    async def other() -> None:
        while True:
            taken_in_a_turn.append(0)
            await anyio.lowlevel.checkpoint()

    reactor = Reactor()
    with contextlib.ExitStack() as sockets, anyio.fail_after(PATIENCE_SECONDS):
        async with anyio.create_task_group() as others:
            async with anyio.create_task_group() as readers:
                peers = []
                for _ in range(300):
                    pair = Pair(sockets, reactor, 1)  # byte by byte, so that each has several reads to make
                    peers.append(pair.peer)
                    readers.start_soon(pair.stream.deliver, take)
                await anyio.wait_all_tasks_blocked()
                for peer in peers:
                    peer.send(b"hello!")
                others.start_soon(other)
            others.cancel_scope.cancel()
    assert sum(taken_in_a_turn) == 300 * len("hello!")
    # 128 streams read in one turn, each four times at most. Two such turns may come between two of the other task's.
    assert max(taken_in_a_turn) <= 2 * 128 * 4
