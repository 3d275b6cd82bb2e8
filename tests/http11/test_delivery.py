"""Bodies that are handed over as they come, as streams of sessions are: in order, once, and until they break."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable
from contextlib import closing

import anyio
import pytest

from enclave import APIConnectionError, UsageError
from enclave.transport._messages import Body, Response
from tests.support import PATIENCE_SECONDS
from tests.support.loops import ASYNCIO, UVLOOP
from tests.support.messages import CHUNKED, OK, chunk
from tests.support.origin import assert_whole, client_of
from tests.support.stepping import cancel_at, ways
from tests.support.tls import TLSPeer, server_tls, trusting
from tests.support.wire import Peer, Server, answering, serve

pytestmark = pytest.mark.anyio

LINES = [b"%06d" % number * (number % 7 * 300 + 1) for number in range(200)]
TEXT = b"".join(LINES)
END = b"0\r\n\r\n"


class Taken:
    """What a body has delivered. It has enough after each so many pieces."""

    def __init__(self, *, at_once: int | None = None) -> None:
        self.pieces: list[bytes] = []
        self._at_once = at_once

    def __call__(self, data: bytes) -> bool:
        self.pieces.append(data)
        return self._at_once is not None and len(self.pieces) % self._at_once == 0

    @property
    def text(self) -> bytes:
        return b"".join(self.pieces)


async def deliver_all(body: Body, take: Callable[[bytes], bool], away: int = 0) -> None:
    with anyio.fail_after(PATIENCE_SECONDS):
        while await body.deliver(take):
            for _ in range(away):
                await anyio.lowlevel.checkpoint()


async def lines(peer: Peer, server: Server) -> None:
    await peer.request()
    await peer.send(CHUNKED)
    for line in LINES:
        await peer.send(chunk(line))
    await peer.send(END)
    await peer.closed_by_client()


async def lines_in_tls(peer: Peer, server: Server) -> None:
    tls = TLSPeer(peer, server_tls())
    await tls.request()
    await tls.send(tls.records(CHUNKED))
    for line in LINES:
        await tls.send(tls.records(chunk(line), 1000))
    await tls.send(tls.records(END) + tls.goodbye())
    await peer.closed_by_client()


def origin(server: Server, script: object) -> str:
    return f"https://localhost:{server.port}" if script is lines_in_tls else server.origin


@pytest.mark.parametrize("script", [lines, lines_in_tls])
@pytest.mark.parametrize(("at_once", "away"), [(None, 0), (1, 0), (1, 5), (3, 20)])
async def test_all_of_a_body_is_delivered_in_order_to_a_reader_that_is_fast_or_slow(script, at_once, away):
    take = Taken(at_once=at_once)
    async with serve(script) as server, client_of(origin(server, script), ssl_context=trusting) as client:
        async with client.stream(is_stream=True) as response:
            await deliver_all(response.body, take, away)
            assert response.body.is_complete
        assert_whole(client)
    assert take.text == TEXT
    assert all(take.pieces)


@pytest.mark.parametrize("script", [lines, lines_in_tls])
async def test_a_delivery_cancelled_at_each_of_its_steps_goes_on_where_it_stood(script):
    async with serve(script) as server, client_of(origin(server, script), ssl_context=trusting) as client:
        for way in ways():
            take = Taken()
            async with client.stream(is_stream=True) as response:
                for step in range(60):

                    async def operation(response: Response = response, take: Taken = take) -> bool:
                        return await response.body.deliver(take)

                    attempt = await cancel_at(step % 12, operation, way)
                    assert attempt.error is None
                    if attempt.completed:
                        break
                else:
                    await deliver_all(response.body, take)
            assert take.text == TEXT
        assert_whole(client)


async def test_reading_and_delivery_take_turns_on_one_body():
    chance = random.Random(1)
    take = Taken(at_once=1)
    async with serve(lines) as server, client_of(server) as client, client.stream(is_stream=True) as response:
        with anyio.fail_after(PATIENCE_SECONDS):
            more = True
            while more:
                if chance.random() < 0.5:
                    more = await response.body.deliver(take)
                else:
                    data = await response.body.read()
                    more = not take(data) or bool(data)
    assert take.text == TEXT


async def test_the_body_of_a_request_is_delivered_within_its_time_limit():
    take = Taken()
    async with serve(answering(OK)) as server, client_of(server) as client:
        async with client.stream() as response:
            await deliver_all(response.body, take)
        assert_whole(client)
    assert take.text == b"hello"


@pytest.mark.parametrize(
    ("ending", "message"),
    [
        (b"no chunk\r\n", "the response's body is not HTTP/1.1"),
        (b"", "the server closed the connection within the response: incomplete body, 5 bytes received"),
    ],
)
@pytest.mark.parametrize("apart", [False, True])
async def test_what_came_before_a_body_breaks_is_delivered_first_and_then_the_break(ending, message, apart):
    async def script(peer: Peer, server: Server) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        await go_on.wait()
        if apart:
            await peer.send(chunk(b"hello"))
            await came.wait()
            await peer.send(ending)
        else:
            await peer.send(chunk(b"hello") + ending)
        if ending:  # what is no HTTP is no HTTP whatever follows
            await peer.closed_by_client()

    def take(data: bytes) -> bool:
        taken.append(data)
        came.set()
        return False

    taken: list[bytes] = []
    go_on, came = anyio.Event(), anyio.Event()
    async with serve(script) as server, client_of(server) as client:
        async with client.stream(is_stream=True) as response:
            go_on.set()
            with pytest.raises(APIConnectionError, match=message) as raised:
                await deliver_all(response.body, take)
            assert raised.value.__context__ is None  # nor the frames that it would refer to
        assert_whole(client)
    assert taken == [b"hello"]


async def test_a_body_has_one_reader_at_a_time():
    async def script(peer: Peer, server: Server) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        await refused.wait()
        await peer.send(chunk(b"hello") + END)
        await peer.closed_by_client()

    async def read(body: Body) -> None:
        take(await body.read())

    async def deliver(body: Body) -> None:
        await body.deliver(take)

    for first in (read, deliver):
        refused = anyio.Event()
        take = Taken()
        async with serve(script) as server, client_of(server) as client, client.stream(is_stream=True) as response:
            with anyio.fail_after(PATIENCE_SECONDS):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(first, response.body)
                    await anyio.wait_all_tasks_blocked()
                    for second in (response.body.read, lambda: response.body.deliver(Taken())):
                        with pytest.raises(UsageError):
                            await second()
                    refused.set()
        assert take.text == b"hello"


@pytest.mark.parametrize("script", [lines, lines_in_tls])
async def test_a_fault_of_whoever_takes_the_bytes_is_raised_to_whoever_waits(script):
    def take(data: bytes) -> bool:
        raise RecursionError("deep")

    async with serve(script) as server, client_of(origin(server, script), ssl_context=trusting) as client:
        async with client.stream(is_stream=True) as response:
            with pytest.raises(RecursionError, match="deep"):
                await deliver_all(response.body, take)
        assert_whole(client)


async def test_closing_a_body_ends_a_delivery():
    async def script(peer: Peer, server: Server) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        await peer.closed_by_client()

    async def deliver(body: Body) -> None:
        with pytest.raises(APIConnectionError, match="ClosedResourceError"):
            await body.deliver(Taken())

    async with serve(script) as server, client_of(server) as client, client.stream(is_stream=True) as response:
        with anyio.fail_after(PATIENCE_SECONDS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(deliver, response.body)
                await anyio.wait_all_tasks_blocked()
                await response.body.aclose()


@pytest.mark.parametrize("anyio_backend", [ASYNCIO, UVLOOP], indirect=True)
async def test_others_have_their_turn_while_a_flood_is_delivered():
    """uvloop reads on and on as long as a read fills the buffer."""
    from enclave.transport.http11._asyncio_stream import AsyncioStream  # noqa: PLC0415 - names asyncio

    taken, taken_in_a_turn = 0, [0]

    def take(data: bytes) -> bool:
        nonlocal taken
        taken += len(data)
        taken_in_a_turn[-1] += 1
        return taken == sent

    async def other() -> None:
        while True:
            taken_in_a_turn.append(0)
            await anyio.lowlevel.checkpoint()

    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    with theirs, anyio.fail_after(PATIENCE_SECONDS):
        sent = theirs.send(bytes(64 * 1024))
        stream = await AsyncioStream.wrap(ours, memoryview(bytearray(1024)))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other)
            while taken < sent:
                await stream.deliver(take)
            tasks.cancel_scope.cancel()
        stream.close()
        await anyio.lowlevel.checkpoint()
    assert max(taken_in_a_turn) <= 2


@pytest.mark.parametrize("library", ["asyncio", "uvloop"])
def test_an_interrupt_that_strikes_in_a_delivery_is_not_taken_for_bytes_that_were_delivered(library):
    """Where nobody keeps Ctrl-C out of the event loop, it is raised by whatever runs."""
    from enclave.transport.http11._asyncio_stream import AsyncioStream  # noqa: PLC0415 - names asyncio

    def take(data: bytes) -> bool:
        raise KeyboardInterrupt

    async def deliver(ours: socket.socket) -> None:
        stream = await AsyncioStream.wrap(ours, memoryview(bytearray(65_536)))
        try:
            await stream.deliver(take)
        finally:
            stream.close()

    loop = pytest.importorskip(library).new_event_loop()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs, closing(loop):
        theirs.send(b"x")
        task = loop.create_task(deliver(ours))
        while not task.done():
            with pytest.raises(KeyboardInterrupt):
                loop.run_until_complete(asyncio.wait({task}, timeout=PATIENCE_SECONDS))
        assert isinstance(task.exception(), KeyboardInterrupt)
        loop.run_until_complete(asyncio.sleep(0))
