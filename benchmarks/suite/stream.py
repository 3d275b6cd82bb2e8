"""One stream end to end: how many frames a second a client takes from a socket and decodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from benchmarks._model import Benchmark, Case, Options, Results, Table, Target, per, ratio
from benchmarks._process import case
from benchmarks.source._plan import backlog_id, burst_id
from benchmarks.source._wire import characters

from ._shared import LOOPS, is_goal

OURS = (
    "enclave",
    "enclave-batches",
    "enclave-trio",
    "enclave-trio-batches",
    "enclave-uvloop",
    "enclave-uvloop-batches",
)
FAST = {*OURS, "aiohttp-reads", "node", "socket"}
ROWS = (*OURS, "httpx-json", "httpx-msgspec", "aiohttp-lines", "aiohttp-reads", "node", "socket")
Make = Callable[[int, int], str]
POINTS: dict[str, tuple[Make, int]] = {
    "200 a write": (burst_id, 200),
    "10 a write": (burst_id, 10),
    "1 a write": (burst_id, 1),
    "1 a chunk, backlog": (backlog_id, 1),
}
M_FRAMES = per("frames", "wall", 1e-6)
CPU_US = per("cpu", "frames", 1e6)
FRAMES, WARM_FRAMES = 60_000, 10_000
FAST_FACTOR = 6
"""Fast contenders read longer streams, so that all are timed for about as long, and a JIT compiler has warmed up."""


def cases(options: Options) -> Iterable[Case]:
    scale = 0.02 if options.quick else 1.0
    for point, (make, per_write) in POINTS.items():
        for row in ROWS:
            factor = scale * (FAST_FACTOR if row in FAST else 1)
            given = parameters(make, per_write, int(FRAMES * factor), int(WARM_FRAMES * factor))
            yield stream_case(row, point, given)


def stream_case(row: str, point: str, given: dict[str, Any], *, repeats: int = 2, tls: bool = False) -> Case:
    if row == "node":
        given["warm_characters"] = characters(given["warm_frames"])
    prepare = [given["session_id"], given["warm_id"]]
    return case(row, point, "stream", given, prepare=prepare, repeats=repeats, tls=tls)


def parameters(make: Make, per_write: int, frames: int, warm: int) -> dict[str, Any]:
    return {
        "session_id": make(frames, per_write),
        "frames": frames,
        "warm_id": make(warm, per_write),
        "warm_frames": warm,
    }


def targets(results: Results, options: Options) -> list[Target]:  # noqa: ARG001
    found = []
    for loop, ours in LOOPS.items():
        for point, bound in (("200 a write", 4.0), ("10 a write", 6.0), ("1 a write", 2.5)):
            against = faster_than(results, point, ours)
            found.append(
                Target(f"{point}, {loop}, against httpx + httpx-sse + json", against("httpx-json"), bound, True)
            )
            if point == "1 a write":
                best = min(filter(None, (against("aiohttp-lines"), against("aiohttp-reads"))), default=None)
                found.append(Target(f"{point}, {loop}, against the faster aiohttp + json", best, 1.0, True))
            found.append(
                Target(
                    f"{point}, {loop}, against Node", against("node"), 1.0, True, is_goal(loop) or point == "1 a write"
                )
            )
    return found


def faster_than(results: Results, point: str, ours: str) -> Callable[[str], float | None]:
    return lambda other: ratio(results.value(ours, point, M_FRAMES), results.value(other, point, M_FRAMES))


BENCHMARK = Benchmark(
    "stream",
    "One stream, end to end",
    "Millions of frames a second from a socket to decoded frames, by the number of frames that the server writes at "
    "once (one `send` and one HTTP chunk for each write). In the last column the chunks still hold one frame each, but "
    "are sent 256 KiB at a time: the client is behind, or replays. The last row reads the bytes and drops them: that "
    "is what the source can give. At one frame a write a client that keeps up is woken for each frame, which slows the "
    "source too, and one that falls behind finds many at once. So rows of that column may swap places from one machine "
    "to another.",
    cases,
    [Table("million frames per second", M_FRAMES, ".3f"), Table("client CPU, us per frame", CPU_US, ".2f")],
    targets,
)
