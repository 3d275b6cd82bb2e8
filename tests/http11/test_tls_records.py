"""TLS as the network delivers it: records of any size, cut anywhere, the ways in which it ends, and what it resumes."""

from __future__ import annotations

import datetime as dt
import select
import socket
import ssl
from functools import cache
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute
from hypothesis import given, settings
from hypothesis import strategies as st

from enclave import APIConnectionError, CertificateError, ConnectError, ConnectTimeoutError
from enclave.transport.http11._tls import TLSRecords, TLSSessions, TruncatedError
from tests.support import PATIENCE_SECONDS
from tests.support.loops import ASYNCIO, UVLOOP
from tests.support.messages import CHUNKED, OK, chunk
from tests.support.origin import Client, assert_whole, client_of, open_sockets, pool_of, read_all
from tests.support.stepping import cancel_at, ways
from tests.support.tls import TLSPeer, authority, server_tls, trusting
from tests.support.wire import Peer, Server, answering, serve

pytestmark = pytest.mark.anyio

VERSIONS = [
    pytest.param(ssl.TLSVersion.TLSv1_2, id="TLS 1.2"),
    pytest.param(ssl.TLSVersion.TLSv1_3, id="TLS 1.3"),
]
TEXT = bytes(range(256)) * 160
UNFRAMED = b"HTTP/1.1 200 OK\r\n\r\n"


def https(server: Server) -> str:
    """The origin of a server of plain connections, whose script speaks TLS."""
    return f"https://localhost:{server.port}"


async def get(server: Server, **options: Any) -> bytes:
    async with client_of(https(server), ssl_context=trusting) as client:
        with anyio.fail_after(60):
            return (await client.get(**options)).content


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("record", "split"), [(1, None), (1, 7), (150, 1000), (16_384, 1), (16_384, 16_405), (5, 26)])
async def test_records_of_any_size_arrive_whole_wherever_the_network_cuts_them(version, record, split):
    text = TEXT if record > 100 and split != 1 else TEXT[:300]  # else it is thousands of writes

    async def script(peer: Peer, server: Server) -> None:
        tls = TLSPeer(peer, server_tls(version=version))
        await tls.request(split=split)
        await tls.send(tls.records(CHUNKED + chunk(text) + b"0\r\n\r\n", record), split=split)
        await peer.closed_by_client()

    async with serve(script) as server:
        assert await get(server) == text


server_of = cache(lambda version: server_tls(version=version))
client_context = cache(trusting)


class Pair:
    """Both ends of TLS in memory, past their handshake."""

    def __init__(self, version: ssl.TLSVersion, context: ssl.SSLContext | None = None) -> None:
        self.sessions = TLSSessions()
        self.to_server, self.to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server = server_of(version).wrap_bio(self.to_server, self.to_client, server_side=True)
        self.client = TLSRecords(context or client_context(), "localhost", self.sessions)
        is_done = self.client.shake_hands()
        while not is_done:
            self.to_server.write(self.client.outgoing.read())
            self.serve_handshake()
            is_done = self.client.shake_hands(self.to_client.read())
        self.to_server.write(self.client.outgoing.read())
        self.serve_handshake()

    def serve_handshake(self) -> None:
        try:
            self.server.do_handshake()
        except ssl.SSLWantReadError:
            return


