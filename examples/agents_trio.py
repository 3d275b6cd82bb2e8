"""A trio service with a nursery of agents: each writes code, runs it, reads what went wrong, and tries again.

All work on the same task; the first whose code passes wins, and cancelling the rest tears their sessions down. Against
the embedded simulator, or the control plane that ENCLAVE_BASE_URL names:

    python examples/agents_trio.py

The "model" behind an agent is a list of attempts here. Put a call of a real one in the place of `Agent.write`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from enclave import (
    EgressPolicy,
    EnclaveClient,
    EnclaveError,
    SessionLimits,
    SessionResult,
    WorkloadError,
)

DEADLINE_SECONDS = 60
LIMITS = SessionLimits(memory_mb=128, wall_clock_ms=5_000, pids=8)
TASK = "the 20 first Fibonacci numbers"
EXPECTED = [0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597, 2584, 4181]

MISSPELT = "enclave.result([fibonacci(n) for n in range(20)])"
ENDLESS = "a = [0, 1]\nwhile a:\n    pass"
NOSY = "import urllib.request\nurllib.request.urlopen('http://203.0.113.7/fibonacci')"
WRONG = "enclave.result(list(range(20)))"
SLOW = "import time\ntime.sleep(0.9)\n" + WRONG
RIGHT = "a, b, found = 0, 1, []\nfor _ in range(20):\n    found.append(a)\n    a, b = b, a + b\nenclave.result(found)"


class Rejected(Exception):
    """The code ran, and its answer is wrong."""


@dataclass
class Agent:
    name: str
    attempts: list[str]
    history: list[str] = field(default_factory=list)

    async def write(self, _task: str) -> str | None:
        """The next program for the task, with the history of failures in mind; None to give up."""
        await trio.lowlevel.checkpoint()
        return self.attempts[len(self.history)] if len(self.history) < len(self.attempts) else None


@dataclass(frozen=True)
class Report:
    agent: str
    text: str
    code: str | None = None
    """The program that passed."""


def check(result: SessionResult[list[int]]) -> None:
    """Outside the sandbox: what runs inside may have been written to pass its own tests.

    Raises:
        WorkloadError: the program failed or was killed. Rejected: it gave a wrong answer.
    """
    if result.raise_for_exit().value != EXPECTED:
        raise Rejected("exit code 0, and a wrong answer")


async def attempt(enclave: EnclaveClient, code: str, labels: dict[str, str]) -> str | None:
    """Run one program; gives what was wrong with it."""
    try:
        async with enclave.session(code, limits=LIMITS, egress=EgressPolicy.deny_all(), labels=labels) as session:
            check(await session.result(list[int]))
    except (WorkloadError, Rejected) as error:
        return str(error)
    return None


async def work(enclave: EnclaveClient, agent: Agent, reports: trio.MemorySendChannel[Report]) -> None:
    with reports:
        while (code := await agent.write(TASK)) is not None:
            try:
                failure = await attempt(enclave, code, {"agent": agent.name})
            except EnclaveError as error:  # of the platform's and not the code's: this agent stops, the others go on
                await reports.send(Report(agent.name, f"stopped: {error}"))
                return
            if failure is None:
                await reports.send(Report(agent.name, f"passed at attempt {len(agent.history) + 1}", code))
                return
            agent.history.append(failure)
            await reports.send(Report(agent.name, failure))
        await reports.send(Report(agent.name, "gave up"))


async def first_to_pass(enclave: EnclaveClient, agents: list[Agent]) -> Report | None:
    """The report of the agent that passed first; None where all gave up or the deadline passed."""
    winner = None
    sending, receiving = trio.open_memory_channel[Report](0)
    with trio.move_on_after(DEADLINE_SECONDS):
        async with trio.open_nursery() as nursery:
            with receiving:
                with sending:
                    for agent in agents:
                        nursery.start_soon(work, enclave, agent, sending.clone())
                async for report in receiving:  # ends when every agent has closed its end
                    print(f"{report.agent:>6} | {report.text}", flush=True)
                    if report.code is not None:
                        winner = report
                        nursery.cancel_scope.cancel()
                        break
    return winner


@asynccontextmanager
async def connect() -> AsyncGenerator[EnclaveClient]:
    if os.environ.get("ENCLAVE_BASE_URL"):
        async with EnclaveClient() as enclave:
            yield enclave
        return
    from enclave.simulator import Simulator  # noqa: PLC0415 - an extra, needed only here

    async with (
        Simulator().serve() as simulator,
        EnclaveClient(simulator.base_url, api_key=simulator.api_key) as enclave,
    ):
        yield enclave


async def main() -> None:
    agents = [
        Agent("ada", [MISSPELT, WRONG, RIGHT]),
        Agent("blaise", [ENDLESS, SLOW, SLOW, SLOW]),
        Agent("carl", [NOSY]),
    ]
    async with connect() as enclave:
        print(f"{len(agents)} agents work on: {TASK}")
        winner = await first_to_pass(enclave, agents)
        print("nobody passed" if winner is None else f"\n{winner.agent}'s program:\n{winner.code}")
        left = [session.id for session in await enclave.list() if session.phase != "torn_down"]
        print(f"\nSessions left running: {len(left)}")


if __name__ == "__main__":
    trio.run(main)
