"""What is tried again, when, how often, and what is said about it. The clock is virtual, so the waits are exact."""

from __future__ import annotations

import logging
import time
from email.utils import formatdate

import anyio
import httpx
import pytest
from trio.testing import MockClock

from enclave import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    ConnectError,
    ConnectTimeoutError,
    EnclaveClient,
    EndFrame,
    RateLimitError,
    RetryPolicy,
    ServiceUnavailableError,
    StdoutFrame,
    StreamInterrupted,
    Timeout,
)
from tests.support.scripted_transport import ScriptedTransport, sse

OK = httpx.Response(200, json=[])
CREATED = httpx.Response(201, json={"id": "s-1", "phase": "pending"})
EXACT = RetryPolicy(jitter=0)


@pytest.fixture
def anyio_backend():
    """Trio alone: it is the one with a virtual clock. That both loops retry is seen in the other tests."""
    return "trio", {"clock": MockClock(autojump_threshold=0)}


def client_of(transport: httpx.AsyncBaseTransport, retry: RetryPolicy | None = EXACT, **options) -> EnclaveClient:
    return EnclaveClient("http://127.0.0.1:1", transport=transport, retry=retry, **options)


def status(code: int, **headers: str) -> httpx.Response:
    return httpx.Response(code, headers={name.replace("_", "-"): value for name, value in headers.items()}, json={})


RETRIED = [
    *(pytest.param(status(code), id=str(code)) for code in (429, 502, 503, 504)),
    *(
        pytest.param(error("x"), id=error.__name__)
        for error in (
            *(httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ReadTimeout, httpx.WriteTimeout),
            *(httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError, ConnectionResetError, BrokenPipeError),
        )
    ),
]
FINAL = [pytest.param(status(code), id=str(code)) for code in (301, 400, 401, 403, 404, 409, 413, 418, 500, 501, 505)]


@pytest.mark.parametrize("failure", RETRIED)
async def test_reading_and_tearing_down_are_tried_again(failure):
    for call in ("list", "get", "audit", "teardown", "health"):
        transport = ScriptedTransport(failure, failure, httpx.Response(204) if call == "teardown" else body_for(call))
        async with client_of(transport) as client:
            await getattr(client, call)(*([] if call in ("list", "health") else ["s-1"]))
        assert transport.waits == pytest.approx([0.5, 1.0])


def body_for(call: str) -> httpx.Response:
    bodies = {"get": {"id": "s-1", "phase": "running"}, "health": {"ok": True}}
    return httpx.Response(200, json=bodies.get(call, []))


@pytest.mark.parametrize("failure", FINAL)
async def test_what_will_not_get_better_is_not_tried_again(failure):
    for call in ("get", "teardown", "run"):
        transport = ScriptedTransport(failure)
        async with client_of(transport) as client:
            with pytest.raises(APIStatusError) as caught:
                await getattr(client, call)("s-1")
        assert len(transport.requests) == 1
        assert caught.value.retries == 0
        assert "gave up" not in str(caught.value)


NO_SESSION_MADE = {"429", "503", "ConnectError", "ConnectTimeout", "PoolTimeout"}


@pytest.mark.parametrize("failure", RETRIED)
async def test_creating_is_tried_again_only_where_no_session_can_have_been_made(failure, request):
    name = request.node.callspec.id.removeprefix("trio-").split("-")[-1]
    transport = ScriptedTransport(failure, CREATED)
    async with client_of(transport) as client:
        if name in NO_SESSION_MADE:
            assert (await client.run("x")).id == "s-1"
            assert transport.waits == pytest.approx([0.5])
        else:
            with pytest.raises((APIStatusError, APIConnectionError)):
                await client.run("x")
            assert [request.method for request in transport.requests].count("POST") == 1


async def test_the_waits_grow_to_their_cap_and_the_last_error_says_how_many_were_made():
    transport = ScriptedTransport(httpx.ReadError("reset by peer"))
    policy = RetryPolicy(attempts=7, wait_seconds=1, max_wait_seconds=5, jitter=0, total_seconds=None)
    async with client_of(transport, policy) as client:
        with pytest.raises(
            APIConnectionError, match=r"GET /sessions: reset by peer.*gave up after 6 retries"
        ) as caught:
            await client.list()
    assert transport.waits == pytest.approx([1, 2, 4, 5, 5, 5])
    assert caught.value.retries == 6


async def test_jitter_shortens_each_wait_by_a_part_of_it():
    waits = []
    for _ in range(20):
        transport = ScriptedTransport(status(503), OK)
        async with client_of(transport, RetryPolicy(wait_seconds=8, jitter=0.25)) as client:
            await client.list()
        waits += transport.waits
    assert all(6 <= wait <= 8 for wait in waits)
    assert len(set(waits)) > 1


