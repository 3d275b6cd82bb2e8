"""TLS against a real TLS server: trust, names, bodies, endings, and idle connections."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
from contextlib import suppress

import anyio
import httpx
import pytest
import trustme

from enclave import (
    APIConnectionError,
    CertificateError,
    ConfigurationError,
    ConnectError,
    ConnectTimeoutError,
    EnclaveClient,
    RetryPolicy,
)
from tests.support.messages import CHUNKED, OK
from tests.support.origin import assert_whole, client_of, pool_of
from tests.support.wire import Peer, Server, answering, serve

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2", "http/1.1"])
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def trusting(authority: trustme.CA):
    def build() -> ssl.SSLContext:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        return context

    return build


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
async def test_requests_and_streams_work_over_tls(server_tls, trusting, name):
    protocols = set()

    async def script(peer: Peer, server: Server) -> None:
        protocols.add(peer.stream._ssl_object.selected_alpn_protocol())
        await answering(OK)(peer, server)

    async with serve(script, tls=server_tls, name=name) as server, client_of(server, ssl_context=trusting) as client:
        for _ in range(3):
            assert (await client.get("/")).content == b"hello"
        assert (await client.get("/", is_stream=True)).content == b"hello"
        assert_whole(client)
    assert server.connections == 2
    assert protocols == {"http/1.1"}


async def test_the_name_is_sent_so_that_the_server_can_choose_its_certificate(server_tls, trusting):
    names = []
    server_tls.sni_callback = lambda _, name, __: names.append(name)
    async with (
        serve(answering(OK), tls=server_tls, name="localhost") as server,
        client_of(server, ssl_context=trusting) as client,
    ):
        await client.get("/")
    assert names == ["localhost"]


async def test_an_untrusted_certificate_is_refused_with_its_reason(server_tls):
    async with (
        serve(answering(OK), tls=server_tls, name="localhost") as server,
        client_of(server, ssl_context=ssl.create_default_context) as client,
    ):
        with anyio.fail_after(5), pytest.raises(CertificateError, match="local issuer certificate"):
            await client.get("/")
        assert not pool_of(client).open
        assert_whole(client)


async def get(client: EnclaveClient) -> None:
    await client.get("s-1")


async def create(client: EnclaveClient) -> None:
    await client.run("pass")


async def stream(client: EnclaveClient) -> None:
    async with client.stream("s-1"):
        raise AssertionError("no stream can stand")


@pytest.mark.parametrize("call", [get, create, stream])
@pytest.mark.parametrize("stock", [False, True], ids=["own transport", "httpx's transport"])
@pytest.mark.parametrize(
    "case",
    [
        ("localhost", False, "unable to get local issuer certificate"),
        ("elsewhere.example", True, "Hostname mismatch"),
    ],
    ids=["unknown authority", "another name"],
)
async def test_a_refused_certificate_is_final_and_the_error_names_cause_and_fix(authority, trusting, call, stock, case):
    name, trusts, reason = case
    handshakes = []
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.sni_callback = lambda _, asked_for, __: handshakes.append(asked_for)
    authority.issue_cert(name).configure_cert(tls)
    context = trusting() if trusts else ssl.create_default_context()
    how = {"transport": httpx.AsyncHTTPTransport(verify=context)} if stock else {"ssl_context": context}
    async with (
        serve(answering(OK), tls=tls, name="localhost") as server,
        EnclaveClient(server.origin, retry=RetryPolicy(wait_seconds=0), **how) as client,
    ):
        with anyio.fail_after(5), pytest.raises(CertificateError, match=reason) as caught:
            await call(client)
    assert handshakes == ["localhost"]
    assert caught.value.retries == 0
    assert "SSL_CERT_FILE" in str(caught.value)
    assert "ssl_context=" in str(caught.value)
    assert isinstance(caught.value, ConnectError)
    assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)


async def test_a_certificate_for_another_name_is_refused(authority, trusting):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("elsewhere.example").configure_cert(context)
    async with (
        serve(answering(OK), tls=context, name="localhost") as server,
        client_of(server, ssl_context=trusting) as client,
    ):
        with anyio.fail_after(5), pytest.raises(CertificateError, match="Hostname mismatch"):
            await client.get("/")


@pytest.mark.parametrize("call", ["request", "create", "stream"])
async def test_https_to_a_server_without_tls_says_so_and_is_not_tried_again(trusting, call):
    async def script(peer: Peer, server: Server) -> None:
        await peer.stream.receive()
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with serve(script, name="localhost") as server:
        await says_which_scheme(server.origin.replace("http", "https"), call, trusting(), "write http ")
    assert server.connections == 1


@pytest.mark.parametrize("call", ["request", "create", "stream"])
async def test_http_to_a_server_with_tls_says_so_and_is_not_tried_again(server_tls, trusting, call):
    async with serve(answering(OK), tls=server_tls) as server:
        await says_which_scheme(server.origin.replace("https", "http"), call, trusting(), "write https ")


async def test_http_to_a_server_whose_tls_answers_with_an_alert_says_so(trusting):
    async def script(peer: Peer, server: Server) -> None:
        await peer.stream.receive()
        await peer.send(b"\x15\x03\x01\x00\x02\x02\x46")

    async with serve(script) as server:
        await says_which_scheme(server.origin, "request", trusting(), "write https ")
    assert server.connections == 1


async def test_a_server_that_hangs_up_on_plain_http_and_speaks_no_tls_is_not_taken_for_one():
    async def script(peer: Peer, server: Server) -> None:
        await peer.stream.receive()

    async with serve(script) as server, EnclaveClient(server.origin, retry=None) as client:
        with anyio.fail_after(20), pytest.raises(APIConnectionError, match="without a response"):
            await client.get("s-1")


async def says_which_scheme(url: str, call: str, context: ssl.SSLContext, advice: str) -> None:
    async with EnclaveClient(url, ssl_context=context) as client:
        with anyio.fail_after(20), pytest.raises(ConfigurationError, match=advice) as caught:
            match call:
                case "request":
                    await client.get("s-1")
                case "create":
                    await client.run("x")
                case _:
                    async with client.stream("s-1"):
                        pass
    assert caught.value.retries == 0


async def test_a_handshake_that_never_ends_is_a_connect_timeout(trusting):
    async def script(peer: Peer, server: Server) -> None:
        await peer.closed_by_client()

    async with serve(script, name="localhost") as server:
        server.origin = server.origin.replace("http", "https")
        async with client_of(server, ssl_context=trusting) as client:
            with anyio.fail_after(5), pytest.raises(ConnectTimeoutError, match=r"within 0\.2 s"):
                await client.get("/", connect=0.2)
            assert_whole(client)


async def test_large_and_many_records_arrive_whole(server_tls, trusting):
    data = bytes(range(256)) * 4096
    wire = CHUNKED + b"%x\r\n%b\r\n" % (len(data), data) + b"5\r\nhello\r\n" * 1000 + b"0\r\n\r\n"
    async with (
        serve(answering(wire), tls=server_tls, name="localhost") as server,
        client_of(server, ssl_context=trusting) as client,
    ):
        for _ in range(2):
            with anyio.fail_after(20):
                assert (await client.get("/")).content == data + b"hello" * 1000
        with anyio.fail_after(20):
            await client.post("/", content=data)
    assert server.connections == 1
    assert server.requests[2].endswith(data)


async def test_a_close_without_goodbye_within_a_framed_body_is_an_error(server_tls, trusting):
    async with (
        serve(
            answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", close=True),
            tls=server_tls,
            name="localhost",
        ) as server,
        client_of(server, ssl_context=trusting) as client,
    ):
        with anyio.fail_after(5), pytest.raises(APIConnectionError, match="5 of 9 bytes"):
            await client.get("/")


@pytest.mark.parametrize("unasked", [b"", OK.replace(b"hello", b"wrong")])
async def test_an_idle_tls_connection_that_was_closed_or_spoke_is_not_used_again(server_tls, trusting, unasked):
    speak = anyio.Event()

    async def script(peer: Peer, server: Server) -> None:
        await peer.request()
        await peer.send(OK)
        if peer.number == 1:
            await speak.wait()
            if unasked:
                await peer.send(unasked)
                await peer.request()
            return
        await peer.request()

    async with (
        serve(script, tls=server_tls, name="localhost") as server,
        client_of(server, ssl_context=trusting) as client,
    ):
        await client.get("/")
        (connection,) = pool_of(client).idle
        speak.set()
        with anyio.fail_after(5):
            while not connection.is_stale():
                await anyio.lowlevel.checkpoint()
        if unasked:  # asyncio reads them meanwhile, and then the socket itself has nothing to tell
            for _ in range(5):
                await anyio.lowlevel.checkpoint()
        assert (await client.post("/")).content == b"hello"
        assert_whole(client)
    assert server.connections == 2


async def test_records_that_came_together_with_a_response_are_noticed(server_tls, trusting):
    async def script(peer: Peer, server: Server) -> None:
        await peer.request()
        tls = peer.stream
        tls._ssl_object.write(OK)
        tls._ssl_object.write(OK.replace(b"hello", b"wrong"))
        await tls.transport_stream.send(tls._write_bio.read())  # two records, one segment
        await peer.request()

    async with (
        serve(script, tls=server_tls, name="localhost") as server,
        client_of(server, ssl_context=trusting) as client,
    ):
        for _ in range(2):
            assert (await client.get("/")).content == b"hello"
    assert server.connections == 2


async def test_a_goodbye_that_came_together_with_a_response_is_noticed(server_tls, trusting):
    async def script(peer: Peer, server: Server) -> None:
        await peer.request()
        tls = peer.stream
        tls._ssl_object.write(OK)
        with suppress(ssl.SSLWantReadError):  # the client's goodbye is not waited for
            tls._ssl_object.unwrap()
        await tls.transport_stream.send(tls._write_bio.read())
        await Peer(tls.transport_stream, peer.number).closed_by_client()  # TLS itself would refuse to read on

    async with (
        serve(script, tls=server_tls, name="localhost") as server,
        client_of(server, ssl_context=trusting) as client,
    ):
        for _ in range(2):
            with anyio.fail_after(5):
                assert (await client.post("/")).content == b"hello"
    assert server.connections == 2


async def test_a_read_over_tls_can_be_cancelled_and_taken_up_again(server_tls, trusting):
    proceed = anyio.Event()

    async def script(peer: Peer, server: Server) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        await proceed.wait()
        await peer.send(b"5\r\nhello\r\n0\r\n\r\n")

    async with (
        serve(script, tls=server_tls, name="localhost") as server,
        client_of(server, ssl_context=trusting) as client,
        client.stream() as response,
    ):
        with anyio.move_on_after(0.05) as scope:
            await response.body.read()
        assert scope.cancelled_caught
        proceed.set()
        with anyio.fail_after(5):
            assert await response.body.read() == b"hello"


async def test_the_context_is_built_once_by_a_worker_thread_when_first_needed(server_tls, trusting):
    threads = []

    def build() -> ssl.SSLContext:
        threads.append(threading.current_thread())
        return trusting()

    async with (
        serve(answering(OK), tls=server_tls, name="localhost") as server,
        client_of(server, ssl_context=build) as client,
    ):
        assert threads == []
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(client.get, "/")
    assert len(threads) == 1
    assert threads[0] is not threading.current_thread()


def never() -> ssl.SSLContext:
    raise AssertionError("no TLS context is needed for http")


async def test_plain_http_builds_no_context():
    async with serve(answering(OK)) as server, client_of(server, ssl_context=never) as client:
        assert (await client.get("/")).content == b"hello"


async def test_a_context_that_cannot_be_built_is_a_connect_error():
    def build() -> ssl.SSLContext:
        return ssl.create_default_context(cafile="/nonexistent/ca.pem")

    async with client_of("https://localhost:1", ssl_context=build) as client:
        with pytest.raises(ConnectError, match="FileNotFoundError"):
            await client.get()


SSL_CERT_FILE_PROGRAM = """
import sys, anyio
from enclave import EnclaveClient

