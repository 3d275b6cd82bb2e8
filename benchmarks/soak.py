"""The command `soak`: hundreds of sessions under random faults; then every frame is accounted for and nothing is left.

Rounds follow one another until the time is up, on asyncio and trio in turn. Each round serves a simulator with a random
framing and runs scripted sessions (their frames are numbered) and real ones, with connections cut and reset anywhere,
stalls, refusals, 429 and 503, and callers that give up at random points. A lost answer to POST /sessions is the one
fault left out: nobody can know the id of a session whose only mention was lost.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

import anyio
import psutil

from enclave import (
    EnclaveClient,
    EnclaveError,
    EndFrame,
    RetryPolicy,
    SessionHandle,
    StdoutFrame,
    StreamInterrupted,
    Timeout,
)
from enclave.simulator import Bounds, Framing, Simulator

SESSIONS_A_ROUND = 40
MAX_AT_ONCE = 20
MAX_GROWTH_MB = 24.0
"""What the process may grow by after its warm-up rounds before memory counts as not flat, in mebibytes."""
WARM_UP_ROUNDS = 3
STREAMS = r"/sessions/[^/]+/stream"


@dataclass
class Ledger:
    """What happened, and what went wrong."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def check(self, condition: bool, complaint: str) -> None:
        if not condition:
            self.faults.append(complaint)


def random_framing(rng: random.Random) -> Framing:
    return Framing(
        ids=rng.random() < 0.6,
        newline=rng.choice(["\n", "\n", "\r\n", "\r"]),
        event_names=rng.random() < 0.5,
        comments=rng.random() < 0.3,
        bom=rng.random() < 0.3,
        data_lines=rng.choice([1, 1, 1, 2]),
        chunk_bytes=rng.choice([0, 0, 7, 100]),
        retry_ms=rng.choice([None, 5]),
    )


def arm_faults(simulator: Simulator, rng: random.Random) -> int:
    """Arm the faults of a round, and give their number."""
    faults = simulator.faults
    for _ in range(SESSIONS_A_ROUND):
        after = rng.randrange(0, 40)
        match rng.randrange(6):
            case 0:
                faults.drop_stream(after_frames=after, path=STREAMS)
            case 1:
                faults.drop_stream(after_frames=after, after_bytes=rng.randrange(1, 60), path=STREAMS)
            case 2:
                faults.drop_stream(after_frames=after, after_bytes=rng.randrange(0, 60), reset=True, path=STREAMS)
            case 3:
                faults.end_stream(after_frames=after, path=STREAMS)
            case 4:
                faults.stall_stream(after_frames=after, path=STREAMS)
            case _:
                faults.respond(rng.choice([429, 503]), retry_after=0, method="GET")
    for _ in range(4):
        faults.respond(503, retry_after=0)
        faults.refuse(method="GET", reset=rng.random() < 0.5)
        faults.lose_response(method="DELETE")
    return len(faults.armed)


async def read_stream(session: SessionHandle, ledger: Ledger) -> int | None:
    """How many numbered lines came, each once and in order up to the end; None where the stream broke, loudly."""
    lines: list[int] = []
    ended = False
    try:
        async with session.stream() as frames:
            async for frame in frames:
                ledger.counts["frames"] += 1
                if isinstance(frame, StdoutFrame):
                    lines += [int(word) for word in frame.data.split()]
                ended = isinstance(frame, EndFrame)
            ledger.counts["resumes"] += frames.resumes
    except StreamInterrupted:
        ledger.counts["interrupted, loudly"] += 1
        lost = True
    else:
        lost = False
        ledger.check(ended, f"{session.id}: the stream ended without its end frame")
    ledger.check(lines == list(range(len(lines))), f"{session.id}: lines out of order: {lines}")
    return None if lost else len(lines)


