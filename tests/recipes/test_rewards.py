"""The reward functions of recipes/rewards.md, called as TRL calls them, and the grader of recipes/grading.md, cut."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterator

import anyio
import pytest

from enclave import EnclaveClient, SyncEnclaveClient
from enclave.simulator import SyncSimulator

CASES = [([1, 2], 3), ([2, 2], 4)]
RIGHT = "def solve(a, b): return a + b"
PARTLY = "def solve(a, b): return a * b"
LIMIT_SECONDS = 60


@pytest.fixture
def rewards(module_of):
    return module_of("docs/recipes/rewards.md")


@pytest.fixture
def sim() -> Iterator[SyncSimulator]:
    with SyncSimulator() as sim:
        yield sim
        assert sim.running_sessions == []


@pytest.fixture
def loop_of_a_trainer() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a daemon thread, where TRL runs async rewards for as long as it trains."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def batch(*completions: object) -> dict[str, object]:
    """The keywords with which TRL calls a reward function, `trainer_state` and the like among them."""
    count = len(completions)
    return {
        "prompts": ["add"] * count,
        "completions": list(completions),
        "completion_ids": [[1, 2, 3]] * count,
        "cases": [CASES] * count,
        "trainer_state": None,
        "log_extra": print,
    }


def test_real_programs_get_what_they_deserve_in_order(rewards, sim):
    messages = [{"role": "assistant", "content": f"Here it is.\n```python\n{RIGHT}\n```\nIt adds."}]
    completions = [PARTLY, messages, "no program at all", "import sys\nsys.exit(0)", RIGHT]
    with SyncEnclaveClient(sim.base_url, api_key=sim.api_key) as enclave:
        reward = rewards.blocking_reward(enclave)
        assert not inspect.iscoroutinefunction(reward)
        assert reward(**batch(*completions)) == pytest.approx([0.5, 1.0, 0.0, 0.0, 1.0])


def test_an_async_reward_runs_on_the_loop_of_a_trainer_batch_after_batch(rewards, sim, loop_of_a_trainer):
    enclave = EnclaveClient(sim.base_url, api_key=sim.api_key)  # made in another thread
    reward = rewards.async_reward(enclave)
    assert inspect.iscoroutinefunction(reward)  # by which TRL knows it
    for completions, expected in (((RIGHT, PARTLY), [1.0, 0.5]), ((PARTLY,), [0.5])):
        running = asyncio.run_coroutine_threadsafe(reward(**batch(*completions)), loop_of_a_trainer)
        assert running.result(LIMIT_SECONDS) == pytest.approx(expected)
    asyncio.run_coroutine_threadsafe(enclave.aclose(), loop_of_a_trainer).result(LIMIT_SECONDS)


def test_a_cancelled_async_reward_leaves_no_session(rewards, sim, loop_of_a_trainer):
    sim.script(hold=True)
    enclave = EnclaveClient(sim.base_url, api_key=sim.api_key)
    running = asyncio.run_coroutine_threadsafe(rewards.async_reward(enclave)(**batch("held")), loop_of_a_trainer)
    sim.wait_until(lambda sim: sim.open_streams == 1)
    running.cancel()
    sim.wait_until(lambda sim: sim.unreclaimed_sessions == 0)
    asyncio.run_coroutine_threadsafe(enclave.aclose(), loop_of_a_trainer).result(LIMIT_SECONDS)


@pytest.mark.parametrize("outages", [1, 2, 3])
def test_an_outage_of_some_rounds_costs_nothing_and_one_of_all_is_none(rewards, sim, outages):
    for _ in range(3 - outages):
        sim.script(result=[3, 4])
    sim.faults.respond(503, method="POST", times=outages)
    with SyncEnclaveClient(sim.base_url, api_key=sim.api_key, retry=None) as enclave:
        (reward,) = rewards.blocking_reward(enclave)(**batch(RIGHT))
    assert reward is None if outages == rewards.ROUNDS else reward == pytest.approx(1.0)


def test_only_those_without_a_reward_are_tried_again(rewards, sim):
    sim.faults.respond(503, method="POST")
    for _ in range(3):
        sim.script(result=[3, 4])
    with SyncEnclaveClient(sim.base_url, api_key=sim.api_key, retry=None) as enclave:
        assert rewards.blocking_reward(enclave)(**batch("a", "b", "c")) == pytest.approx([1.0] * 3)
    assert sum(request.method == "POST" for request in sim.requests) == 4


@pytest.mark.anyio
async def test_no_answer_stops_the_grader(module_of, enclave_client, tmp_path, monkeypatch):
    grader = module_of("docs/recipes/grading.md")
    monkeypatch.setattr(grader, "CASES", [grader.Case([1, 2], 1.5)])
    values = ("1.5", "'1.5'", "True", "None", "[1.5]", "10 ** 400", "{1.5}", "float('nan')")
    answers = {value: f"def median(numbers): return {value}" for value in values}
    answers["leaves"] = "raise SystemExit(0)"
    path = tmp_path / "grades.jsonl"
    with anyio.fail_after(LIMIT_SECONDS):
        assert await grader.grade_all(enclave_client, answers, path) == 0
    assert {grade.answer for grade in grader.kept_in(path)} == answers.keys()
    assert {grade.answer for grade in grader.kept_in(path) if grade.passed} == {"1.5"}


@pytest.mark.anyio
async def test_a_grader_that_was_cut_goes_on_where_it_was(module_of, enclave_simulator, enclave_client, tmp_path):
    grader = module_of("docs/recipes/grading.md")
    answers = {"ada": "any", "ben": "any"}
    path = tmp_path / "grades.jsonl"
    for value in (5, 2):
        enclave_simulator.script(result=value)
    for _ in range(4):
        enclave_simulator.script(hold=True)
    with anyio.fail_after(LIMIT_SECONDS):
        async with anyio.create_task_group() as group:
            group.start_soon(grader.grade_all, enclave_client, answers, path)
            await enclave_simulator.until(lambda sim: sim.open_streams == 4 and len(sim.phases) == 6)
            while path.read_bytes().count(b"\n") < 2:
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        assert enclave_simulator.running_sessions == []
        kept = {(grade.answer, grade.case) for grade in grader.kept_in(path)}
        assert len(kept) == 2
        with path.open("ab") as file:
            file.write(b'{"answer":"ada","ca')  # a line that a crash of the machine has cut

        for _ in range(4):
            enclave_simulator.script(result=0)
        assert await grader.grade_all(enclave_client, answers, path) == 0
    assert len(enclave_simulator.phases) == 6 + 4
    assert len(list(grader.kept_in(path))) == 6
