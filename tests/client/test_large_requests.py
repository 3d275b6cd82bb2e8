"""A large request arrives whole, and one that the server refuses halfway shows the refusal and not a broken pipe."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import anyio
import pytest
import trustme

from enclave import APIConnectionError, EnclaveClient, PayloadTooLargeError
from tests.support import PATIENCE_SECONDS

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
CREATED = b'{"id":"s-1","phase":"pending"}'
REFUSAL = (
    b"HTTP/1.1 413 Payload Too Large\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b'Content-Length: 28\r\n\r\n{"message":"at most 64 KiB"}'
)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def received(connection: socket.socket, size: int) -> bytes:
    """The next bytes, at least one.

    Raises:
        ConnectionError: the connection has ended.
    """
    data = connection.recv(size)
    if not data:
        raise ConnectionError("the client hung up")
    return data


@contextmanager
def serve(authority: trustme.CA, *, tls: bool, handle: Callable[[socket.socket], None]) -> Iterator[str]:
    """The base URL of a server that handles connections one after the other.

    In a thread of its own: a server in the client's event loop never runs while the client sends.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                # Else the kernel holds the answer back, for TLS has sent something before, and the reset discards it.
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with suppress(OSError), context.wrap_socket(connection, server_side=True) if tls else connection as end:
                    handle(end)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield f"{'https' if tls else 'http'}://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def client_of(authority: trustme.CA, base_url: str) -> EnclaveClient:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    # What a create that was lost made is not looked for: nothing was.
    return EnclaveClient(base_url, ssl_context=context, retry=None, recover_creates=False)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_program_of_a_mebibyte_arrives_whole(authority, tls):
    arrived = []

    def handle(connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += received(connection, 1)
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = bytearray()
        while len(body) < length:
            body += received(connection, MIB)
        arrived.append(json.loads(body)["code"])
        connection.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n%b" % (len(CREATED), CREATED))
        connection.recv(1)

    code = "".join(f"print({number})\n" for number in range(90_000))[:MIB]
    assert len(code) == MIB
    with serve(authority, tls=tls, handle=handle) as base_url, anyio.fail_after(PATIENCE_SECONDS):
        async with client_of(authority, base_url) as client:
            assert (await client.run(code)).id == "s-1"
    assert arrived == [code]


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("taken_bytes", [1, 100_000])
async def test_a_server_that_refuses_a_large_program_and_hangs_up_is_heard(authority, tls, taken_bytes):
    def handle(connection: socket.socket) -> None:
        taken = 0
        while taken < taken_bytes:
            taken += len(received(connection, 4096))
        connection.sendall(REFUSAL)
        # Closing with bytes unread resets the connection, while the client still sends.

    with serve(authority, tls=tls, handle=handle) as base_url, anyio.fail_after(60):
        async with client_of(authority, base_url) as client:
            for _ in range(10):
                with pytest.raises(PayloadTooLargeError, match="at most 64 KiB"):
                    await client.run("x" * (8 * MIB))


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_server_that_hangs_up_on_a_large_program_without_a_word_is_a_connection_error(authority, tls):
    def handle(connection: socket.socket) -> None:
        connection.recv(1)

    with serve(authority, tls=tls, handle=handle) as base_url, anyio.fail_after(PATIENCE_SECONDS):
        async with client_of(authority, base_url) as client:
            with pytest.raises(APIConnectionError, match=r"POST /sessions: the connection to 127\.0\.0\.1:\d+ broke"):
                await client.run("x" * (8 * MIB))
