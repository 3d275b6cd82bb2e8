"""A blocking fan-out: outcomes, and the thread in which its requests are taken."""

from __future__ import annotations

import gc
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import pytest

from enclave import (
    Completed,
    Errored,
    ResultTypeError,
    SyncEnclaveClient,
    Verdict,
)
from enclave.simulator import SyncSimulator
from tests.support import PATIENCE_SECONDS


def test_a_fan_out_gives_outcomes_with_their_verdicts(simulator: SyncSimulator, client: SyncEnclaveClient) -> None:
    for code in range(3):
        simulator.script(result=code, exit_code=code)
    outcomes = list(client.fan_out(["a", "b", "c"], max_concurrency=1, type=int))
    assert [outcome.verdict for outcome in outcomes] == [Verdict.SUCCEEDED, Verdict.FAILED, Verdict.FAILED]
    assert set(simulator.phases.values()) == {"torn_down"}
    simulator.script(result="text")
    (outcome,) = client.map(["a"], type=int)
    assert isinstance(outcome, Errored)
    assert isinstance(outcome.error, ResultTypeError)


def test_a_map_gives_outcomes_in_the_order_of_the_input(simulator: SyncSimulator, client: SyncEnclaveClient) -> None:
    held = simulator.script(result=0, hold=True)
    simulator.script(result=1)
    outcomes: list[Any] = []
    mapping = threading.Thread(target=lambda: outcomes.extend(client.map(["a", "b"], type=int)))
    mapping.start()
    simulator.wait_until(lambda simulator: "torn_down" in simulator.phases.values())
    held.release()
    mapping.join(PATIENCE_SECONDS)
    assert [outcome.index for outcome in outcomes] == [0, 1]


def test_a_fan_out_that_was_left_early_tears_its_sessions_down(
    simulator: SyncSimulator, client: SyncEnclaveClient
) -> None:
    simulator.script(result=1)
    for _ in range(3):
        simulator.script(hold=True)
    for outcome in client.fan_out(["x"] * 4, max_concurrency=4):
        assert isinstance(outcome, Completed)
        break
    simulator.wait_until(lambda simulator: set(simulator.phases.values()) == {"torn_down"})


def test_requests_are_taken_in_the_thread_that_waits_and_no_earlier_than_needed(
    simulator: SyncSimulator, client: SyncEnclaveClient
) -> None:
    database = sqlite3.connect(":memory:")  # which refuses any other thread
    database.execute("create table programs (code text)")
    database.executemany("insert into programs values (?)", [(f"{number}",) for number in range(6)])
    taken: list[int] = []

    def programs() -> Iterator[str]:
        for number, (code,) in enumerate(database.execute("select code from programs order by rowid")):
            client.health()  # the client itself may be used in between
            taken.append(number)
            yield code

    seen = 0
    for _ in range(6):
        simulator.script(result=1)
    with client.fan_out(programs(), max_concurrency=2) as outcomes:
        for _ in outcomes:
            seen += 1
            assert len(taken) <= seen + 2
    assert seen == 6
    database.close()


def test_the_next_session_runs_while_the_body_is_at_work(simulator: SyncSimulator, client: SyncEnclaveClient) -> None:
    for _ in range(3):
        simulator.script(result=1)
    outcomes = iter(client.fan_out(iter(["a", "b", "c"]), max_concurrency=1))
    next(outcomes)
    simulator.wait_until(lambda simulator: len(simulator.phases) == 2)
    assert len(list(outcomes)) == 2


def test_an_input_that_fails_is_raised_after_the_last_outcome(
    simulator: SyncSimulator, client: SyncEnclaveClient
) -> None:
    def programs() -> Iterator[str]:
        yield "a"
        raise KeyError("no more")

    simulator.script(result=1)
    seen = []
    with pytest.raises(KeyError, match="no more"):
        for outcome in client.fan_out(programs()):
            seen.append(outcome)  # noqa: PERF402 - `extend` may take what came before an error, or not
    assert len(seen) == 1


@pytest.mark.parametrize("in_block", [True, False])
def test_an_input_is_closed_with_its_fan_out(
    simulator: SyncSimulator, client: SyncEnclaveClient, in_block: bool
) -> None:
    closed = threading.Event()

    def programs() -> Iterator[str]:
        try:
            while True:
                yield "a"
        finally:
            closed.set()

    source = programs()
    for _ in range(2):
        simulator.script(result=1)
    if in_block:
        with client.fan_out(source, max_concurrency=1) as outcomes:
            next(outcomes)
        assert closed.is_set()
    with pytest.raises(TypeError, match="requests"):
        client.fan_out("source text")
    source.close()


class Unclosable:
    """Requests without end that cannot be closed."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        return "a"

    def close(self) -> None:
        raise ValueError("stuck")


def test_an_input_that_cannot_be_closed_is_raised_or_noted_on_the_error_of_the_block(
    simulator: SyncSimulator, client: SyncEnclaveClient
) -> None:
    for _ in range(4):
        simulator.script(result=1)
    with pytest.raises(ValueError, match="stuck"), client.fan_out(Unclosable(), max_concurrency=1) as outcomes:
        next(outcomes)
    with pytest.raises(KeyError) as caught, client.fan_out(Unclosable(), max_concurrency=1) as outcomes:
        raise KeyError(next(outcomes).verdict)
    assert caught.value.__notes__ == ["closing the fan-out's requests failed as well: ValueError('stuck')"]


def test_a_fan_out_tells_how_far_it_has_come(simulator: SyncSimulator, client: SyncEnclaveClient) -> None:
    for _ in range(2):
        simulator.script(result=1)
    assert client.fan_out(iter(["a"])).total is None
    outcomes = client.fan_out(["a", "b"], max_concurrency=1)
    assert (outcomes.total, outcomes.started, outcomes.done) == (2, 0, 0)
    assert len(list(outcomes)) == 2
    assert (outcomes.total, outcomes.started, outcomes.done) == (2, 2, 2)
    assert list(outcomes) == []


@dataclass
class Answer:
    number: int


def test_what_was_taken_from_a_fan_out_is_not_kept_by_it(simulator: SyncSimulator, client: SyncEnclaveClient) -> None:
    for number in range(3):
        simulator.script(result={"number": number})
    with client.fan_out(["x"] * 3, type=Answer, max_concurrency=1) as outcomes:
        taken = next(outcomes)
        assert isinstance(taken, Completed)
        value = weakref.ref(taken.result.value)
        del taken
        next(outcomes)
        gc.collect()
        assert value() is None


def test_two_threads_may_share_a_fan_out(simulator: SyncSimulator, client: SyncEnclaveClient) -> None:
    for _ in range(10):
        simulator.script(result=1)
    with client.fan_out((f"{n}" for n in range(10)), max_concurrency=3) as outcomes, ThreadPoolExecutor() as pool:
        halves = [pool.submit(lambda: [outcome.index for outcome in outcomes]) for _ in range(2)]
        assert sorted(index for half in halves for index in half.result(PATIENCE_SECONDS)) == list(range(10))