@settings(max_examples=40)
@given(
    pieces=st.lists(st.binary(min_size=1, max_size=40_000), max_size=6),
    cuts=st.lists(st.integers(1, 20_000), min_size=1, max_size=8),
    version=st.sampled_from([ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]),
)
def test_what_is_decrypted_does_not_depend_on_where_the_bytes_were_cut(pieces, cuts, version):
    pair = Pair(version)
    for piece in pieces:
        for start in range(0, len(piece), 16_384):
            pair.server.write(piece[start : start + 16_384])
    wire = pair.to_client.read()
    received, position, turn = b"", 0, 0
    while position < len(wire):
        size = cuts[turn % len(cuts)]
        received += pair.client.feed(wire[position : position + size])
        position, turn = position + size, turn + 1
    assert received == b"".join(pieces)
    assert pair.client.end is None


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("says_goodbye", [True, False])
@pytest.mark.parametrize(
    ("response", "body"),
    [
        (UNFRAMED + b"hello", b"hello"),
        (OK, b"hello"),
        (CHUNKED + chunk(b"hello") + b"0\r\n\r\n", b"hello"),
    ],
    ids=["ends with the connection", "has a length", "is chunked"],
)
async def test_only_a_body_that_ends_with_the_connection_needs_the_closing_message(
    version, says_goodbye, response, body
):
    async def script(peer: Peer, server: Server) -> None:
        tls = TLSPeer(peer, server_tls(version=version))
        await tls.request()
        await tls.send(tls.records(response) + (tls.goodbye() if says_goodbye else b""))

    async with serve(script) as server:
        if says_goodbye or response.startswith((OK, CHUNKED)):
            assert await get(server) == body
        else:
            with pytest.raises(APIConnectionError, match="the connection was cut within the response"):
                await get(server)


async def test_an_unframed_body_without_tls_still_ends_with_the_connection():
    async with serve(answering(UNFRAMED + b"hello", close=True)) as server, client_of(server) as client:
        assert (await client.get()).content == b"hello"


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_came_before_an_alert_is_given_out_and_then_the_alert_is_an_error(version):
    async def script(peer: Peer, server: Server) -> None:
        tls = TLSPeer(peer, server_tls(version=version))
        await tls.request()
        await tls.send(tls.records(CHUNKED + chunk(b"hello")) + tls.alert())
        await peer.closed_by_client()

    async with serve(script) as server, client_of(https(server), ssl_context=trusting) as client:
        async with client.stream() as response:
            with anyio.fail_after(PATIENCE_SECONDS):
                assert await response.body.read() == b"hello"
                with pytest.raises(APIConnectionError, match=r"(?i)alert"):
                    await response.body.read()
        assert not pool_of(client).open


