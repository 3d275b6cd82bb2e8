"""What goes over the wire for a request."""

from __future__ import annotations

import anyio
import pytest

from enclave.transport._messages import Headers, Request, Timeouts
from enclave.transport.http11 import OriginTransport
from enclave.transport.http11._origin import Origin
from enclave.transport.http11._request import pieces_of
from tests.support import PATIENCE_SECONDS
from tests.support.messages import OK
from tests.support.origin import client_of
from tests.support.wire import answering, serve

pytestmark = pytest.mark.anyio

BIG = bytes(range(256)) * 4096


async def test_a_request_is_sent_as_it_is_given():
    async with serve(answering(OK)) as server, client_of(server) as client:
        await client.get("/a/b%20c?q=%C3%BC", headers=[(b"X-Case", b"Kept")])
    host = b"127.0.0.1:%d" % server.port
    assert server.requests == [b"GET /a/b%20c?q=%C3%BC HTTP/1.1\r\nHost: " + host + b"\r\nX-Case: Kept\r\n\r\n"]


async def test_header_bytes_travel_unchanged():
    async with serve(answering(OK)) as server, client_of(server) as client:
        await client.get("/", headers=[(b"Last-Event-ID", "é-7".encode())])
    assert b"Last-Event-ID: \xc3\xa9-7\r\n" in server.requests[0]


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, len(BIG)])
async def test_a_body_in_memory_arrives_with_its_length(size):
    async with serve(answering(OK)) as server, client_of(server) as client:
        with anyio.fail_after(PATIENCE_SECONDS):
            await client.post("/", content=BIG[:size])
            await client.post("/", content=BIG[:size])
    assert server.connections == 1
    for request in server.requests:
        assert b"\r\nContent-Length: %d\r\n" % size in request
        assert request.partition(b"\r\n\r\n")[2] == BIG[:size]


def refused(request: Request) -> str:
    with pytest.raises(ValueError, match=r"path|header") as caught:
        pieces_of(request, b"h")
    return str(caught.value)


def request(target: str = "/", headers: Headers | None = None) -> Request:
    return Request("GET", target, headers or [], timeouts=Timeouts(None, None, None, None))


@pytest.mark.parametrize("value", [b"a\r\nX: y", b"a\nb", b"a\rb", b"a\0b"])
def test_a_header_that_would_split_the_request_is_refused_without_showing_it(value):
    for header in ((b"Authorization", value), (value, b"x")):
        message = refused(request(headers=[header]))
        assert message == "<Request GET />: a header holds a line end or NUL"


@pytest.mark.parametrize("target", ["/a b", "/a\r\nX: y", "/\n", "/\0", "/é", "/ HTTP/1.1\r\n"])
def test_a_path_that_would_split_the_request_is_refused(target):
    assert refused(request(target)).startswith("the path of a request must be printable ASCII without spaces")


@pytest.mark.parametrize("origin", ["ftp://h", "http://", "/path", "http://h:70000", "ws://h"])
def test_an_origin_must_be_http_with_a_host(origin):
    with pytest.raises(ValueError, match=r"origin|port|host|Port"):
        OriginTransport(origin)


@pytest.mark.parametrize(
    ("url", "host", "authority", "peer"),
    [
        ("http://Example.ORG/a", "example.org", b"example.org", "example.org:80"),
        ("https://example.org:443", "example.org", b"example.org", "example.org:443"),
        ("https://example.org:80", "example.org", b"example.org:80", "example.org:80"),
        ("http://[::1]:8088", "::1", b"[::1]:8088", "[::1]:8088"),
        ("http://[fe80::1%25eth0]:8088", "fe80::1%eth0", b"[fe80::1]:8088", "[fe80::1%eth0]:8088"),
        ("http://[fe80::1%eth0]:8088", "fe80::1%eth0", b"[fe80::1]:8088", "[fe80::1%eth0]:8088"),
        ("http://bücher.example", "xn--bcher-kva.example", b"xn--bcher-kva.example", "xn--bcher-kva.example:80"),
    ],
)
def test_an_origin_knows_what_to_connect_to_and_what_to_call_it(url, host, authority, peer):
    origin = Origin.of(url)
    assert (origin.host, origin.authority, origin.peer) == (host, authority, peer)


@pytest.mark.parametrize("method", ["HEAD", "CONNECT"])
def test_a_method_whose_response_has_no_body_is_refused(method):
    with pytest.raises(ValueError, match=f"{method} requests are not supported"):
        Request(method, "/", [], timeouts=Timeouts(1, 1, 1, 1))
