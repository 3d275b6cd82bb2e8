"""What goes over the wire for a request, and uploads that the server cuts short."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import anyio
import httpx
import pytest

from enclave.transport.http11 import OriginTransport
from enclave.transport.http11._request import prepare
from tests.support.messages import CHUNKED, OK
from tests.support.origin import assert_whole, client_of, pool_of
from tests.support.wire import Peer, Server, answering, serve

pytestmark = pytest.mark.anyio

BIG = bytes(range(256)) * 4096


async def pieces(*parts: bytes) -> AsyncGenerator[bytes]:
    for part in parts:
        yield part


async def test_a_request_is_sent_as_httpx_gives_it():
    async with serve(answering(OK)) as server, client_of(server) as client:
        await client.get("/a/b%20c", params={"q": "ü"}, headers={"X-Case": "Kept"})
    head = server.requests[0]
    assert head.startswith(b"GET /a/b%20c?q=%C3%BC HTTP/1.1\r\n")
    assert b"\r\nX-Case: Kept\r\n" in head
    assert head.count(b"\r\nHost: 127.0.0.1:%d\r\n" % server.port) == 1
    assert head.endswith(b"\r\n\r\n")


async def test_header_bytes_travel_unchanged():
    async with serve(answering(OK)) as server, client_of(server) as client:
        await client.get("/", headers=[(b"Last-Event-ID", "é-7".encode())])
    assert b"Last-Event-ID: \xc3\xa9-7\r\n" in server.requests[0]


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, len(BIG)])
async def test_a_body_in_memory_arrives_with_its_length(size):
    async with serve(answering(OK)) as server, client_of(server) as client:
        with anyio.fail_after(10):
            await client.post("/", content=BIG[:size])
            await client.post("/", content=BIG[:size])
    assert server.connections == 1
    for request in server.requests:
        assert b"\r\nContent-Length: %d\r\n" % size in request
        assert request.partition(b"\r\n\r\n")[2] == BIG[:size]


async def test_a_streamed_body_is_chunked_and_the_connection_is_used_again():
    async def script(peer: Peer, server: Server) -> None:
        for _ in range(2):
            server.requests.append(await peer.receive_all_until(b"0\r\n\r\n"))
            await peer.send(OK)

    async with serve(script) as server, client_of(server) as client:
        for _ in range(2):
            with anyio.fail_after(5):
                await client.post("/", content=pieces(b"hello", b"", b"world"))
    assert server.connections == 1
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert b"\r\nTransfer-Encoding: chunked" in head
    assert body == b"5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n"


async def test_a_streamed_body_with_a_length_is_sent_as_is():
    async with serve(answering(OK)) as server, client_of(server) as client:
        await client.post("/", content=pieces(b"hel", b"lo"), headers={"Content-Length": "5"})
    assert server.requests[0].endswith(b"\r\n\r\nhello")


@pytest.mark.parametrize("parts", [(b"hell",), (b"hello", b"!")])
async def test_a_streamed_body_that_belies_its_length_is_refused(parts):
    async with serve(answering(OK)) as server, client_of(server) as client:
        with anyio.fail_after(5), pytest.raises(httpx.LocalProtocolError, match=r"(more|less) than its Content-Length"):
            async with aclosing(pieces(*parts)) as content:
                await client.post("/", content=content, headers={"Content-Length": "5"})
        assert not pool_of(client).open
        assert_whole(client)


async def test_an_error_of_the_body_stream_reaches_the_caller_as_it_is():
    closed = []

    async def failing() -> AsyncGenerator[bytes]:
        try:
            yield b"x"
            raise KeyError("mine")
        finally:
            closed.append(True)

    async with serve(answering(OK)) as server, client_of(server) as client:
        with pytest.raises(KeyError, match="mine"):
            await client.post("/", content=failing())
        assert closed == [True]
        assert not pool_of(client).open
        assert_whole(client)


REFUSAL = b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 5\r\n\r\nlarge"


async def endless() -> AsyncGenerator[bytes]:
    while True:
        yield b"x" * 65_536


@pytest.mark.parametrize("drains", [True, False])
async def test_a_refusal_in_the_middle_of_an_upload_is_delivered_and_the_connection_dropped(drains):
    async def script(peer: Peer, server: Server) -> None:
        await peer.stream.receive()
        await peer.send(REFUSAL[:-3])
        await peer.send(REFUSAL[-3:])
        if drains:
            await peer.closed_by_client()
        else:
            await anyio.sleep_forever()

    async with serve(script) as server, client_of(server) as client:
        async with aclosing(endless()) as content:
            with anyio.fail_after(10):
                response = await client.post("/", content=content)
        assert (response.status_code, response.content) == (413, b"large")
        assert not pool_of(client).open
        assert_whole(client)


async def test_a_server_that_closes_in_the_middle_of_an_upload_is_an_error():
    async def script(peer: Peer, server: Server) -> None:
        await peer.stream.receive()

    async with serve(script) as server, client_of(server) as client, aclosing(endless()) as content:
        with anyio.fail_after(10), pytest.raises((httpx.NetworkError, httpx.RemoteProtocolError)) as caught:
            await client.post("/", content=content)
        assert str(caught.value)
        assert_whole(client)


async def test_an_early_success_does_not_cut_the_upload_short():
    async def script(peer: Peer, server: Server) -> None:
        await peer.stream.receive()
        await peer.send(CHUNKED)
        server.requests.append(await peer.receive_all_until(b"0\r\n\r\n"))
        await peer.send(b"2\r\nok\r\n0\r\n\r\n")

    async with serve(script) as server, client_of(server) as client:
        with anyio.fail_after(10):
            response = await client.post("/", content=pieces(*[b"y" * 65_536] * 20))
    assert response.content == b"ok"
    assert server.requests[0].count(b"y") > 19 * 65_536


async def test_an_interim_answer_does_not_end_an_upload():
    async def script(peer: Peer, server: Server) -> None:
        await peer.stream.receive()
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await peer.receive_all_until(b"0\r\n\r\n")
        await peer.send(OK)

    async with serve(script) as server, client_of(server) as client:
        with anyio.fail_after(10):
            response = await client.post("/", content=pieces(*[b"y" * 65_536] * 10))
    assert response.content == b"hello"


async def test_a_request_that_asks_to_close_is_not_followed_by_another():
    async with serve(answering(OK)) as server, client_of(server) as client:
        for _ in range(2):
            await client.get("/", headers={"Connection": "close"})
            assert not pool_of(client).open
    assert server.connections == 2


def refused(request: httpx.Request) -> str:
    with pytest.raises(httpx.LocalProtocolError) as caught:
        prepare(request)
    return str(caught.value)


@pytest.mark.parametrize("value", [b"a\r\nX: y", b"a\nb", b"a\rb", b"a\0b"])
def test_a_header_value_that_would_split_the_request_is_refused_without_showing_it(value):
    message = refused(httpx.Request("GET", "http://h/", headers=[(b"Authorization", value)]))
    assert "Authorization holds CR, LF or NUL" in message
    assert repr(value)[2:-1] not in message


@pytest.mark.parametrize("name", [b"a b", b"a:b", b"a\r\n", b"", b"\xff"])
def test_a_header_name_that_is_no_token_is_refused(name):
    assert "is not a header name" in refused(httpx.Request("GET", "http://h/", headers=[(name, b"x")]))


def test_a_method_that_is_no_token_is_refused():
    assert "is not a method" in refused(httpx.Request("GET /x HTTP/1.1\r\n", "http://h/"))


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"Content-Length": "5", "Transfer-Encoding": "chunked"}, "both Content-Length and Transfer-Encoding"),
        ({"Content-Length": "x"}, "not a number"),
        ({"Content-Length": "4"}, "Content-Length is 4, its body has 5 bytes"),
    ],
)
def test_a_framing_that_does_not_fit_the_body_is_refused(headers, message):
    assert message in refused(httpx.Request("POST", "http://h/", headers=headers, content=b"hello"))


def test_a_transfer_coding_other_than_chunked_is_refused():
    assert "not chunked" in refused(httpx.Request("GET", "http://h/", headers={"Transfer-Encoding": "gzip"}))


def test_a_synchronous_body_stream_is_refused():
    assert "synchronous stream" in refused(httpx.Request("POST", "http://h/", content=iter([b"x"])))


@pytest.mark.parametrize("size", [1, 65_537])
async def test_a_body_in_memory_may_be_chunked_on_request(size):
    async def script(peer: Peer, server: Server) -> None:
        server.requests.append(await peer.receive_all_until(b"0\r\n\r\n"))
        await peer.send(OK)

    async with serve(script) as server, client_of(server) as client:
        request = client.build_request("POST", "/", content=b"x" * size)
        del request.headers["Content-Length"]
        request.headers["Transfer-Encoding"] = "chunked"
        await client.send(request)
    assert server.requests[0].count(b"x") >= size


@pytest.mark.parametrize("origin", ["ftp://h", "http://", "/path", "http://h:70000", "ws://h"])
def test_an_origin_must_be_http_with_a_host(origin):
    with pytest.raises(ValueError, match=r"origin|port|host"):
        OriginTransport(origin)


@pytest.mark.parametrize("url", ["http://other/", "https://127.0.0.1/", "http://127.0.0.1:1/", "ftp://127.0.0.1/"])
async def test_a_request_for_another_origin_is_refused(url):
    transport = OriginTransport("http://127.0.0.1")
    with pytest.raises(httpx.UnsupportedProtocol, match="one origin only"):
        await transport.handle_async_request(httpx.Request("GET", url))
    await transport.aclose()
