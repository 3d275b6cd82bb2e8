"""Responses that no honest server sends: each is one clear error of ours, soon, and the next request is served."""

from __future__ import annotations

import gzip
import json
import threading
import tracemalloc
import zlib

import anyio
import pytest

from enclave import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    EnclaveClient,
    EnclaveError,
    MalformedResponseError,
    ProtocolError,
    ResponseTooLargeError,
    Timeout,
)
from tests.support import PATIENCE_SECONDS
from tests.support.messages import JSON_HEAD, bomb, with_body
from tests.support.plane import ControlPlane, Handler, Request, closing, endless, stalling
from tests.support.wire import Peer, Server, answering, flooding, in_thread, serve

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
MAX_PEAK_BYTES = 16 * MIB
LIMIT_BYTES = 1 * MIB
GOOD = with_body(b'{"id":"s-1","phase":"running"}')


CHUNKED = JSON_HEAD + b"transfer-encoding: chunked\r\n\r\n"
GZIP = JSON_HEAD + b"content-encoding: gzip\r\n"
HTML = b"<html><body>Sign in to the wifi</body></html>"

CASES: dict[str, tuple[Handler, type[EnclaveError]]] = {
    "a page of HTML": (closing(with_body(HTML, b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n")), ProtocolError),
    "no body": (closing(with_body(b"")), MalformedResponseError),
    "204 where a body is due": (closing(b"HTTP/1.1 204 No Content\r\n\r\n"), MalformedResponseError),
    "JSON of another shape": (closing(with_body(b'["s-1"]')), MalformedResponseError),
    "half of a JSON": (closing(with_body(b'{"id":"s-1",')), MalformedResponseError),
    "NUL bytes": (closing(with_body(b"\0" * 100)), MalformedResponseError),
    "invalid UTF-8": (closing(with_body(b"\xff\xfe\xfd")), MalformedResponseError),
    "nesting without end": (closing(with_body(b'{"x":' + b"[" * 200_000)), MalformedResponseError),
    "nested objects": (closing(with_body(b'{"x":' * 200_000)), MalformedResponseError),
    "an endless body": (endless(JSON_HEAD + b"\r\n", b" " * 65_536), ResponseTooLargeError),
    "endless chunks": (endless(CHUNKED, b"10000\r\n" + b" " * 65_536 + b"\r\n"), ResponseTooLargeError),
    "a gzip bomb": (closing(with_body(bomb(bytes(MIB), 256), GZIP)), ResponseTooLargeError),
    "a deflate bomb": (
        closing(with_body(bomb(bytes(MIB), 256, zlib.MAX_WBITS), JSON_HEAD + b"content-encoding: deflate\r\n")),
        ResponseTooLargeError,
    ),
    "gzip that is none": (closing(with_body(b"{}", GZIP)), MalformedResponseError),
    "an unknown encoding": (closing(with_body(b"{}", JSON_HEAD + b"content-encoding: br\r\n")), MalformedResponseError),
    "gzip cut in the middle": (closing(with_body(gzip.compress(HTML * 99)[:40], GZIP)), ProtocolError),
    "a header flood": (endless(b"HTTP/1.1 200 OK\r\n", b"x-flood: " + b"x" * 1000 + b"\r\n"), ProtocolError),
    "a header without end": (endless(b"HTTP/1.1 200 OK\r\nx-flood: ", b"x" * 65_536), ProtocolError),
    "a status line without end": (endless(b"HTTP/1.1 200 ", b"x" * 65_536), ProtocolError),
    "1xx without end": (endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 500), EnclaveError),
    "103 without end": (endless(b"", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 500), EnclaveError),
    "chunk extensions without end": (endless(CHUNKED + b"1;", b"x" * 65_536), EnclaveError),
    "trailers without end": (endless(CHUNKED + b"0\r\n", b"x: " + b"x" * 1000 + b"\r\n"), EnclaveError),
    "chunk garbage": (closing(CHUNKED + b"zz\r\nnonsense\r\n"), APIConnectionError),
    "a chunk size beyond all numbers": (closing(CHUNKED + b"f" * 40 + b"\r\nx"), APIConnectionError),
    "a negative length": (closing(JSON_HEAD + b"content-length: -1\r\n\r\n{}"), APIConnectionError),
    "a length that is no number": (closing(JSON_HEAD + b"content-length: many\r\n\r\n{}"), APIConnectionError),
    "a length beyond all numbers": (
        closing(JSON_HEAD + b"content-length: 1" + b"0" * 40 + b"\r\n\r\n{}"),
        EnclaveError,
    ),
    "a length never kept": (closing(JSON_HEAD + b"content-length: 1099511627776\r\n\r\n{}"), APIConnectionError),
    "two lengths": (closing(JSON_HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}"), APIConnectionError),
    "another protocol": (closing(b"SSH-2.0-OpenSSH_9.6\r\n"), APIConnectionError),
    "an upgrade": (closing(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\n\r\n"), APIConnectionError),
    "binary garbage": (closing(bytes(range(256)) * 50), APIConnectionError),
    "nothing at all": (closing(b""), APIConnectionError),
    "a redirect": (
        closing(b"HTTP/1.1 307 Go\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"),
        APIStatusError,
    ),
    "status 600": (closing(b"HTTP/1.1 600 Odd\r\ncontent-length: 0\r\n\r\n"), EnclaveError),
    "status 999 with garbage": (closing(with_body(b"\xff\0", b"HTTP/1.1 999 \xff\xfe\r\n")), EnclaveError),
    "an error with an endless body": (endless(b"HTTP/1.1 400 Bad\r\n\r\n", b"x" * 65_536), APIStatusError),
    "an error with a bomb": (
        closing(with_body(bomb(bytes(MIB), 256), b"HTTP/1.1 400 No\r\ncontent-encoding: gzip\r\n")),
        APIStatusError,
    ),
    "an error with deep JSON": (closing(with_body(b"[" * 60_000, b"HTTP/1.1 400 Bad\r\n")), APIStatusError),
    "an error with odd fields": (
        closing(with_body(json.dumps({"message": [1], "code": {}, "error": None}).encode(), b"HTTP/1.1 500 Bad\r\n")),
        APIStatusError,
    ),
}


@pytest.mark.parametrize("case", list(CASES))
async def test_a_hostile_response_is_one_clear_error_within_bounded_memory(case: str) -> None:
    script, expected = CASES[case]
    with ControlPlane(script).in_thread() as server, anyio.fail_after(PATIENCE_SECONDS):
        async with EnclaveClient(server.base_url, retry=None, max_response_bytes=LIMIT_BYTES) as client:
            tracemalloc.start()
            try:
                with pytest.raises(EnclaveError) as caught:
                    await client.get("s-1")
                _, peak_bytes = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert isinstance(caught.value, expected), repr(caught.value)
            assert peak_bytes < MAX_PEAK_BYTES
            text = str(caught.value)
            assert text.startswith("GET /sessions/s-1: ") or "GET /sessions/s-1" in text, text
            assert len(text) < 1000
            assert text.isprintable(), text
            server.otherwise = closing(GOOD)
            assert (await client.get("s-1")).id == "s-1"


STALLS: dict[str, bytes] = {
    "before the status line": b"",
    "inside the status line": b"HTTP/1.1 2",
    "inside the headers": b"HTTP/1.1 200 OK\r\ncontent-",
    "before the body": JSON_HEAD + b"content-length: 10\r\n\r\n",
    "inside the body": JSON_HEAD + b"content-length: 10\r\n\r\n{",
    "inside a chunk": CHUNKED + b"a\r\n{",
}


@pytest.mark.parametrize("stall", list(STALLS))
async def test_a_server_that_stalls_runs_into_the_read_timeout(stall: str) -> None:
    with ControlPlane(stalling(STALLS[stall])).in_thread() as server, anyio.fail_after(PATIENCE_SECONDS):
        async with EnclaveClient(server.base_url, retry=None, timeout=Timeout(read=0.1)) as client:
            with pytest.raises(APITimeoutError):
                await client.get("s-1")


@pytest.mark.parametrize("close", list(STALLS))
async def test_a_server_that_closes_too_early_is_a_connection_error(close: str) -> None:
    with ControlPlane(closing(STALLS[close])).in_thread() as server, anyio.fail_after(PATIENCE_SECONDS):
        async with EnclaveClient(server.base_url, retry=None) as client:
            with pytest.raises(APIConnectionError):
                await client.get("s-1")


async def test_a_response_to_nobody_is_never_taken_for_an_answer() -> None:
    forged = with_body(b'{"id":"forged","phase":"running"}')
    with ControlPlane(GOOD + forged).in_thread() as server, anyio.fail_after(PATIENCE_SECONDS):
        async with EnclaveClient(server.base_url, retry=None) as client:
            for _ in range(5):
                assert (await client.get("s-1")).id == "s-1"


async def test_bytes_on_an_idle_connection_are_never_taken_for_an_answer() -> None:
    forged = threading.Semaphore(0)

    async def script(request: Request) -> None:
        await request.send(GOOD)
        await request.send(with_body(b'{"id":"forged","phase":"running"}'))
        forged.release()

    with ControlPlane(script).in_thread() as server, anyio.fail_after(PATIENCE_SECONDS):
        async with EnclaveClient(server.base_url, retry=None) as client:
            for _ in range(5):
                assert (await client.get("s-1")).id == "s-1"
                await anyio.to_thread.run_sync(forged.acquire)


async def test_an_encoding_nobody_asked_for_costs_no_connection() -> None:
    odd = with_body(b"{}", JSON_HEAD + b"content-encoding: br\r\n")
    with ControlPlane(odd).in_thread() as server, anyio.fail_after(PATIENCE_SECONDS):
        async with EnclaveClient(server.base_url, retry=None, timeout=Timeout(acquire=0.5)) as client:
            for _ in range(150):  # more than there are connections
                with pytest.raises(MalformedResponseError, match="content-encoding br was not asked for"):
                    await client.get("s-1")


async def test_a_redirect_never_carries_the_credential_away() -> None:
    with ControlPlane(closing(GOOD)).in_thread() as other, anyio.fail_after(PATIENCE_SECONDS):
        location = f"HTTP/1.1 308 Go\r\nlocation: {other.base_url}/sessions/s-1\r\ncontent-length: 0\r\n\r\n"
        with ControlPlane(location.encode()).in_thread() as server:
            async with EnclaveClient(server.base_url, api_key="ek_1_secret", retry=None) as client:
                for call in (client.get("s-1"), client.run("pass"), client.teardown("s-1"), client.result("s-1")):
                    with pytest.raises(APIStatusError, match="redirects are not followed"):
                        await call
                with pytest.raises(APIStatusError, match="redirects are not followed"):
                    async with client.stream("s-1"):
                        pass
        assert other.requests == []


GZIPPED = gzip.compress(b'{"id":"s-1","phase":"running"}', mtime=0)


@pytest.mark.parametrize("filler", [b"x" * 65_536, bytes(65_536), gzip.compress(b"", mtime=0) * 3000])
async def test_compressed_bytes_that_hold_nothing_are_not_read_without_end(filler: bytes) -> None:
    with in_thread(serve(flooding(GZIP + b"\r\n" + GZIPPED, filler))) as server, anyio.fail_after(PATIENCE_SECONDS):
        async with EnclaveClient(server.origin, retry=None, max_response_bytes=LIMIT_BYTES) as client:
            with pytest.raises(MalformedResponseError, match="bytes of gzip hold nothing"):
                await client.get("s-1")


@pytest.mark.parametrize("encoding", [b"none", b"utf-8", b"identity, identity", b""])
async def test_an_encoding_that_is_none_is_no_compression(encoding: bytes) -> None:
    wire = with_body(b'{"id":"s-1","phase":"running"}', JSON_HEAD + b"content-encoding: " + encoding + b"\r\n")
    async with serve(answering(wire)) as server, EnclaveClient(server.origin, retry=None) as client:
        assert (await client.get("s-1")).id == "s-1"


async def test_a_server_that_trickles_runs_into_the_total_timeout() -> None:
    async def script(peer: Peer, _: Server) -> None:
        await peer.request()
        await peer.trickle(JSON_HEAD + b"content-length: 1000\r\n\r\n" + b" " * 1000, 0.02)

    timeout = Timeout(10, total=0.3)
    async with serve(script) as server, EnclaveClient(server.origin, retry=None, timeout=timeout) as client:
        with (
            anyio.fail_after(PATIENCE_SECONDS),
            pytest.raises(APITimeoutError, match=r"no whole response came within 0\.3 s"),
        ):
            await client.get("s-1")
