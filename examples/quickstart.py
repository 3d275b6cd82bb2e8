"""The main job, end to end: real code runs isolated, its frames arrive live, its result comes back typed.

Against the embedded simulator, or against the control plane that ENCLAVE_BASE_URL names:

    python examples/quickstart.py [--backend asyncio|trio]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import msgspec

from enclave import (
    AuditFrame,
    AuditType,
    EgressPolicy,
    EnclaveClient,
    PhaseFrame,
    SessionLimits,
    StderrFrame,
    StdoutFrame,
    StreamFrame,
    WorkloadKilled,
)

PRIMES = """
import time

primes = []
for n in range(2, 30):
    if all(n % p for p in primes):
        primes.append(n)
        print(f"prime: {n}")
        time.sleep(0.05)  # slow enough to watch it arrive
enclave.result({"primes": primes, "total": sum(primes)})
"""

NODE = """
console.log(`node ${process.versions.node.split(".")[0]} says hello`);
enclave.result({ primes: [2, 3, 5], total: 10 });
"""

NOSY = """
import urllib.request

try:
    urllib.request.urlopen("http://169.254.169.254/latest/meta-data/", timeout=2)
except OSError as error:
    print("no way out:", error)
"""

GREEDY = "while True: pass"

NEXT = """
Try next:
  python -m enclave.simulator      a simulator of its own, with a console to look at
  examples/                        a web service, agents, a grader
  docs/quickstart.md               the first program, step by step"""


class Primes(msgspec.Struct):
    """What the workloads return; the client decodes their JSON straight into it."""

    primes: list[int]
    total: int


BOLD, RED, GREEN, YELLOW, CYAN = 1, 31, 32, 33, 36
IN_COLOUR = sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def paint(text: str, colour: int) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if IN_COLOUR else text


def line(label: str, text: str, colour: int) -> None:
    print(f"{paint(f'{label:>9}', colour)} | {text}", flush=True)


def lines(label: str, text: str, colour: int) -> None:
    # A frame holds what the workload had written by then: several lines, or a part of one.
    for written in filter(None, text.splitlines()):
        line(label, written, colour)


def title(text: str) -> None:
    print(paint(f"\n== {text}", BOLD))


def show(frame: StreamFrame) -> None:
    match frame:
        case StdoutFrame(data=text):
            lines("stdout", text, GREEN)
        case StderrFrame(data=text):
            lines("stderr", text, RED)
        case PhaseFrame(phase=phase):
            line("phase", phase, CYAN)
        case AuditFrame(event=event):
            line("audit", event.type, YELLOW)


async def run_and_watch(enclave: EnclaveClient, code: str, language: str) -> None:
    title(f"{language}: frames live, then the typed result")
    async with enclave.session(code, language=language) as session:
        async with session.stream() as frames:
            async for frame in frames:
                show(frame)
        result = await session.result(Primes)
        line("result", repr(result.value), BOLD)


async def denied_egress(enclave: EnclaveClient) -> None:
    title("a workload that tries to leave: denied, and on record")
    async with enclave.session(NOSY, egress=EgressPolicy.deny_all()) as session:
        await session.result()
        for event in await session.audit():
            where = event.particulars.get("host", "") if event.type == AuditType.EGRESS_DENIED else ""
            line("audit", f"{event.type} {where}".rstrip(), RED if where else YELLOW)


async def over_budget(enclave: EnclaveClient) -> None:
    title("a workload that never stops: killed at its limit")
    async with enclave.session(GREEDY, limits=SessionLimits(wall_clock_ms=1000)) as session:
        result = await session.result()
        try:
            result.raise_for_exit()
        except WorkloadKilled as error:
            line("killed", str(error.kill_reason), RED)


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
        print("Using the embedded simulator: real processes on this machine, NOT a security boundary.")
        yield enclave


async def main() -> None:
    async with connect() as enclave:
        health = await enclave.health()
        print(f"{enclave.base_url}: backend {health.backend}, healthy: {health.backend_healthy}")
        await run_and_watch(enclave, PRIMES, "python")
        await run_and_watch(enclave, NODE, "node")
        await denied_egress(enclave)
        await over_budget(enclave)
        left = [session.id for session in await enclave.list() if session.phase != "torn_down"]
        print(f"\nSessions left running: {len(left)}")
        print(NEXT)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio", help="the event loop to run on")
    anyio.run(main, backend=parser.parse_args().backend)
