"""The code tools of the pages in the hands of their frameworks: real code, an outage, cancellations.

Each framework's own stand-in for a model asks for the programs, turn by turn, also for several in one turn. All run on
asyncio, as these frameworks do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest

from enclave import EnclaveClient, EnclaveError, RetryPolicy, SessionLimits, SessionTornDown
from enclave.simulator import Simulator
from tests.support.programs import is_installed

FRAMEWORKS = ("pydantic-ai", "openai-agents", "langchain")
LIMIT_SECONDS = 60
QUESTION = "anything"

if not all(is_installed(f"docs/recipes/{name}.md") for name in FRAMEWORKS):
    pytest.skip("the group recipes is not installed", allow_module_level=True)


def model_of_pydantic_ai(turns: Sequence[Sequence[str]]) -> Any:
    from pydantic_ai import ModelResponse, TextPart, ToolCallPart
    from pydantic_ai.models.function import FunctionModel

    def next_turn(messages: list[Any], info: Any) -> ModelResponse:
        asked_before = sum(isinstance(message, ModelResponse) for message in messages)
        if asked_before < len(turns):
            return ModelResponse(parts=[ToolCallPart("run_python", {"code": code}) for code in turns[asked_before]])
        return ModelResponse(parts=[TextPart("done")])

    return FunctionModel(next_turn)


def told_by_pydantic_ai(run: Any) -> list[str]:
    from pydantic_ai import ToolReturnPart

    return [
        part.content for message in run.all_messages() for part in message.parts if isinstance(part, ToolReturnPart)
    ]


def model_of_openai(turns: Sequence[Sequence[str]]) -> Any:
    from agents.testing import ScriptedModel, assistant_message, function_call

    calls = [
        [function_call("run_python", {"code": code}, call_id=f"{turn}-{number}") for number, code in enumerate(codes)]
        for turn, codes in enumerate(turns)
    ]
    return ScriptedModel([*calls, [assistant_message("done")]])


def told_by_openai(run: Any) -> list[str]:
    from agents import ToolCallOutputItem

    return [item.output for item in run.new_items if isinstance(item, ToolCallOutputItem)]


def told_by_langchain(messages: Any) -> list[str]:
    from langchain_core.messages import ToolMessage

    return [message.text for message in messages if isinstance(message, ToolMessage)]


class Recipe:
    """A page's module, its framework's model, and a simulator."""

    def __init__(self, framework: str, module: ModuleType, sim: Simulator) -> None:
        self.module = module
        self.sim = sim
        self._framework = framework

    def model(self, turns: Sequence[Sequence[str]]) -> Any:
        if self._framework == "pydantic-ai":
            return model_of_pydantic_ai(turns)
        if self._framework == "openai-agents":
            return model_of_openai(turns)
        from langchain_core.messages import AIMessage, ToolCall

        messages = [
            AIMessage(
                "",
                tool_calls=[
                    ToolCall(name="run_python", args={"code": code}, id=f"{turn}-{number}")
                    for number, code in enumerate(codes)
                ],
            )
            for turn, codes in enumerate(turns)
        ]
        return self.module.StandIn(messages=iter([*messages, AIMessage("done")]))

    async def ask(self, *turns: Sequence[str], **options: Any) -> list[str]:
        """What the tool told the model, program by program."""
        async with asyncio.timeout(LIMIT_SECONDS), self.client(**options) as enclave:
            run = await self.module.ask(enclave, QUESTION, self.model(turns))
        told = {
            "pydantic-ai": told_by_pydantic_ai,
            "openai-agents": told_by_openai,
            "langchain": told_by_langchain,
        }
        return told[self._framework](run)

    def client(self, **options: Any) -> EnclaveClient:
        return EnclaveClient(self.sim.base_url, api_key=self.sim.api_key, **options)

    @property
    def left(self) -> list[str]:
        return [phase for phase in self.sim.phases.values() if phase != "torn_down"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=FRAMEWORKS)
async def recipe(request, module_of):
    module = module_of(f"docs/recipes/{request.param}.md")
    async with Simulator().serve() as sim:
        yield Recipe(request.param, module, sim)


async def test_the_model_reads_what_its_program_printed(recipe):
    assert await recipe.ask(["print(6 * 7)"]) == ["exit code 0\n42\n"]
    assert recipe.left == []


async def test_a_program_that_fails_is_told_to_the_model_which_may_mend_it(recipe):
    wrong, right = await recipe.ask(["import sys; print('half'); sys.exit('no input')"], ["print('whole')"])
    assert wrong.startswith("exit code 1\n")
    assert {*wrong.splitlines()[1:]} == {"half", "no input"}  # of two streams, which have no order between them
    assert right == "exit code 0\nwhole\n"


async def test_a_program_that_takes_too_long_is_told_to_the_model(recipe, monkeypatch):
    monkeypatch.setattr(recipe.module, "PROGRAM_LIMITS", SessionLimits(wall_clock_ms=500))
    assert await recipe.ask(["print('begun', flush=True)\nwhile True: pass"]) == [
        "killed: wall_clock_exceeded\nbegun\n"
    ]


async def test_of_a_flood_the_model_reads_the_end_alone(recipe):
    (told,) = await recipe.ask(["print('x' * 100_000)\nprint('the end')"])
    assert told.endswith("x\nthe end\n")
    assert len(told) == len("exit code 0\n") + recipe.module.MAX_OUTPUT_CHARS


async def test_a_dropped_connection_is_not_noticed(recipe):
    recipe.sim.faults.drop_stream(after_frames=5)
    assert await recipe.ask(["print('a')\nprint('b')"]) == ["exit code 0\na\nb\n"]


@pytest.mark.parametrize("outage", ["the create", "the stream", "the credential"])
async def test_an_outage_is_raised_and_is_no_result_of_a_program(recipe, outage):
    if outage == "the create":
        recipe.sim.faults.respond(503, method="POST", times=None)
    elif outage == "the stream":
        recipe.sim.faults.respond(500, path=r"/sessions/[^/]+/stream", times=None)
    else:
        recipe.sim.faults.respond(401, method="POST")
    with pytest.raises(EnclaveError):
        await recipe.ask(["print(1)"], retry=RetryPolicy(attempts=2, wait_seconds=0))
    assert recipe.left == []


async def test_an_outage_of_one_of_two_programs_leaves_no_session_of_the_other(recipe):
    recipe.sim.script(hold=True)
    recipe.sim.script(hold=True)
    async with asyncio.timeout(LIMIT_SECONDS), recipe.client() as enclave:
        run = asyncio.create_task(recipe.module.ask(enclave, QUESTION, recipe.model([["held", "held too"]])))
        await recipe.sim.until(lambda sim: sim.open_streams == 2)
        await enclave.teardown(next(iter(recipe.sim.phases)))  # somebody else ends one of them
        with pytest.raises(SessionTornDown):
            await run
        assert recipe.left == []


async def test_a_run_that_takes_too_long_leaves_no_session(recipe, monkeypatch):
    recipe.sim.script(hold=True)
    monkeypatch.setattr(recipe.module, "RUN_SECONDS", 1)
    async with asyncio.timeout(LIMIT_SECONDS), recipe.client() as enclave:
        with pytest.raises(TimeoutError):
            await recipe.module.ask(enclave, QUESTION, recipe.model([["held"]]))
        assert recipe.left == []


async def test_a_cancelled_run_leaves_no_session(recipe):
    recipe.sim.script(hold=True)
    async with asyncio.timeout(LIMIT_SECONDS), recipe.client() as enclave:
        run = asyncio.create_task(recipe.module.ask(enclave, QUESTION, recipe.model([["held"]])))
        await recipe.sim.until(lambda sim: sim.open_streams == 1)
        run.cancel()
        await asyncio.wait([run])
        assert run.cancelled()
        assert recipe.left == []
        assert (await enclave.health()).ok  # the client serves on
