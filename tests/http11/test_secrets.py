"""No traceback that renders local variables tells a credential, wherever and however a request fails."""

from __future__ import annotations

import ssl
import traceback
from collections.abc import Iterator

import anyio
import pytest
import trustme

from enclave import APITimeoutError, EnclaveError
from enclave.transport._credential import Secret
from enclave.transport._messages import Headers, Request, Timeouts
from enclave.transport._time_limit import TimeLimit
from enclave.transport.http11 import OriginTransport
from tests.support import PATIENCE_SECONDS
from tests.support.messages import CHUNKED, OK
from tests.support.origin import client_of, read_all
from tests.support.wire import Peer, Server, answering, serve, silent_listener

pytestmark = pytest.mark.anyio

SECRET = "ek_1_hunter2hunter2"
BODY = b"code-with-hunter3hunter3"


def chain(error: BaseException, seen: set[int]) -> Iterator[BaseException]:
    if id(error) in seen:
        return
    seen.add(id(error))
    yield error
    for linked in (error.__cause__, error.__context__, *getattr(error, "exceptions", ())):
        if linked is not None:
            yield from chain(linked, seen)


def assert_silent(error: BaseException) -> None:
    for link in chain(error, set()):
        rendered = "".join(traceback.TracebackException.from_exception(link, capture_locals=True).format())
        ours = [frame for frame, _ in traceback.walk_tb(link.__traceback__) if "http11" in frame.f_code.co_filename]
        assert SECRET not in rendered
        assert BODY.decode() not in rendered
        assert all(SECRET not in repr(value) for frame in ours for value in frame.f_locals.values())


def request(
    *,
    body: bytes = BODY,
    read: float = 0.1,
    write: float | None = 0.2,
    headers: Headers | None = None,
    is_stream: bool = False,
) -> Request:
    return Request(
        "POST",
        "/",
        headers or [],
        credential=Secret(SECRET),
        content=body,
        timeouts=Timeouts(1.0, read, write, 0.1),
        is_stream=is_stream,
    )


async def failure(server: Server, request: Request) -> BaseException:
    async with client_of(server) as client:
        with anyio.fail_after(PATIENCE_SECONDS), pytest.raises((EnclaveError, ValueError)) as caught:
            response = await client.transport.send(request)
            with TimeLimit(request.timeouts.read, "no bytes came"):  # whoever reads a stream limits its body
                await read_all(response)
    return caught.value


@pytest.mark.parametrize(
    "wire",
    [
        b"",
        b"garbage",
        OK[:-1],
        CHUNKED + b"zz",
        b"HTTP/1.1 101 X\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 20000,
    ],
)
@pytest.mark.parametrize("close", [True, False])
async def test_a_failed_response_tells_no_secret(wire, close):
    async with serve(answering(wire, close=close)) as server:
        assert_silent(await failure(server, request()))
        assert_silent(await failure(server, request(is_stream=True)))


async def test_a_reset_while_the_request_is_sent_tells_no_secret():
    async def script(peer: Peer, server: Server) -> None:
        await peer.stream.receive()
        peer.reset()

    async with serve(script) as server:
        assert_silent(await failure(server, request(body=BODY * 1_000_000)))


async def test_a_write_timeout_tells_no_secret():
    with silent_listener() as port:
        server = Server("http", "127.0.0.1", port)
        error = await failure(server, request(body=BODY * 2_000_000))
        assert isinstance(error, APITimeoutError)
        assert_silent(error)


async def test_a_refused_connection_and_a_failed_handshake_tell_no_secret():
    async with serve(answering(OK)) as server:
        pass
    assert_silent(await failure(server, request()))
    async with serve(answering(OK)) as server:
        server.origin = server.origin.replace("http", "https")
        assert_silent(await failure(server, request()))


async def test_a_header_that_cannot_be_sent_tells_no_secret():
    async with serve(answering(OK)) as server:
        for value in (f"Bearer {SECRET}\n", f"Bearer {SECRET}\r\nX: y", f"Bearer {SECRET}\0"):
            error = await failure(server, request(headers=[(b"X-Secret", value.encode())]))
            assert isinstance(error, ValueError)
            assert_silent(error)


@pytest.mark.parametrize("size", [1, 2_000_000])
@pytest.mark.parametrize("tls", [False, True])
async def test_a_cancelled_request_tells_no_secret(size, tls):
    authority = trustme.CA()
    contexts = {}
    if tls:
        server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(server_context)
        contexts = {"tls": server_context}

    def trusting():
        context = ssl.create_default_context()
        authority.configure_trust(context)
        return context

    connected = anyio.Event()

    async def script(peer: Peer, server: Server) -> None:
        await peer.stream.receive()
        connected.set()
        await anyio.sleep_forever()

    caught = []

    async def run(transport: OriginTransport, message: Request) -> None:
        try:
            await transport.send(message)
        except BaseException as error:
            caught.append(error)
            raise

    async with serve(script, **contexts) as server, client_of(server, ssl_context=trusting) as client:
        message = request(body=BODY * size, read=60, write=None)
        with anyio.fail_after(PATIENCE_SECONDS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run, client.transport, message)
                await connected.wait()
                await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()
    assert isinstance(caught[0], anyio.get_cancelled_exc_class())
    assert_silent(caught[0])
