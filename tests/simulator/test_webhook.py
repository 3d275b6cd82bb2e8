"""The POST to a webhook: what it holds, how it is bounded, and that it never harms its session."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.abc
import h11
import pytest

from enclave.simulator import _webhook

pytestmark = pytest.mark.anyio

SILENCE = None
REDIRECT = b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n"
ENDLESS_BODY = b"HTTP/1.1 200 OK\r\n\r\nit never ends"


class Receiver:
    """A server for webhooks. It answers each with the same bytes, then waits for the client to leave."""

    def __init__(self, answer: bytes | None) -> None:
        self.answer = answer
        self.requests: list[tuple[h11.Request, bytes]] = []
        self.left = anyio.Event()
        """Set when a client has left."""

    async def handle(self, stream: anyio.abc.SocketStream) -> None:
        async with stream:
            try:
                self.requests.append(await read_request(stream))
                if self.answer is not SILENCE:
                    await stream.send(self.answer)
                if self.answer in (SILENCE, ENDLESS_BODY):
                    await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                self.left.set()


async def read_request(stream: anyio.abc.SocketStream) -> tuple[h11.Request, bytes]:
    connection, body = h11.Connection(h11.SERVER), b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive())
        elif isinstance(event, h11.Request):
            request = event
        else:
            body += event.data
    return request, body


@asynccontextmanager
async def receiving(answer: bytes | None) -> AsyncIterator[tuple[Receiver, str]]:
    receiver = Receiver(answer)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    with anyio.fail_after(60):
        async with listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, receiver.handle)
            yield receiver, f"http://127.0.0.1:{port}/hook?x=1"
            group.cancel_scope.cancel()


async def entry(api, session_id):
    """How the webhook went, by the trail."""

    def last(sim):
        return sim._fleet.sessions[session_id].trail[-1].type.startswith("webhook")

    with anyio.fail_after(60):
        await api.sim.until(last)
    trail = (await api.http.get(f"/sessions/{session_id}/audit")).json()
    return trail[-1]["type"], trail[-1]["detail"]


@pytest.mark.parametrize(
    ("answer", "type_", "detail"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", "webhook_delivered", {"status": 204}),
        (ENDLESS_BODY, "webhook_delivered", {"status": 200}),
        (REDIRECT, "webhook_failed", {"error": "answered 302"}),
        (b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n", "webhook_failed", {"error": "answered 500"}),
        (b"nonsense\r\n\r\n", "webhook_failed", None),
        (b"", "webhook_failed", None),
    ],
    ids=["success", "a body that never ends", "redirect", "error", "no HTTP", "no answer"],
)
async def test_a_webhook_gets_the_outcome_and_how_that_went_is_in_the_trail(serving, answer, type_, detail):
    async with receiving(answer) as (receiver, url), serving() as api:
        api.sim.script(result={"a": 1})
        run = await api.run("pass", webhookUrl=url, labels={"k": "v"})
        told = await entry(api, run.id)
    assert told == (type_, detail or told[1])
    assert run.phase == "succeeded"
    ((request, body),) = receiver.requests
    assert (request.method, request.target) == (b"POST", b"/hook?x=1")
    assert dict(request.headers)[b"content-type"] == b"application/json"
    document = json.loads(body)
    assert (document["sessionId"], document["orgId"]) == (run.id, api.sim.org_id)
    assert (document["type"], document["phase"], document["labels"]) == ("session.finished", "succeeded", {"k": "v"})
    assert (document["killReason"], document["result"]["json"]) == (None, {"a": 1})


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "https://127.0.0.1:1/", "https://" + "x" * 300])
async def test_a_webhook_that_cannot_be_reached_is_never_fatal(serving, url):
    async with serving() as api:
        api.sim.script()
        run = await api.run("pass", webhookUrl=url)
        assert (await entry(api, run.id))[0] == "webhook_failed"
        assert run.phase == "succeeded"


async def test_a_webhook_that_is_not_answered_is_given_up_in_time(serving, monkeypatch):
    monkeypatch.setattr(_webhook, "WEBHOOK_SECONDS", 0.05)
    async with receiving(SILENCE) as (receiver, url), serving() as api:
        api.sim.script()
        run = await api.run("pass", webhookUrl=url)
        assert await entry(api, run.id) == ("webhook_failed", {"error": "no answer in time"})
        await receiver.left.wait()


async def test_a_webhook_under_way_does_not_hold_up_leaving(serving):
    async with receiving(SILENCE) as (receiver, url):
        async with serving() as api:
            api.sim.script()
            await api.run("pass", webhookUrl=url)
            await api.sim.until(lambda _: bool(receiver.requests))
        await receiver.left.wait()


async def test_no_proxy_of_the_environment_sees_a_webhook(serving, monkeypatch):
    async with receiving(b"HTTP/1.1 204 No Content\r\n\r\n") as (receiver, url), serving() as api:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        monkeypatch.setenv("NO_PROXY", "")
        api.sim.script()
        run = await api.run("pass", webhookUrl=url)
        assert (await entry(api, run.id))[0] == "webhook_delivered"
        assert len(receiver.requests) == 1