async def main():
    async with EnclaveClient(sys.argv[1]) as client:
        print((await client.health()).ok)

anyio.run(main)
"""


async def test_the_environment_may_name_the_trusted_certificates(authority, server_tls, tmp_path):
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(bundle)
    health = b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"ok":true}'
    async with serve(answering(health), tls=server_tls, name="localhost") as server:
        with anyio.fail_after(30):
            process = await anyio.run_process(
                [sys.executable, "-c", SSL_CERT_FILE_PROGRAM, server.origin],
                env={"SSL_CERT_FILE": str(bundle)},
                stderr=subprocess.STDOUT,
            )
    assert process.stdout.strip() == b"True"


# Not uvloop, which looks names up past the socket module.
@pytest.mark.parametrize(
    "anyio_backend",
    [pytest.param(("asyncio", {"debug": True}), id="asyncio"), pytest.param(("trio", {}), id="trio")],
    indirect=True,
)
async def test_a_name_with_a_dot_at_its_end_verifies(server_tls, trusting, monkeypatch):
    names = []
    look_up = socket.getaddrinfo

    def without_dns(host, *args, **kwargs):
        return look_up("127.0.0.1" if host in ("localhost.", b"localhost.") else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", without_dns)
    server_tls.sni_callback = lambda _, name, __: names.append(name)
    async with (
        serve(answering(OK), tls=server_tls, name="localhost.") as server,
        client_of(server, ssl_context=trusting) as client,
    ):
        assert (await client.get()).content == b"hello"
    assert names == ["localhost"]


async def test_a_context_that_an_http2_client_uses_too_speaks_http11_here(server_tls, trusting):
    protocols = []

    async def script(peer: Peer, server: Server) -> None:
        protocols.append(peer.stream._ssl_object.selected_alpn_protocol())
        await answering(OK)(peer, server)

    shared = trusting()
    async with (
        serve(script, tls=server_tls) as server,
        client_of(server, ssl_context=lambda: shared, keepalive_seconds=0) as client,
    ):
        await client.get()
        shared.set_alpn_protocols(["h2"])
        await client.get()
    assert protocols == ["http/1.1", "http/1.1"]


@pytest.mark.parametrize("content", [None, "garbage"])
async def test_a_file_of_authorities_that_cannot_be_read_is_named_and_not_tried_again(monkeypatch, tmp_path, content):
    bundle = tmp_path / "authorities.pem"
    if content is not None:
        bundle.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    async with EnclaveClient("https://localhost:1") as client:
        with (
            anyio.fail_after(10),
            pytest.raises(ConfigurationError, match=r"SSL_CERT_FILE=.*authorities\.pem") as caught,
        ):
            await client.health()
    assert caught.value.retries == 0
