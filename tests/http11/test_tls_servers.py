"""TLS against servers that are not Python's: OpenSSL's own, which changes keys on command, and Node's."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.abc import Process

from enclave import APIConnectionError
from enclave.transport.http11._body import ResponseBody
from tests.support import PATIENCE_SECONDS
from tests.support.messages import CHUNKED, OK, chunk
from tests.support.origin import Client, client_of, pool_of, read_all
from tests.support.tls import authority, trusting

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file with a key and its certificate."""
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    authority().issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(file)
    return str(file)


class Program:
    """A server process, which says something as it goes."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._said = b""

    async def says(self, text: bytes) -> bytes:
        """Wait until it says this, and give the rest of that line."""
        with anyio.fail_after(PATIENCE_SECONDS):
            while text not in self._said or b"\n" not in self._said.partition(text)[2]:
                self._said += await self._process.stdout.receive()
        _, _, after = self._said.partition(text)
        line, _, self._said = after.partition(b"\n")
        return line.strip()

    async def type(self, data: bytes) -> None:
        await self._process.stdin.send(data)


@asynccontextmanager
async def running(*command: str) -> AsyncIterator[Program]:
    async with await anyio.open_process(command, stderr=subprocess.STDOUT) as process:
        try:
            yield Program(process)
        finally:
            process.kill()


@asynccontextmanager
async def openssl(certificate: str, *options: str) -> AsyncIterator[tuple[Program, str]]:
    """OpenSSL's test server. It sends what is typed, and a letter alone on a line is a command to it."""
    for program in ("openssl", "stdbuf"):  # the latter, because openssl keeps what it says if it says it to a pipe
        if shutil.which(program) is None:
            pytest.skip(f"there is no `{program}` on the PATH")
    command = ["stdbuf", "-oL", "openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", certificate, *options]
    async with running(*command) as server:
        port = (await server.says(b"ACCEPT 127.0.0.1:")).decode()
        yield server, f"https://localhost:{port}"


@asynccontextmanager
async def first_response(server: Program, client: Client) -> AsyncIterator[ResponseBody]:
    """The body of a response whose head the server has sent, and nothing more."""

    async def answer() -> None:
        await server.says(b"GET /first")
        await server.type(CHUNKED)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer)
        async with client.stream(target="/first") as response:
            yield response.body


async def assert_the_connection_serves_again(server: Program, client: Client) -> None:
    async def answer() -> None:
        await server.says(b"GET /second")
        await server.type(OK)

    (connection,) = pool_of(client).idle
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer)
        assert (await client.get("/second")).content == b"hello"
    assert list(pool_of(client).idle) == [connection]


COMMANDS = [
    pytest.param("-tls1_3", b"K\n", 6, id="new keys, ours too"),
    pytest.param("-tls1_3", b"k\n", 6, id="new keys"),
    pytest.param("-tls1_2", b"r\n", 1, id="renegotiation"),
]


@pytest.mark.parametrize(("version", "command", "times"), COMMANDS)
async def test_a_change_of_keys_within_a_body_loses_nothing(certificate, version, command, times):
    async with (
        openssl(certificate, version) as (server, origin),
        client_of(origin, ssl_context=trusting, seconds=20) as client,
    ):
        with anyio.fail_after(60):
            async with first_response(server, client) as body:
                for _ in range(times):
                    await server.type(chunk(b"hello"))  # what was read is no longer before the command
                    assert await body.read() == b"hello"
                    await server.type(command)
                    await server.says(b"SSL_do_handshake -> 1")
                await server.type(b"0\r\n\r\n")
                assert await body.read() == b""
            if version == "-tls1_3":  # the end of a renegotiation may come later than that of the body
                await assert_the_connection_serves_again(server, client)


