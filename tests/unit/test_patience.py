"""That a busy machine fails no test: the clock of the tests' event loops, and the limits that tests set."""

from __future__ import annotations

import ast
import time
from pathlib import Path

import anyio
import pytest

from tests.support import PATIENCE_SECONDS
from tests.support.loops import GRACE_SECONDS, PatientClock
from tests.support.messages import OK
from tests.support.origin import client_of
from tests.support.wire import Peer, Server, serve

TESTS = Path(__file__).parent.parent
ON_A_VIRTUAL_CLOCK = {"unit/test_time_limit.py"}


def hold_up(seconds: float) -> None:
    """Keep this thread from running, as a busy machine does."""
    time.sleep(seconds)


async def test_a_limit_stands_still_while_the_machine_runs_something_else():
    with anyio.fail_after(0.1):
        hold_up(0.3)
        await anyio.lowlevel.checkpoint()
        await anyio.sleep(0.01)


async def test_what_a_server_in_the_same_loop_answers_at_once_is_in_time_on_a_machine_that_is_not():
    async def script(peer: Peer, server: Server) -> None:
        while await peer.request() is not None:
            hold_up(0.3)
            await peer.send(OK)
            hold_up(0.3)

    async with serve(script) as server, client_of(server) as client:
        for _ in range(3):
            assert (await client.get(connect=0.1, read=0.1)).content == b"hello"


async def test_a_limit_passes_while_nothing_comes():
    with anyio.fail_after(PATIENCE_SECONDS):
        for seconds in (0, 0.0001, 0.05):
            started = anyio.current_time()
            with anyio.move_on_after(seconds) as scope:
                await anyio.sleep_forever()
            assert scope.cancelled_caught
            assert anyio.current_time() - started >= seconds


async def test_a_limit_passes_while_a_program_computes():
    started = anyio.current_time()
    with anyio.move_on_after(0.05) as scope:
        while True:
            await anyio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert anyio.current_time() - started >= 0.05


@pytest.mark.parametrize(("asked", "late"), [(0.5, 2.0), (0.5, 0.0), (GRACE_SECONDS, 1.0), (0.0, 1.0), (-1.0, 1.0)])
def test_a_sleep_that_ends_late_counts_for_what_was_asked_and_bytes_within_it_were_first(monkeypatch, asked, late):
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr("time.thread_time", lambda: 0.0)
    clock = PatientClock()
    deadline = asked
    clock.falls_asleep()
    now += max(asked, 0.0) + late
    clock.wakes_up(asked)
    left = deadline - clock.current_time()
    assert left == pytest.approx(GRACE_SECONDS if asked > GRACE_SECONDS else min(asked, 0.0))
    clock.falls_asleep()
    now += GRACE_SECONDS
    clock.wakes_up(left)
    assert clock.current_time() == pytest.approx(max(deadline, 0.0))


@pytest.mark.parametrize("asked", [None, 60.0])
def test_a_sleep_that_bytes_end_counts_for_what_it_took(monkeypatch, asked):
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr("time.thread_time", lambda: 0.0)
    clock = PatientClock()
    clock.falls_asleep()
    now += 7.0
    clock.wakes_up(asked)
    assert clock.current_time() == pytest.approx(7.0)


def test_no_test_waits_with_less_patience_than_all_have():
    """A limit for what must come is no measure of how fast it comes. `fail_after` sets such limits alone."""
    short = []
    for path in sorted(TESTS.rglob("*.py")):
        name = path.relative_to(TESTS).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("fail_after"):
                limit = node.args[0]
                if isinstance(limit, ast.Constant) and limit.value < PATIENCE_SECONDS:
                    short.append(f"{name}:{node.lineno}")
    allowed = {Path(__file__).relative_to(TESTS).as_posix(), *ON_A_VIRTUAL_CLOCK}
    assert [place for place in short if place.partition(":")[0] not in allowed] == []