@pytest.mark.parametrize("version", VERSIONS)
async def test_bytes_that_are_no_tls_end_a_stream_with_an_error(version):
    async def script(peer: Peer, server: Server) -> None:
        tls = TLSPeer(peer, server_tls(version=version))
        await tls.request()
        await tls.send(tls.records(CHUNKED + chunk(b"hello")) + b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.closed_by_client()

    async with serve(script) as server:
        with pytest.raises(APIConnectionError, match="broke while the response was read"):
            await get(server)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("way", ["closed", "cancelled", "closed with unread bytes"])
async def test_the_server_is_told_of_the_end_of_a_stream(version, way):
    """Also where the bytes that it sent meanwhile make the kernel reset the connection."""
    goodbyes = []
    sent, done = anyio.Event(), anyio.Event()

    async def script(peer: Peer, server: Server) -> None:
        tls = TLSPeer(peer, server_tls(version=version))
        await tls.request()
        await tls.send(tls.records(CHUNKED))
        if way == "closed with unread bytes":
            for _ in range(3):
                await tls.send(tls.records(chunk(b"hello")))
                await anyio.wait_all_tasks_blocked()
        sent.set()
        goodbyes.append(await tls.client_says_goodbye())
        done.set()

    async with serve(script) as server, client_of(https(server), ssl_context=trusting) as client:
        with anyio.fail_after(PATIENCE_SECONDS):
            async with client.stream(is_stream=True) as response, anyio.create_task_group() as tasks:
                if way == "cancelled":
                    tasks.start_soon(response.body.read)
                    await anyio.wait_all_tasks_blocked()
                await sent.wait()
                tasks.cancel_scope.cancel()
            await done.wait()
    assert goodbyes == [True]


@pytest.mark.skipif(not hasattr(socket, "TCP_CORK"), reason="only Linux's kernel can be told to hold bytes back")
@pytest.mark.parametrize("anyio_backend", [ASYNCIO, UVLOOP], indirect=True)
async def test_the_closing_message_waits_for_the_end_of_the_connection_and_comes_with_it():
    """So the server is woken once. These loops close a socket in their next turn. On trio nothing can come between."""
    goodbyes = []
    raw: list[socket.socket] = []
    done = anyio.Event()

    async def script(peer: Peer, server: Server) -> None:
        raw.append(peer.stream.extra(SocketAttribute.raw_socket))
        tls = TLSPeer(peer, server_tls())
        await tls.request()
        await tls.send(tls.records(CHUNKED))
        goodbyes.append(await tls.client_says_goodbye())
        done.set()

    async with serve(script) as server, client_of(https(server), ssl_context=trusting) as client:
        with anyio.fail_after(PATIENCE_SECONDS):
            async with client.stream(is_stream=True):
                await anyio.wait_all_tasks_blocked()
            assert select.select([raw[0].fileno()], [], [], 0)[0] == []
            await done.wait()
    assert goodbyes == [True]


async def test_an_expired_certificate_is_refused():
    now = dt.datetime.now(dt.UTC)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    yesterday = now - dt.timedelta(days=1)
    authority().issue_cert(
        "localhost", not_before=yesterday - dt.timedelta(days=1), not_after=yesterday
    ).configure_cert(context)
    async with serve(answering(OK), tls=context, name="localhost") as server:
        with pytest.raises(CertificateError, match="expired"):
            await get(server)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("has_certificate", [True, False])
async def test_a_server_that_asks_for_a_client_certificate_gets_it_or_refuses(version, has_certificate):
    tls = server_tls(version=version)
    tls.verify_mode = ssl.CERT_REQUIRED
    authority().configure_trust(tls)
    ours = trusting()
    if has_certificate:
        authority().issue_cert("client@example.org").configure_cert(ours)
    async with (
        serve(answering(OK), tls=tls, name="localhost") as server,
        client_of(server, ssl_context=lambda: ours) as client,
    ):
        with anyio.fail_after(PATIENCE_SECONDS):
            if has_certificate:
                for _ in range(2):
                    assert (await client.get(is_stream=True)).content == b"hello"
            else:
                # In TLS 1.3 the client is done before the server has looked, so it learns this with its first read.
                with pytest.raises(APIConnectionError):
                    await client.get()
        assert_whole(client)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
async def test_a_server_that_stalls_in_the_handshake_is_given_up_in_time(version, share):
    async def script(peer: Peer, server: Server) -> None:
        tls = TLSPeer(peer, server_tls(version=version))
        tls._incoming.write(await peer.stream.receive())
        with pytest.raises(ssl.SSLWantReadError):
            tls.tls.do_handshake()
        flight = tls._outgoing.read()
        await peer.stream.send(flight[: int(len(flight) * share)] or b"\x16")
        await peer.closed_by_client()

    async with serve(script) as server, client_of(https(server), ssl_context=trusting) as client:
        with anyio.fail_after(PATIENCE_SECONDS), pytest.raises(ConnectTimeoutError, match=r"within 0\.3 s"):
            await client.get(connect=0.3)
        assert not pool_of(client).open


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_server_that_hangs_up_in_the_handshake_is_a_connect_error(version):
    async def script(peer: Peer, server: Server) -> None:
        await peer.stream.receive()

    async with serve(script) as server:
        with pytest.raises(ConnectError, match="cannot connect to localhost"):
            await get(server)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_stream_cancelled_at_each_of_its_steps_leaves_no_socket_and_the_next_one_works(version):
    async def script(peer: Peer, server: Server) -> None:
        await peer.request()
        await peer.send(CHUNKED, chunk(b"hello"), b"0\r\n\r\n")

    tls = server_tls(version=version)
    async with serve(script, tls=tls, name="localhost") as server:
        before = open_sockets()
        async with client_of(server, ssl_context=trusting) as client:

            async def read() -> bytes:
                async with client.stream(is_stream=True) as response:
                    return await read_all(response)

            await client.get(is_stream=True)  # builds the context, in a thread whose steps nobody can count
            for way in ways():
                for step in range(0, 60, 4):
                    attempt = await cancel_at(step, read, way)
                    assert attempt.error is None
                    assert attempt.completed or attempt.cancelled
                    assert_whole(client)
            assert await read() == b"hello"
        with anyio.fail_after(PATIENCE_SECONDS):
            while open_sockets() > before or server.open_connections:
                await anyio.lowlevel.checkpoint()


async def resumed(tls: ssl.SSLContext, client_context: ssl.SSLContext, requests: int = 3) -> list[bool | None]:
    """Whether the server has resumed a session, of each of some connections of one client."""
    found: list[bool | None] = []

    async def script(peer: Peer, server: Server) -> None:
        found.append(peer.stream._ssl_object.session_reused)
        await answering(OK)(peer, server)

    async with (
        serve(script, tls=tls, name="localhost") as server,
        client_of(server, ssl_context=lambda: client_context) as client,
    ):
        with anyio.fail_after(PATIENCE_SECONDS):
            for _ in range(requests):
                await get_stream(client)
    return found


async def get_stream(client: Client) -> None:
    assert (await client.get(is_stream=True)).content == b"hello"


@pytest.mark.parametrize("version", VERSIONS)
async def test_connections_of_one_client_resume_one_session(version):
    assert await resumed(server_tls(version=version), trusting()) == [False, True, True]


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_context_that_wants_no_tickets_resumes_nothing(version):
    context = trusting()
    context.options |= ssl.OP_NO_TICKET
    assert await resumed(server_tls(version=version), context) == [False, False, False]


async def test_a_server_without_tickets_is_served_all_the_same():
    tls = server_tls()
    tls.num_tickets = 0
    assert await resumed(tls, trusting()) == [False, False, False]


async def test_two_clients_share_no_session():
    tls, context = server_tls(), trusting()
    assert await resumed(tls, context, 1) == [False]
    assert await resumed(tls, context, 2) == [False, True]


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_session_that_the_server_knows_no_longer_is_replaced(version):
    contexts = [server_tls(version=version) for _ in range(2)]
    found = []

    async def script(peer: Peer, server: Server) -> None:
        tls = TLSPeer(peer, contexts[peer.number > 2])
        await tls.request()
        found.append(tls.tls.session_reused)
        await tls.send(tls.records(OK))
        await peer.closed_by_client()

    async with serve(script) as server, client_of(https(server), ssl_context=trusting) as client:
        with anyio.fail_after(PATIENCE_SECONDS):
            for _ in range(4):
                await get_stream(client)
    assert found[:3] == [False, True, False]


def test_a_session_ends_with_the_trust_it_was_made_under():
    context = trusting()
    pair = Pair(ssl.TLSVersion.TLSv1_3, context)
    pair.server.write(b"hello")
    assert pair.client.feed(pair.to_client.read()) == b"hello"
    assert pair.sessions.latest(context) is not None
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    assert pair.sessions.latest(context) is None


def test_an_end_without_the_closing_message_is_told_from_one_with_it():
    pair = Pair(ssl.TLSVersion.TLSv1_3)
    pair.client.feed_eof()
    assert isinstance(pair.client.end, TruncatedError)
    pair = Pair(ssl.TLSVersion.TLSv1_3)
    with pytest.raises(ssl.SSLWantReadError):
        pair.server.unwrap()
    pair.client.feed(pair.to_client.read())
    pair.client.feed_eof()
    assert isinstance(pair.client.end, anyio.EndOfStream)
    assert not isinstance(pair.client.end, TruncatedError)
