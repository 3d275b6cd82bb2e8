"""An agent loop over MCP: a model is given the tools of `enclave-mcp`, and uses them until it has an answer.

The model is a script here: `Model.next` decides from what the tools answered, as a call of a real one would. The
server is the real one, a process spoken to over standard input and output. Needs
`pip install 'enclave-sdk[simulator,mcp]'`.
Against the embedded simulator, or the control plane that ENCLAVE_BASE_URL names:

    python examples/agent_loop_mcp.py [--backend asyncio|trio]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import mcp_types as types
from anyio.lowlevel import checkpoint
from mcp import Client, StdioServerParameters

MAX_STEPS = 8
DEADLINE_SECONDS = 60
QUESTION = "What is the sum of the first 100 primes?"
LIMITS = {"wallClockMs": 10_000, "memoryMb": 128}

DOWNLOAD = """
import urllib.request
print(urllib.request.urlopen("http://203.0.113.7/primes.txt", timeout=2).read())
"""
BUGGY = """
primes = [n for n in range(2, 600) if all(n % p for p in primes)]
enclave.result(sum(primes[:100]))
"""
FIXED = """
primes = []
n = 2
while len(primes) < 100:
    if all(n % p for p in primes):
        primes.append(n)
    n += 1
print("largest:", primes[-1])
enclave.result(sum(primes))
"""


@dataclass(frozen=True)
class ToolCall:
    """What a model asks for."""

    thought: str
    tool: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What a model ends with."""

    text: str


@dataclass
class Model:
    """Stands in for a language model. It sees the tools and their answers, and nothing else."""

    tools: list[types.Tool]
    seen: list[types.CallToolResult] = field(default_factory=list)

    async def next(self) -> ToolCall | Answer:
        await checkpoint()  # a real model answers over the network
        if not self.seen:
            return self.run("Somebody must have published them.", DOWNLOAD)
        outcome = self.seen[-1].structured_content or {}
        if outcome.get("deniedEgress"):
            hosts = ", ".join(denied["host"] for denied in outcome["deniedEgress"])
            return self.run(f"No network: {hosts} is denied. I compute them.", BUGGY)
        if outcome.get("exitCode") != 0:
            last_line = outcome["stderr"]["tail"].rstrip().rpartition("\n")[2]
            return self.run(f"My code failed: {last_line}", FIXED)
        return Answer(f"The sum is {outcome['json']}.")

    def run(self, thought: str, code: str) -> ToolCall:
        return ToolCall(thought, "run_code", {"code": code, "limits": LIMITS, "labels": {"by": "agent"}})


async def show_progress(progress: float, total: float | None, message: str | None) -> None:  # noqa: ARG001 - of MCP
    if message and message.startswith(("stdout", "connection denied")):
        print(f"   live | {message}", flush=True)


async def answer(host: Client) -> str:
    """The loop: ask the model, do what it asks for, show it what came of it."""
    model = Model((await host.list_tools()).tools)
    print("  tools |", ", ".join(tool.name for tool in model.tools))
    for _ in range(MAX_STEPS):
        step = await model.next()
        if isinstance(step, Answer):
            return step.text
        print(f"  model | {step.thought}")
        result = await host.call_tool(step.tool, step.arguments, progress_callback=show_progress)
        print(f"   tool | {summary(result)}")
        model.seen.append(result)
    return f"no answer after {MAX_STEPS} steps"


def summary(result: types.CallToolResult) -> str:
    if result.is_error:  # the tool could not be used: the model gets to read why, and may call it differently
        return " ".join(getattr(content, "text", "") for content in result.content)
    outcome = result.structured_content or {}
    return f"{outcome['phase']}, exit code {outcome['exitCode']}, value {outcome['json']}"


@asynccontextmanager
async def control_plane() -> AsyncGenerator[dict[str, str]]:
    """The environment that `enclave-mcp` is configured by."""
    if os.environ.get("ENCLAVE_BASE_URL"):
        yield {name: os.environ[name] for name in os.environ if name.startswith("ENCLAVE_")}
        return
    from enclave.simulator import Simulator  # noqa: PLC0415 - an extra, needed only here

    async with Simulator().serve() as simulator:
        yield {"ENCLAVE_BASE_URL": simulator.base_url, "ENCLAVE_API_KEY": simulator.api_key}
        print("Sessions left running:", sum(phase != "torn_down" for phase in simulator.phases.values()))


async def main() -> None:
    async with control_plane() as environment:
        # `-m enclave.mcp` is the command `enclave-mcp`, found wherever this interpreter finds the SDK.
        server = StdioServerParameters(command=sys.executable, args=["-m", "enclave.mcp"], env=environment)
        print("   user |", QUESTION)
        with anyio.fail_after(DEADLINE_SECONDS):
            async with Client(server) as host:
                print("  model |", await answer(host))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio", help="the event loop to run on")
    anyio.run(main, backend=parser.parse_args().backend)