@pytest.mark.parametrize(
    ("value", "wait"),
    [("7", 7), ("0", 0), ("3600", 60), ("soon", 0.5), (formatdate(time.time() + 86_400, usegmt=True), 60)],
    ids=["seconds", "none", "too many seconds", "no time", "a date"],
)
@pytest.mark.parametrize("code", [429, 503])
async def test_retry_after_takes_the_place_of_the_wait_within_its_cap(code, value, wait):
    for call in ("list", "run"):
        transport = ScriptedTransport(status(code, retry_after=value), CREATED if call == "run" else OK)
        async with client_of(transport, RetryPolicy(jitter=0, total_seconds=None)) as client:
            await getattr(client, call)(*(["x"] if call == "run" else []))
        assert transport.waits == pytest.approx([wait])


async def test_retry_after_as_a_date_is_reckoned_by_the_servers_clock():
    answer = status(503, retry_after="Wed, 21 Oct 2015 07:28:30 GMT", date="Wed, 21 Oct 2015 07:28:00 GMT")
    transport = ScriptedTransport(answer, OK)
    async with client_of(transport) as client:
        await client.list()
    assert transport.waits == pytest.approx([30])


async def test_no_retry_begins_after_the_total_time():
    transport = ScriptedTransport(status(503))
    policy = RetryPolicy(attempts=100, wait_seconds=4, max_wait_seconds=4, jitter=0, total_seconds=10)
    async with client_of(transport, policy) as client:
        with pytest.raises(ServiceUnavailableError) as caught:
            await client.list()
    assert transport.waits == pytest.approx([4, 4])
    assert caught.value.retries == 2


async def test_a_retry_after_beyond_the_total_time_is_not_waited_for():
    transport = ScriptedTransport(status(429, retry_after="30"))
    async with client_of(transport, RetryPolicy(total_seconds=20)) as client:
        with pytest.raises(RateLimitError) as caught:
            await client.list()
    assert caught.value.retry_after_seconds == 30
    assert transport.waits == []


@pytest.mark.parametrize("retry", [None, RetryPolicy(attempts=1)])
async def test_retries_are_off_with_one_argument(retry):
    transport = ScriptedTransport(status(503))
    async with client_of(transport, retry) as client:
        for call in (client.list, lambda: client.run("x"), lambda: client.teardown("s-1")):
            with pytest.raises(ServiceUnavailableError):
                await call()
    assert len(transport.requests) == 3


async def test_each_retry_is_logged_with_its_reason_and_its_wait(caplog):
    caplog.set_level(logging.INFO, "enclave")
    busy = httpx.Response(503, headers={"retry-after": "2"}, json={"message": "busy"})
    transport = ScriptedTransport(busy, httpx.ReadError("reset"), OK)
    async with client_of(transport) as client:
        await client.list()
    first, second = (record.getMessage() for record in caplog.records)
    assert first == "GET /sessions: 503 busy (retry after 2.0), retry 1 of 4 in 2.00 s"
    assert "reset" in second
    assert second.endswith(", retry 2 of 4 in 1.00 s")
    assert "gave up" not in second


async def test_a_deadline_of_the_callers_own_cuts_the_waiting_short():
    transport = ScriptedTransport(status(503, retry_after="50"))
    async with client_of(transport) as client:
        started = anyio.current_time()
        with anyio.move_on_after(3) as scope:
            await client.list()
    assert scope.cancelled_caught
    assert anyio.current_time() - started == pytest.approx(3)


async def test_a_caller_can_retry_on_its_own_errors_by_their_class():
    transport = ScriptedTransport(httpx.ConnectTimeout("slow"))
    async with client_of(transport, None) as client:
        with pytest.raises(ConnectTimeoutError) as caught:
            await client.list()
    assert isinstance(caught.value, ConnectError)
    assert isinstance(caught.value, APITimeoutError)
    assert isinstance(caught.value, TimeoutError)


# Streams, where the waits are real


async def test_a_stream_that_is_silent_longer_than_any_default_of_httpx_goes_on_where_it_is():
    transport = ScriptedTransport(sse(b'data: {"kind":"stdout","data":"a"}\n\n', 290.0, b'data: {"kind":"end"}\n\n'))
    async with client_of(transport) as client, client.stream("s-1") as frames:
        assert [frame async for frame in frames] == [StdoutFrame("a"), EndFrame()]
        assert frames.resumes == 0


