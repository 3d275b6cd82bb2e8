"""The blocking client beside the async one, call by call and stream by stream in turn, in one process."""

from __future__ import annotations

import time
from collections.abc import Callable

import anyio

from benchmarks.source._wire import CLOSING_FRAMES
from enclave import EnclaveClient, SyncEnclaveClient

from ._jobs import WrongResultError

Reading = tuple[float, float]


class Shortest:
    """The shortest wall and CPU time of some rounds. Noise only ever adds."""

    def __init__(self) -> None:
        self.wall = self.cpu = float("inf")

    def add(self, reading: Reading) -> None:
        self.wall, self.cpu = min(self.wall, reading[0]), min(self.cpu, reading[1])


def timed(work: Callable[[], None]) -> Reading:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def compare(base_url: str, *, calls: int, session_id: str, frames: int, rounds: int) -> dict[str, float]:
    """What the blocking client takes more than the async one: for a call, and for a frame of a stream."""
    found = {name: Shortest() for name in ("calls", "blocking calls", "stream", "blocking stream")}
    with SyncEnclaveClient(base_url) as client:

        def blocking_calls() -> None:
            for _ in range(calls):
                client.get("s-1")

        def blocking_stream() -> None:
            expect(frames, sum(1 for _ in client.stream(session_id)))

        for _ in range(rounds):
            for name, reading in anyio.run(_async_round, base_url, calls, session_id, frames).items():
                found[name].add(reading)
            client.get("s-1")
            found["blocking calls"].add(timed(blocking_calls))
            found["blocking stream"].add(timed(blocking_stream))
    return {
        "cpu_a_call": (found["blocking calls"].cpu - found["calls"].cpu) / calls * 1e6,
        "wall_a_call": (found["blocking calls"].wall - found["calls"].wall) / calls * 1e6,
        "cpu_a_frame": (found["blocking stream"].cpu - found["stream"].cpu) / frames * 1e6,
        "wall_a_frame": (found["blocking stream"].wall - found["stream"].wall) / frames * 1e6,
    }


async def _async_round(base_url: str, calls: int, session_id: str, frames: int) -> dict[str, Reading]:
    async with EnclaveClient(base_url) as client:
        await client.get("s-1")
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(calls):
            await client.get("s-1")
        first = time.perf_counter() - wall, time.process_time() - cpu
        wall, cpu = time.perf_counter(), time.process_time()
        count = 0
        async with client.stream(session_id) as stream:
            async for _ in stream:
                count += 1
        second = time.perf_counter() - wall, time.process_time() - cpu
    expect(frames, count)
    return {"calls": first, "stream": second}


def expect(frames: int, count: int) -> None:
    if count != frames + CLOSING_FRAMES:
        raise WrongResultError(f"frames: expected {frames + CLOSING_FRAMES}, got {count}")
