"""The main job, end to end: real code runs isolated, its frames arrive live, its result comes back typed.

Against the embedded simulator, or against the control plane that ENCLAVE_BASE_URL names:

    python examples/quickstart.py [--backend asyncio|trio]
"""

from __future__ import annotations

import argparse
import os
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
        print("prime:", n)
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


class Primes(msgspec.Struct):
    """What the workloads return; the client decodes their JSON straight into it."""

    primes: list[int]
    total: int


def show(frame: StreamFrame) -> None:
    match frame:
        case StdoutFrame(data=text):
            print(f"   stdout | {text}", end="", flush=True)
        case StderrFrame(data=text):
            print(f"   stderr | {text}", end="")
        case PhaseFrame(phase=phase):
            print(f"    phase | {phase}")
        case AuditFrame(event=event):
            print(f"    audit | {event.type}")


async def run_and_watch(enclave: EnclaveClient, code: str, language: str) -> None:
    print(f"\n== {language}: frames live, then the typed result")
    async with enclave.session(code, language=language) as session:
        async with session.stream() as frames:
            async for frame in frames:
                show(frame)
        result = await session.result(Primes)
        print(f"   result | {result.value!r}")


async def denied_egress(enclave: EnclaveClient) -> None:
    print("\n== a workload that tries to leave: denied, and on record")
    async with enclave.session(NOSY, egress=EgressPolicy.deny_all()) as session:
        await session.result()
        for event in await session.audit():
            where = event.particulars.get("host", "") if event.type == AuditType.EGRESS_DENIED else ""
            print(f"    audit | {event.type} {where}".rstrip())


async def over_budget(enclave: EnclaveClient) -> None:
    print("\n== a workload that never stops: killed at its limit")
    async with enclave.session(GREEDY, limits=SessionLimits(wall_clock_ms=1000)) as session:
        result = await session.result()
        try:
            result.raise_for_exit()
        except WorkloadKilled as error:
            print(f"   killed | {error.kill_reason}")


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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio", help="the event loop to run on")
    anyio.run(main, backend=parser.parse_args().backend)
