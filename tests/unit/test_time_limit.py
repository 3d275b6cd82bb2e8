"""The block that limits a request and its steps, on a clock that does not wait, and on each loop."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from trio.testing import MockClock

from enclave.errors import APITimeoutError, ConnectTimeoutError, EnclaveError
from enclave.transport import TimeLimit

ON_A_VIRTUAL_CLOCK = pytest.mark.parametrize(
    "anyio_backend", [pytest.param(("trio", {"clock": MockClock(autojump_threshold=0)}), id="virtual")]
)


def silent(seconds: float) -> EnclaveError:
    return APITimeoutError(f"silent for {seconds:g} s")


def unconnected(seconds: float) -> EnclaveError:
    return ConnectTimeoutError(f"unconnected after {seconds:g} s")


@ON_A_VIRTUAL_CLOCK
async def test_each_step_has_its_own_time_and_its_own_error(anyio_backend: Any) -> None:
    began = anyio.current_time()
    with pytest.raises(APITimeoutError, match=r"^silent for 5 s$"):
        with TimeLimit(100, "nothing came") as limit:
            limit.step(3, unconnected)
            await anyio.sleep(2)
            limit.step(5, silent)
            await anyio.sleep(4)
            limit.step(5, silent)
            await anyio.sleep(50)
    assert anyio.current_time() - began == pytest.approx(2 + 4 + 5)


@ON_A_VIRTUAL_CLOCK
@pytest.mark.parametrize("step_seconds", [8, 100, None])
async def test_no_step_stretches_the_time_for_the_whole(anyio_backend: Any, step_seconds: float | None) -> None:
    began = anyio.current_time()
    with pytest.raises(APITimeoutError, match=r"^nothing came within 10 s$"):
        with TimeLimit(10, "nothing came") as limit:
            for _ in range(10):
                limit.step(step_seconds, silent)
                await anyio.sleep(4)
    assert anyio.current_time() - began == pytest.approx(10)


@ON_A_VIRTUAL_CLOCK
async def test_what_is_left_of_the_time_goes_on_in_another_block(anyio_backend: Any) -> None:
    began = anyio.current_time()
    with TimeLimit(10, "nothing came") as limit:
        limit.step(1, silent)
        await anyio.sleep(0.5)
    await anyio.sleep(6)
    with limit.rest() as rest:
        rest.step(3, silent)
        await anyio.sleep(2)
    with pytest.raises(APITimeoutError, match=r"^nothing came within 10 s$"), limit.rest():
        await anyio.sleep(50)
    assert anyio.current_time() - began == pytest.approx(10)


@ON_A_VIRTUAL_CLOCK
async def test_a_step_loses_no_more_than_a_hundredth_of_its_time_to_the_one_before(anyio_backend: Any) -> None:
    for pause, lost in ((0.99, 0.99), (1.01, 0)):
        with pytest.raises(APITimeoutError, match=r"^silent for 100 s$"):
            with TimeLimit(None, "nothing came") as limit:
                limit.step(100, unconnected)
                await anyio.sleep(pause)
                limit.step(100, silent)
                began = anyio.current_time()
                await anyio.sleep(500)
        assert anyio.current_time() - began == pytest.approx(100 - lost)


@ON_A_VIRTUAL_CLOCK
async def test_a_shorter_step_after_a_longer_one_is_kept(anyio_backend: Any) -> None:
    began = anyio.current_time()
    with pytest.raises(ConnectTimeoutError, match=r"^unconnected after 99\.5 s$"):
        with TimeLimit(None, "nothing came") as limit:
            limit.step(100, silent)
            limit.step(99.5, unconnected)
            await anyio.sleep(500)
    assert anyio.current_time() - began == pytest.approx(99.5)


async def test_a_step_that_was_too_long_is_not_saved_by_the_next_one() -> None:
    with anyio.fail_after(10), pytest.raises(ConnectTimeoutError, match="unconnected"):
        with TimeLimit(None, "nothing came") as limit:
            limit.step(0.0, unconnected)
            limit.step(1_000, silent)
            await anyio.sleep_forever()


async def test_what_ends_in_time_ends_as_it_would_without_a_limit() -> None:
    with TimeLimit(1_000, "nothing came") as limit:
        limit.step(1_000, silent)
        await checkpoint()
    with pytest.raises(ValueError, match="of the block"), TimeLimit(1_000, "nothing came"):
        raise ValueError("of the block")
    with anyio.move_on_after(0) as scope, TimeLimit(1_000, "nothing came"):
        await anyio.sleep_forever()
    assert scope.cancelled_caught


async def test_the_error_keeps_no_frames_of_what_was_cancelled() -> None:
    with anyio.fail_after(10), pytest.raises(APITimeoutError) as caught, TimeLimit(0.0, "nothing came"):
        await anyio.sleep_forever()
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
