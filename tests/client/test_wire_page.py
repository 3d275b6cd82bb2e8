"""What docs/wire.md says that the client sends is what it sends."""

from __future__ import annotations

import re

import anyio

from enclave import EnclaveClient, RetryPolicy
from tests.support import PATIENCE_SECONDS
from tests.support.plane import ControlPlane
from tests.support.programs import PAGES

TABLE = PAGES["docs/wire.md"].partition("### What the client sends")[2].partition("###")[0]
ROWS = re.findall(r"^\| (`.*?) \| (.*?) \| (.*?) \|$", TABLE, re.MULTILINE)
TRACE = {"traceparent", "tracestate"}  # of an observer: see tests/telemetry
ALWAYS = {"host", "content-length", "authorization"}  # as the page says above its table
ALL = b'id: 1\ndata: {"kind":"stdout","data":"a"}\n\n', b'id: 2\ndata: {"kind":"end"}\n\n'


async def test_the_headers_are_those_of_the_page() -> None:
    async with ControlPlane().serve() as plane:
        retry = RetryPolicy(wait_seconds=0)
        with anyio.fail_after(PATIENCE_SECONDS):
            async with EnclaveClient(plane.base_url, api_key="ek_a_b", retry=retry) as client:
                session = await client.run("print(1)")
                plane.streams(ALL[0])
                plane.streams(ALL[1])
                async with session.stream() as frames:
                    assert [frame.kind async for frame in frames] == ["stdout", "end"]
                await client.list()
    described = {name.lower() for names, _, _ in ROWS for name in re.findall(r"`([\w-]+)`", names)}
    sent = {name for request in plane.requests for name, _ in request.fields}
    assert sent == described - TRACE | ALWAYS
    for request in plane.requests:
        is_stream = request.target.endswith("/stream")
        assert request.headers["user-agent"].startswith("enclave-sdk-python/")
        assert request.headers["accept-encoding"] == "identity"
        assert request.headers["accept"] == ("text/event-stream" if is_stream else "application/json")
        assert request.headers.get("content-type") == ("application/json" if request.body else None)
        assert request.headers.get("cache-control") == ("no-cache" if is_stream else None)
    assert plane.requests[2].headers["last-event-id"] == "1"