@pytest.mark.parametrize(("version", "command", "times"), COMMANDS)
async def test_a_read_that_is_cancelled_while_keys_change_can_be_done_again(certificate, version, command, times):
    async with (
        openssl(certificate, version) as (server, origin),
        client_of(origin, ssl_context=trusting, seconds=None) as client,
    ):

        async def read_with_cancellations(body: ResponseBody, first: int) -> bytes:
            for steps in itertools.count(first):
                with anyio.CancelScope() as scope:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(cancel_after, steps % 7, scope)
                        data = await body.read()
                        tasks.cancel_scope.cancel()
                if not scope.cancelled_caught:
                    return data
            raise AssertionError

        with anyio.fail_after(60):
            async with first_response(server, client) as body:
                for turn in range(times):
                    await server.type(chunk(b"hello"))
                    assert await body.read() == b"hello"
                    await server.type(command)
                    await server.says(b"SSL_do_handshake -> 1")
                    await server.type(chunk(b"again"))
                    assert await read_with_cancellations(body, turn) == b"again"
                await server.type(b"0\r\n\r\n")
                assert await body.read() == b""
            if version == "-tls1_3":  # the end of a renegotiation may come later than that of the body
                await assert_the_connection_serves_again(server, client)


async def cancel_after(steps: int, scope: anyio.CancelScope) -> None:
    for _ in range(steps):
        await anyio.lowlevel.checkpoint()
    scope.cancel()


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
async def test_a_cancelled_stream_is_a_clean_end_to_the_server(certificate, version):
    async with (
        openssl(certificate, version) as (server, origin),
        client_of(origin, ssl_context=trusting, seconds=None) as client,
    ):
        async with first_response(server, client) as body, anyio.create_task_group() as tasks:
            tasks.start_soon(body.read)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        assert await server.says(b"DONE") == b""  # it says ERROR of a connection that was cut


async def test_a_renegotiation_while_a_large_request_is_sent_is_followed(certificate):
    async with (
        openssl(certificate, "-tls1_2") as (server, origin),
        client_of(origin, ssl_context=trusting, seconds=20) as client,
    ):

        async def serve() -> None:
            await server.says(b"POST /first")
            await server.type(b"r\n")
            await server.says(b"the last line")
            await server.type(OK)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            with anyio.fail_after(60):
                body = b"a line of the body\n" * 40_000 + b"the last line\n"
                assert (await client.post("/first", content=body)).content == b"hello"


NODE_SERVER = """
const { createServer } = require("node:https");
const { readFileSync } = require("node:fs");
const [file, version] = process.argv.slice(1);
const pem = readFileSync(file);
const text = Buffer.from(Array.from({ length: 65536 }, (_, index) => index % 251));

function answer(request, response) {
  const socket = response.socket;
  socket.setNoDelay(true);
  if (request.url === "/cut") {
    response.write(text);
    setImmediate(() => socket.destroy());
  } else if (request.url === "/unframed") {
    socket.write("HTTP/1.1 200 OK\\r\\n\\r\\n");
    socket.end(text);
  } else if (request.url === "/single") {
    for (const byte of text.subarray(0, 2000)) response.write(Buffer.from([byte]));
    response.end();
  } else {
    for (let start = 0; start < text.length; start += 16384) response.write(text.subarray(start, start + 16384));
    response.end();
  }
}

const server = createServer({ key: pem, cert: pem, minVersion: version, maxVersion: version }, answer);
server.listen(0, "127.0.0.1", () => console.log(`port ${server.address().port}`));
"""
NODE_TEXT = bytes(index % 251 for index in range(65_536))


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
async def test_every_kind_of_record_and_end_of_nodes_server_is_read(certificate, version):
    if shutil.which("node") is None:
        pytest.skip("there is no `node` on the PATH")
    async with running("node", "--eval", NODE_SERVER, "--", certificate, version) as server:
        port = (await server.says(b"port ")).decode()
        async with client_of(f"https://localhost:{port}", ssl_context=trusting, seconds=20) as client:
            for is_stream in (True, True, False, False):
                assert (await client.get("/single", is_stream=is_stream)).content == NODE_TEXT[:2000]
                assert (await client.get("/large", is_stream=is_stream)).content == NODE_TEXT
                assert (await client.get("/unframed", is_stream=is_stream)).content == NODE_TEXT
            async with client.stream(target="/cut") as response:
                with anyio.fail_after(PATIENCE_SECONDS), pytest.raises(APIConnectionError):
                    await read_all(response)
            assert pool_of(client).open == set(pool_of(client).idle)
