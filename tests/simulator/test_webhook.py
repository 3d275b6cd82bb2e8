"""The POST to a webhook: what it holds, how it is bounded, and that it never harms its session."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from enclave.simulator import _webhook
from tests.support.messages import response
from tests.support.plane import Answer, ControlPlane, closing, stalling
from tests.support.wire import Peer, Server, serve

pytestmark = pytest.mark.anyio

NO_CONTENT = response(status=204)
REDIRECT = b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n"
ENDLESS_BODY = b"HTTP/1.1 200 OK\r\n\r\nit never ends"


@asynccontextmanager
async def receiving(answer: Answer) -> AsyncIterator[tuple[ControlPlane, str]]:
    """A server that gives every webhook this answer, and where it is."""
    async with ControlPlane(otherwise=answer).serve() as receiver:
        with anyio.fail_after(60):
            yield receiver, f"{receiver.base_url}/hook?x=1"


@asynccontextmanager
async def silent() -> AsyncIterator[tuple[str, anyio.Event, anyio.Event]]:
    """Where no webhook is answered, and two events: something came, and the client has left."""
    came, left = anyio.Event(), anyio.Event()

    async def script(peer: Peer, _: Server) -> None:
        came.set()
        await peer.closed_by_client()
        left.set()

    async with serve(script) as server:
        with anyio.fail_after(60):
            yield server.origin, came, left


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
        (NO_CONTENT, "webhook_delivered", {"status": 204}),
        (stalling(ENDLESS_BODY), "webhook_delivered", {"status": 200}),
        (REDIRECT, "webhook_failed", {"error": "answered 302"}),
        (response({}, 500), "webhook_failed", {"error": "answered 500"}),
        (closing(b"nonsense\r\n\r\n"), "webhook_failed", None),
        (closing(), "webhook_failed", None),
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
    (request,) = receiver.requests
    assert (request.method, request.target) == ("POST", "/hook?x=1")
    assert request.headers["content-type"] == "application/json"
    document = request.json
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
    monkeypatch.setattr(_webhook, "WEBHOOK_SECONDS", 0.5)
    async with silent() as (url, came, left), serving() as api:
        api.sim.script()
        run = await api.run("pass", webhookUrl=url)
        assert await entry(api, run.id) == ("webhook_failed", {"error": "no answer in time"})
        if came.is_set():  # on a busy machine the time may be over before there is a connection
            await left.wait()


async def test_a_webhook_under_way_does_not_hold_up_leaving(serving):
    async with silent() as (url, came, left):
        async with serving() as api:
            api.sim.script()
            await api.run("pass", webhookUrl=url)
            await came.wait()
        await left.wait()


async def test_no_proxy_of_the_environment_sees_a_webhook(serving, monkeypatch):
    async with receiving(NO_CONTENT) as (receiver, url), serving() as api:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        monkeypatch.setenv("NO_PROXY", "")
        api.sim.script()
        run = await api.run("pass", webhookUrl=url)
        assert (await entry(api, run.id))[0] == "webhook_delivered"
        assert len(receiver.requests) == 1
