"""The client as programs really use it: proxies from the shell, several event loops, closing while others wait."""

from __future__ import annotations

import gc
import http.server
import socket
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import anyio
import pytest
from anyio.abc import SocketStream

from enclave import ConfigurationError, EnclaveClient, UsageError
from tests.support import NO_WAITS
from tests.support.review_server import answer, serving


async def test_a_proxy_may_be_given_without_a_scheme_as_curl_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def handle(stream: SocketStream, request: str, _: int) -> None:
        asked.append(request)
        await stream.send(answer(200, {"ok": True}))

    async with serving(handle) as url:
        monkeypatch.setenv("HTTP_PROXY", url.removeprefix("http://"))
        async with EnclaveClient("http://plane.test:8088", retry=None) as client:
            with anyio.fail_after(5):
                assert (await client.health()).ok
    assert asked == ["GET http://plane.test:8088/healthz HTTP/1.1"]


@pytest.mark.parametrize("proxy", ["ftp://user:sekrit@127.0.0.1:9", "socks5://user:sekrit@127.0.0.1:9"])
async def test_a_proxy_that_cannot_be_used_is_a_configuration_error(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)  # not installed
    monkeypatch.setenv("ALL_PROXY", proxy)
    async with EnclaveClient("http://plane.test:8088", retry=None) as client:
        with pytest.raises(ConfigurationError) as raised:
            await client.health()
    assert "proxy" in str(raised.value)
    assert "sekrit" not in str(raised.value)


async def test_every_call_that_a_closing_client_cuts_off_is_told_that_it_is_closed() -> None:
    outcomes: Counter[str] = Counter()
    waiting = anyio.Event()

    async def handle(_: SocketStream, __: str, number: int) -> None:
        if number == 100:
            waiting.set()
        await anyio.sleep_forever()

    async def call(client: EnclaveClient) -> None:
        with pytest.raises(UsageError, match="closed"):
            await client.get("s")
        outcomes["closed"] += 1

    with anyio.fail_after(20):
        async with serving(handle) as url:
            client = EnclaveClient(url, retry=NO_WAITS)
            async with anyio.create_task_group() as tasks:
                for _ in range(120):
                    tasks.start_soon(call, client)
                await waiting.wait()
                await client.aclose()
    assert outcomes == {"closed": 120}


class _Plane(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = b'{"ok": true}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name it has there
        pass


class _QuietServer(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that went away


@pytest.fixture
def plane() -> Iterator[str]:
    with _QuietServer(("127.0.0.1", 0), _Plane) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # asyncio's, for sockets that outlived their loop
def test_one_client_serves_one_event_loop_after_another(plane: str) -> None:
    client = EnclaveClient(plane, retry=None, timeout=5)

    async def use() -> bool:
        return (await client.health()).ok and (await client.health()).ok

    for backend in ("asyncio", "asyncio", "trio", "trio", "asyncio"):
        assert anyio.run(use, backend=backend)
    anyio.run(client.aclose, backend="trio")
    gc.collect()  # while the warnings are ignored


async def test_a_fan_out_adds_the_failure_of_its_input_to_the_blocks_own_exception() -> None:
    async def requests() -> AsyncIterator[str]:
        try:
            while True:
                yield "code"
        finally:
            raise ValueError("the input cannot be closed")

    with socket.socket() as refusing:
        refusing.bind(("127.0.0.1", 0))
        client = EnclaveClient(f"http://127.0.0.1:{refusing.getsockname()[1]}", retry=None)
        with pytest.raises(LookupError) as raised:
            async with client, client.fan_out(requests(), max_concurrency=1) as outcomes:
                await anext(outcomes)
                raise LookupError("the block")
        assert any("the input cannot be closed" in note for note in raised.value.__notes__)

        client = EnclaveClient(f"http://127.0.0.1:{refusing.getsockname()[1]}", retry=None)
        with pytest.raises(ValueError, match="the input cannot be closed") as alone:
            async with client, client.fan_out(requests(), max_concurrency=1) as outcomes:
                await anext(outcomes)
        assert not isinstance(alone.value.__context__, BaseExceptionGroup)
