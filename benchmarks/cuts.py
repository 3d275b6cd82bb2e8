"""The command `cuts`: runs of an event loop that are cut short at random, and then the sessions that are left: none.

Each run is an event loop of its own, in which sessions are created, read and torn down. It ends in one of these ways,
after a random time: `asyncio.run` ends, every task of the loop is cancelled, one task is cancelled by somebody else, a
cancel scope is, or the answers to some creates are lost, with and without one of the others. The simulator runs in
another thread, so that nothing of it is cut.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from enclave import EnclaveClient, EnclaveError, RetryPolicy, StdoutFrame
from enclave.simulator import Bounds, Simulator

LONGEST_RUN_SECONDS = 0.15
RECLAIM_SECONDS = 30.0
SESSIONS_A_RUN = 3
RUNS_A_SIMULATOR = 50
"""It lists every session that it has ever had, so many of them make looking for one slow."""
WAYS = {
    "asyncio": ["end of asyncio.run", "all tasks cancelled", "one task cancelled by others", "scope"],
    "trio": ["scope"],
}


def cut_runs(backend: str, runs: int, rng: random.Random, counts: Counter[str]) -> list[str]:
    """Count the runs by the way in which they were cut. Give what went wrong: sessions that are left, and warnings."""
    faults: list[str] = []
    while runs > 0:
        faults += _some_runs(backend, min(runs, RUNS_A_SIMULATOR), rng, counts)
        runs -= RUNS_A_SIMULATOR
    return faults


def _some_runs(backend: str, runs: int, rng: random.Random, counts: Counter[str]) -> list[str]:
    faults: list[str] = []
    with start_blocking_portal() as portal, _serving(portal) as simulator, _unraisable(faults):
        for _ in range(runs):
            way, loses = rng.choice(WAYS[backend]), rng.random() < 1 / 3
            portal.call(_prepare, simulator, rng, loses)
            _Run(simulator, rng, way).run(backend)
            counts[f"{backend}: {way}{', answers lost' if loses else ''}"] += 1
        with suppress(TimeoutError):
            portal.call(_reclaimed, simulator)
        left = [session for session, phase in simulator.phases.items() if phase != "torn_down"]
        counts[f"{backend}: sessions"] += len(simulator.phases)
    return faults + ([f"{backend}: sessions left: {left}"] if left else [])


@contextmanager
def _serving(portal: BlockingPortal) -> Generator[Simulator]:
    bounds = Bounds(heartbeat_seconds=0.1)
    with portal.wrap_async_context_manager(Simulator(bounds=bounds).serve()) as simulator:
        yield simulator


@contextmanager
def _unraisable(faults: list[str]) -> Generator[None]:
    """Note what Python can only print, as for a coroutine that was never awaited."""

    def note(what: sys.UnraisableHookArgs) -> None:
        faults.append(f"{what.err_msg}: {what.exc_value}")

    before, sys.unraisablehook = sys.unraisablehook, note
    try:
        yield
    finally:
        sys.unraisablehook = before


async def _prepare(simulator: Simulator, rng: random.Random, loses: bool) -> None:
    for _ in range(SESSIONS_A_RUN):
        simulator.script([StdoutFrame("a"), rng.random() * LONGEST_RUN_SECONDS, StdoutFrame("b")], result=1)
    if loses:
        simulator.faults.lose_response(method="POST", reset=rng.random() < 0.5, times=rng.randrange(1, SESSIONS_A_RUN))


async def _reclaimed(simulator: Simulator) -> None:
    with anyio.fail_after(RECLAIM_SECONDS):
        await simulator.until(lambda simulator: not simulator.unreclaimed_sessions)


class _Run:
    """One event loop, from its start to its cut."""

    def __init__(self, simulator: Simulator, rng: random.Random, way: str) -> None:
        self._simulator = simulator
        self._way = way
        self._seconds = rng.random() * LONGEST_RUN_SECONDS
        self._fans_out = rng.random() < 0.5
        self._rng = rng

    def run(self, backend: str) -> None:
        cuts: dict[str, Callable[[], Any]] = {
            "end of asyncio.run": self._until_the_end,
            "all tasks cancelled": self._until_all_are_cancelled,
            "one task cancelled by others": self._until_one_is_cancelled,
            "scope": self._within_a_scope,
        }
        anyio.run(cuts[self._way], backend=backend)

    async def _work(self) -> None:
        retry = RetryPolicy(attempts=3, wait_seconds=0.01)
        async with EnclaveClient(self._simulator.base_url, api_key=self._simulator.api_key, retry=retry) as client:
            with suppress(EnclaveError):
                if self._fans_out:
                    await client.map(["played by a script"] * SESSIONS_A_RUN, max_concurrency=SESSIONS_A_RUN)
                    return
                async with client.session("played by a script") as session, session.stream() as frames:
                    async for _ in frames:
                        pass

    async def _until_the_end(self) -> None:
        task = asyncio.create_task(self._work())
        await asyncio.wait([task], timeout=self._seconds)

    async def _until_all_are_cancelled(self) -> None:
        task = asyncio.create_task(self._work())
        await asyncio.wait([task], timeout=self._seconds)
        for other in asyncio.all_tasks() - {asyncio.current_task()}:
            other.cancel()
        await asyncio.wait([task])

    async def _until_one_is_cancelled(self) -> None:
        task = asyncio.create_task(self._work())
        await asyncio.wait([task], timeout=self._seconds)
        others = sorted(asyncio.all_tasks() - {asyncio.current_task()}, key=lambda other: other.get_name())
        if others:
            self._rng.choice(others).cancel()
        await asyncio.wait([task])

    async def _within_a_scope(self) -> None:
        with anyio.move_on_after(self._seconds):
            await self._work()


def main(arguments: list[str]) -> int:
    """Exit status 0 if no session is left and nothing warned. 1 otherwise."""
    parser = argparse.ArgumentParser("python -m benchmarks cuts", description=__doc__)
    parser.add_argument("--runs", type=int, default=300, help="how many, on each loop")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="repeats a run's random choices")
    chosen = parser.parse_args(arguments)
    print(f"seed {chosen.seed}", flush=True)
    counts: Counter[str] = Counter()
    rng = random.Random(chosen.seed)
    faults = [fault for backend in WAYS for fault in cut_runs(backend, chosen.runs, rng, counts)]
    for name, count in sorted(counts.items()):
        print(f"{count:8,} {name}")
    for fault in faults:
        print(f"FAULT: {fault}", file=sys.stderr)
    return 1 if faults else 0
