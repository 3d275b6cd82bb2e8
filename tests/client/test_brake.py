"""What holds creates back: a server that refuses them, and a pace that the caller sets. The clock is virtual."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import anyio
import pytest
from trio.testing import MockClock

from enclave import Completed, EnclaveClient, Errored, RateLimitError, RetryPolicy, ServiceUnavailableError, Verdict
from tests.support.quota import QuotaTransport

EXACT = RetryPolicy(jitter=0)


@pytest.fixture
def anyio_backend():
    """Trio alone: it is the one with a virtual clock. Both loops pass the brake in test_brake_sockets.py."""
    return "trio", {"clock": MockClock(autojump_threshold=0)}


def client_of(plane: QuotaTransport, retry: RetryPolicy | None = EXACT) -> EnclaveClient:
    return EnclaveClient("http://127.0.0.1:1", transport=plane, retry=retry)


def waits(times: list[float]) -> list[float]:
    return [later - sooner for sooner, later in itertools.pairwise(times)]


@pytest.mark.parametrize(
    ("jitter", "create_seconds", "count"), [(0.5, 0.01, 500), (0, 0.0005, 250), (1, 0.05, 250)], ids=str
)
async def test_a_fan_out_far_beyond_a_quota_wastes_neither_time_nor_requests(jitter, create_seconds, count):
    plane = QuotaTransport(20, seconds=0.5 * 500 / count, create_seconds=create_seconds)
    started = anyio.current_time()
    async with client_of(plane, RetryPolicy(jitter=jitter)) as client:
        outcomes = await client.map(["x"] * count, max_concurrency=200)
    seconds = anyio.current_time() - started
    assert Counter(outcome.verdict for outcome in outcomes) == {Verdict.SUCCEEDED: count}
    assert plane.most_live == 20
    assert len(plane.refused) <= count
    assert seconds <= 1.2 * count / 20 * (plane.seconds + create_seconds)


async def test_a_server_without_retry_after_is_spared_as_well():
    plane = QuotaTransport(20, retry_after=None)
    async with client_of(plane) as client:
        outcomes = await client.map(["x"] * 200, max_concurrency=100)
    assert Counter(outcome.verdict for outcome in outcomes) == {Verdict.SUCCEEDED: 200}
    assert len(plane.refused) < 150


async def test_long_sessions_are_waited_for_beyond_the_time_of_any_retry():
    plane = QuotaTransport(2, seconds=600)
    async with client_of(plane) as client:
        outcomes = await client.map(["x"] * 12, max_concurrency=12)
    assert Counter(outcome.verdict for outcome in outcomes) == {Verdict.SUCCEEDED: 12}
    # Trials become rarer, so an hour costs a few requests beside the first burst.
    assert len(plane.refused) <= 10 + 30


async def test_one_refusal_holds_every_create_of_the_client():
    answers = iter([429])
    plane = QuotaTransport(100, retry_after="7", refuse=lambda: next(answers, None))
    async with client_of(plane) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.run, "refused")
        await anyio.sleep(2)
        tasks.start_soon(client.run, "never refused")
        await anyio.sleep(1)
        await client.list()  # reads are not held
        async with client.fan_out(["x"]) as outcomes:
            assert (await anext(outcomes)).verdict is Verdict.SUCCEEDED
    first, *others = plane.asked
    assert len(others) == 3
    assert all(other - first >= 7 for other in others)


async def test_the_jitter_only_lengthens_what_the_server_asked_for():
    seen = []
    for _ in range(20):
        answers = iter([503])
        plane = QuotaTransport(9, retry_after="10", refuse=lambda answers=answers: next(answers, None))
        async with client_of(plane, RetryPolicy(jitter=0.5)) as client:
            await client.run("x")
        seen += waits(plane.asked)
    assert all(10 <= wait <= 11.01 for wait in seen)
    assert len(set(seen)) > 1


async def test_creates_come_back_step_by_step():
    refusing_until = 0.5
    plane = QuotaTransport(
        100, create_seconds=1, seconds=50, refuse=lambda: 429 if anyio.current_time() - began < refusing_until else None
    )
    began = anyio.current_time()
    async with client_of(plane) as client:
        await client.map(["x"] * 15, max_concurrency=15)
    after = Counter(round(time - began) for time in plane.asked if time - began > refusing_until)
    assert after == {1: 1, 2: 2, 3: 4, 4: 8}


async def test_a_refusal_on_the_way_back_costs_one_request():
    plane = QuotaTransport(100, refuse=lambda: 503 if anyio.current_time() - began < 3.5 else None)
    began = anyio.current_time()
    async with client_of(plane) as client:
        outcomes = await client.map(["x"] * 50, max_concurrency=50)
    assert {outcome.verdict for outcome in outcomes} == {Verdict.SUCCEEDED}
    assert len(plane.refused) == 50 + 3


async def test_room_that_a_server_gains_is_found():
    plane = QuotaTransport(2, seconds=1)
    async with client_of(plane) as client, client.fan_out(["x"] * 300, max_concurrency=60) as outcomes:
        for _ in range(10):
            await anext(outcomes)
        plane.room = 50
        started = anyio.current_time()
        verdicts = [outcome.verdict async for outcome in outcomes]
    assert set(verdicts) == {Verdict.SUCCEEDED}
    assert plane.most_live == 50
    assert anyio.current_time() - started < 50  # 145 s with the room of before


async def test_room_that_a_server_loses_is_not_asked_for_again_and_again():
    plane = QuotaTransport(40, seconds=1)
    async with client_of(plane) as client, client.fan_out(["x"] * 400, max_concurrency=100) as outcomes:
        for _ in range(100):
            await anext(outcomes)
        plane.room, before = 10, len(plane.refused)
        verdicts = [outcome.verdict async for outcome in outcomes]
    assert set(verdicts) == {Verdict.SUCCEEDED}
    assert len(plane.refused) - before < 40


async def test_sessions_that_a_caller_opens_one_by_one_pass_the_same_brake():
    plane = QuotaTransport(5, seconds=0.5)
    done = []

    async def one(client: EnclaveClient) -> None:
        async with client.session("x") as session:
            done.append(await session.result())

    async with client_of(plane) as client, anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(one, client)
    assert len(done) == 50
    assert len(plane.refused) <= 45 + 20


async def test_a_session_inside_a_session_beyond_the_quota_is_refused_in_time():
    plane = QuotaTransport(1)
    async with client_of(plane) as client:
        started = anyio.current_time()
        async with client.session("outer"):
            with pytest.raises(RateLimitError) as caught:
                async with client.session("inner"):
                    pytest.fail("there was room")
        assert anyio.current_time() - started < 60
        assert caught.value.retries == 4
        async with client.session("outer"):
            outcomes = await client.map(["inner"])  # the session around it is not one that ends by itself
    assert isinstance(outcomes[0], Errored)
    assert outcomes[0].verdict is Verdict.INFRASTRUCTURE
    assert not plane.live


async def test_a_server_that_refuses_for_ever_fails_every_request_within_the_retry_policy():
    plane = QuotaTransport(0, retry_after="5")
    started = anyio.current_time()
    async with client_of(plane) as client:
        outcomes = await client.map(["x"] * 100, max_concurrency=100)
    assert all(isinstance(outcome.error, RateLimitError) for outcome in outcomes)
    assert anyio.current_time() - started <= 66
    assert len(plane.refused) <= 100 + 20


async def test_a_create_that_was_never_sent_is_sent_when_its_time_is_over():
    plane = QuotaTransport(0, retry_after="25", refuse=lambda: 503)
    async with client_of(plane, RetryPolicy(jitter=0, attempts=100)) as client, anyio.create_task_group() as tasks:

        async def run() -> None:
            with pytest.raises(ServiceUnavailableError):
                await client.run("x")

        tasks.start_soon(run)
        await anyio.sleep(1)
        started = anyio.current_time()
        await run()
        assert anyio.current_time() - started <= 61


async def test_who_wants_no_retries_is_told_at_once():
    plane = QuotaTransport(0, retry_after="50")
    async with client_of(plane, None) as client:
        started = anyio.current_time()
        for _ in range(2):
            with pytest.raises(RateLimitError):
                await client.run("x")
    assert anyio.current_time() - started < 1


async def test_leaving_a_fan_out_ends_what_waits_for_its_turn_without_a_request():
    plane = QuotaTransport(3, seconds=1000)
    async with client_of(plane) as client:
        async with client.fan_out(["x"] * 50, max_concurrency=50):
            await anyio.sleep(5)
            asked = len(plane.asked)
            started = anyio.current_time()
        assert anyio.current_time() - started < 1
        assert len(plane.asked) == asked
        assert not plane.live
        plane.room = 10
        assert (await client.map(["x"]))[0].verdict is Verdict.SUCCEEDED


async def test_creates_keep_the_pace_that_the_caller_sets():
    plane = QuotaTransport(100)
    async with client_of(plane) as client:
        await client.map(["x"] * 20, max_concurrency=20, creates_per_second=4)
        await anyio.sleep(10)
        await client.map(["x"] * 20, max_concurrency=20, creates_per_second=2.5)
    first, second = plane.asked[:20], plane.asked[20:]
    assert waits(first) == pytest.approx([0.25] * 19)
    assert waits(second) == pytest.approx([0.4] * 19)


async def test_creates_that_are_tried_again_keep_the_pace():
    plane = QuotaTransport(10, seconds=0.2)
    async with client_of(plane) as client:
        await client.map(["x"] * 100, max_concurrency=50, creates_per_second=20)
    assert all(wait > 0.049 for wait in waits(plane.asked))


async def test_a_slow_fan_out_does_not_slow_another_one_of_the_same_client():
    plane = QuotaTransport(100)
    async with client_of(plane) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: client.map(["x"] * 100, max_concurrency=100, creates_per_second=0.5))
        started = anyio.current_time()
        await client.map(["x"] * 30, max_concurrency=30)
        assert anyio.current_time() - started < 1
        tasks.cancel_scope.cancel()


NO_RATES = [(0, ValueError), (-1, ValueError), (math.nan, ValueError), (math.inf, ValueError)]


@pytest.mark.parametrize(("rate", "error"), [*NO_RATES, ("4", TypeError), (True, TypeError)])
async def test_a_pace_that_is_none_is_refused_at_the_call(rate, error):
    async with client_of(QuotaTransport(1)) as client:
        with pytest.raises(error, match="creates_per_second"):
            client.fan_out(["x"], creates_per_second=rate)
        with pytest.raises(error, match="creates_per_second"):
            await client.map(["x"], creates_per_second=rate)


async def test_progress_is_counted():
    async with client_of(QuotaTransport(100)) as client:
        async with client.fan_out(["x"] * 10, max_concurrency=4) as outcomes:
            assert (outcomes.total, outcomes.done) == (10, 0)
            for number in range(1, 11):
                assert isinstance(await anext(outcomes), Completed)
                assert number <= outcomes.done <= outcomes.started <= min(10, number + 4)
            assert (outcomes.total, outcomes.started, outcomes.done) == (10, 10, 10)
        async with client.fan_out(iter(["x"] * 3), max_concurrency=1) as outcomes:
            assert outcomes.total is None
            assert len([outcome async for outcome in outcomes]) == 3
            assert outcomes.total == 3