async def one_session(
    client: EnclaveClient, simulator: Simulator, rng: random.Random, ledger: Ledger, limiter: anyio.CapacityLimiter
) -> None:
    count = rng.randrange(0, 60)
    real = rng.random() < 0.1
    patience = rng.random() * 0.3 if rng.random() < 0.25 else 30.0
    async with limiter:
        if not real:
            pause = [0.001] if rng.random() < 0.5 else []
            steps = [[StdoutFrame(f"{number}\n"), *pause] for number in range(count)]
            simulator.script([step for group in steps for step in group], result=count)
        code = f"for n in range({count}): print(n)\nenclave.result({count})"
        with anyio.move_on_after(patience) as scope:
            try:
                async with client.session(code) as session:
                    seen = await read_stream(session, ledger)
                    # Whichever session plays a script, its result is the number of its lines.
                    result = await session.result(int)
                    ledger.check(seen in (None, result.value), f"{session.id}: {seen} of {result.value} lines")
                    ledger.counts["completed"] += 1
            except EnclaveError as error:
                ledger.counts[f"refused, loudly ({type(error).__name__})"] += 1
        ledger.counts["given up on"] += scope.cancelled_caught
        ledger.counts["sessions"] += 1


async def one_round(rng: random.Random, ledger: Ledger) -> None:
    retry = RetryPolicy(attempts=10, wait_seconds=0.005, max_wait_seconds=0.05)
    limiter = anyio.CapacityLimiter(MAX_AT_ONCE)
    async with Simulator(bounds=Bounds(heartbeat_seconds=0.1), framing=random_framing(rng)).serve() as simulator:
        ledger.counts["faults"] += arm_faults(simulator, rng)
        async with EnclaveClient(
            simulator.base_url, api_key=simulator.api_key, retry=retry, timeout=Timeout(stream_idle=0.5)
        ) as client:
            async with anyio.create_task_group() as task_group:
                for _ in range(SESSIONS_A_ROUND):
                    task_group.start_soon(one_session, client, simulator, rng, ledger, limiter)
            simulator.faults.clear()
            ledger.check((await client.health()).ok, "the client is of no use after a round")
        with anyio.move_on_after(10) as scope:
            await simulator.until(lambda simulator: not simulator.unreclaimed_sessions)
            await simulator.until(lambda simulator: simulator.open_streams == 0)
        left = [session for session, phase in simulator.phases.items() if phase != "torn_down"]
        ledger.check(not scope.cancelled_caught and not left, f"sessions or streams left: {left}")
    tasks = [task.name for task in anyio.get_running_tasks() if task.id != anyio.get_current_task().id]
    ledger.check(not [name for name in tasks if "enclave" in str(name)], f"tasks left: {tasks}")


def count_left_over(ledger: Ledger) -> None:
    process = psutil.Process()
    sockets = [connection for connection in process.net_connections() if connection.status != psutil.CONN_NONE]
    children = process.children(recursive=True)
    ledger.check(not sockets, f"sockets left: {sockets}")
    ledger.check(not children, f"processes left: {children}")


def resident_mb() -> float:
    gc.collect()
    return psutil.Process().memory_info().rss / 2**20


def main(arguments: list[str]) -> int:
    """Exit status 0 when nothing was lost and nothing is left; 1 otherwise."""
    parser = argparse.ArgumentParser("python -m benchmarks soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to go on, both loops together")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="repeats a run's random choices")
    chosen = parser.parse_args(arguments)
    print(f"seed {chosen.seed}", flush=True)
    rng = random.Random(chosen.seed)
    ledger = Ledger()
    deadline = time.monotonic() + chosen.seconds
    sizes: list[float] = []
    while time.monotonic() < deadline or len(sizes) <= WARM_UP_ROUNDS:
        backend = ("asyncio", "trio")[len(sizes) % 2]
        anyio.run(one_round, rng, ledger, backend=backend)
        count_left_over(ledger)
        sizes.append(resident_mb())
    growth = sizes[-1] - max(sizes[:WARM_UP_ROUNDS])
    ledger.check(growth <= MAX_GROWTH_MB, f"memory grew by {growth:.1f} MiB over {len(sizes)} rounds")
    for name, count in sorted(ledger.counts.items()):
        print(f"{count:8,} {name}")
    print(f"{len(sizes):8,} rounds; resident memory {sizes[0]:.0f} MiB after the first, {sizes[-1]:.0f} after the last")
    for fault in ledger.faults:
        print(f"FAULT: {fault}", file=sys.stderr)
    return 1 if ledger.faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