async def test_a_stream_without_an_idle_timeout_may_be_silent_for_ever():
    transport = ScriptedTransport(sse(1e6, b'data: {"kind":"end"}\n\n'))
    async with client_of(transport, timeout=Timeout(stream_idle=None)) as client, client.stream("s-1") as frames:
        assert [frame async for frame in frames] == [EndFrame()]
        assert frames.resumes == 0


async def test_a_day_of_silence_is_resumed_as_often_as_it_takes():
    started = []

    def answer(request: httpx.Request) -> httpx.Response:
        started.append(anyio.current_time())
        after = request.headers.get("last-event-id")
        head = b"" if after else b'id: 1\ndata: {"kind":"stdout","data":"a"}\n\n'
        left = 86_400 - (started[-1] - started[0])
        return sse(head, left, b'id: 2\ndata: {"kind":"end"}\n\n')

    transport = ScriptedTransport(answer)
    async with client_of(transport) as client, client.stream("s-1") as frames:
        assert [frame async for frame in frames] == [StdoutFrame("a"), EndFrame()]
        assert 280 <= frames.resumes <= 288  # one in 300 s, and a wait


async def test_the_servers_retry_field_is_how_long_it_is_left_alone():
    event = b'data: {"kind":"stdout","data":"a"}\n\n'
    transport = ScriptedTransport(
        sse(b"retry: 2500\n\n" + event),
        sse(event),
        sse(event),
        sse(b"retry: 100\n\n" + event),
        sse(event + b'data: {"kind":"end"}\n\n'),
    )
    # With jitter: it spreads the waits that are ours to choose, and never falls short of what the server asks for.
    async with client_of(transport, RetryPolicy(jitter=1)) as client, client.stream("s-1") as frames:
        assert [frame async for frame in frames] == [StdoutFrame("a"), EndFrame()]
    first, second, third, fourth = transport.waits
    assert first == pytest.approx(2.5)
    assert 2.5 <= second <= 5
    assert 2.5 <= third <= 10
    assert 0.1 <= fourth <= 1.6


async def test_a_retry_field_of_zero_is_honoured_once_and_then_the_waits_are_ours():
    event = b'data: {"kind":"stdout","data":"a"}\n\n'
    transport = ScriptedTransport(
        sse(b"retry: 0\n\n" + event), sse(event), sse(event), sse(event + b'data: {"kind":"end"}\n\n')
    )
    async with client_of(transport) as client, client.stream("s-1") as frames:
        assert [frame async for frame in frames] == [StdoutFrame("a"), EndFrame()]
    assert transport.waits == pytest.approx([0, 1, 2])


async def test_a_stream_that_nobody_answers_fails_when_all_its_timeouts_together_are_over():
    async def never(_: httpx.Request) -> httpx.Response:
        await anyio.sleep_forever()
        raise AssertionError

    transport = httpx.MockTransport(never)
    timeout = Timeout(connect=1, read=2, acquire=4)
    async with client_of(transport, None, timeout=timeout) as client:
        started = anyio.current_time()
        with pytest.raises(APITimeoutError, match="no response came"):
            async with client.stream("s-1"):
                pytest.fail("opened")
        assert anyio.current_time() - started == pytest.approx(7)


async def test_a_retry_field_beyond_reason_is_cut():
    transport = ScriptedTransport(sse(b"retry: 999999999999999999999\n\n"), sse(b'data: {"kind":"end"}\n\n'))
    async with client_of(transport) as client, client.stream("s-1") as frames:
        assert [frame async for frame in frames] == [EndFrame()]
    assert transport.waits == pytest.approx([60])


async def test_retry_after_on_reconnecting_is_waited_for():
    event = b'data: {"kind":"stdout","data":"a"}\n\n'
    transport = ScriptedTransport(
        sse(event),
        status(503, retry_after="20"),
        status(429, retry_after="5"),
        sse(event + b'data: {"kind":"end"}\n\n'),
    )
    async with client_of(transport) as client, client.stream("s-1") as frames:
        assert [frame async for frame in frames] == [StdoutFrame("a"), EndFrame()]
    assert transport.waits == pytest.approx([0.5, 20, 5])


async def test_reconnecting_slows_down_and_is_given_up_without_progress():
    transport = ScriptedTransport(sse(b'data: {"kind":"stdout","data":"a"}\n\n'), httpx.ConnectError("refused"))
    async with client_of(transport, RetryPolicy(attempts=6, jitter=0)) as client, client.stream("s-1") as frames:
        assert await anext(frames) == StdoutFrame("a")
        with pytest.raises(StreamInterrupted, match=r"refused.*gave up after 5 retries") as caught:
            await anext(frames)
    assert transport.waits == pytest.approx([0.5, 1, 2, 4, 8])
    assert caught.value.delivered == 1
    assert isinstance(caught.value.__cause__, ConnectError)
