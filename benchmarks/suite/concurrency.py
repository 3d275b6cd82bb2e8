"""Many live streams at once, and how the cost of each grows with their number."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks._limits import most_streams
from benchmarks._model import Benchmark, Case, Options, Results, Table, Target, number, per, ratio
from benchmarks._process import case
from benchmarks.source._plan import burst_id, paced_id

from ._shared import AIOHTTP, LOOPS, SMALL_STACK, label

ROWS = (*SMALL_STACK, "httpx-closing")

WRITES = 40
PER_SECOND = 8_000
"""Writes to all streams together. The same at every size, so that the client is never busier, only wider."""
SIZES = (300, 1_000, 3_000, 10_000)
QUICK_SIZES = (10, 20, 30)
POOLS = (POOL, CLOSING_POOL) = ("httpx-json", "httpx-closing")
POOL_SIZES, POOL_SIZES_FULL = (300, 1_000), (300, 1_000, 3_000)
WITH_TARGETS = (*LOOPS.values(), AIOHTTP)
"""The rows at 10,000, which takes a minute each time."""
TIMEOUT = 1_200.0
AGAINST_AIOHTTP = {"asyncio": 1.0, "trio": 1.15}
CPU_MS = per("cpu", "streams", 1e3)


def cases(options: Options) -> Iterable[Case]:
    for size in QUICK_SIZES if options.quick else SIZES:
        if size > most_streams():
            continue
        for row in ROWS if size < SIZES[-1] else WITH_TARGETS:
            if row not in POOLS or options.quick or size in (POOL_SIZES_FULL if options.full else POOL_SIZES):
                repeats = 1 if size == SIZES[-1] or (row in POOLS and size > 300) else 3
                yield live_case(row, size, repeats=repeats)


def live_case(row: str, size: int, *, repeats: int, tls: bool = False) -> Case:
    """So many live streams at once through one client."""
    session_id = paced_id(size, WRITES, PER_SECOND, closes=row == CLOSING_POOL)
    warm_id = burst_id(WRITES, 1)
    parameters = {"session_id": session_id, "streams": size, "frames": WRITES - 1, "warm_id": warm_id}
    prepare = [session_id, warm_id]
    return case(row, label(size), "many", parameters, prepare=prepare, repeats=repeats, timeout=TIMEOUT, tls=tls)


def targets(results: Results, options: Options) -> list[Target]:
    few, middle, many, *more = map(label, QUICK_SIZES if options.quick else SIZES)
    found = []
    for loop, ours in LOOPS.items():
        cost = {size: results.value(ours, size, CPU_MS) for size in (few, many, *more)}
        growth = ratio(cost[many], cost[few])
        found.append(Target(f"CPU per stream, {loop}, {many} streams against {few}", growth, 1.3, at_least=False))
        if loop == "asyncio":
            found.append(_against_pool(results, cost[many], middle, many))
        for size in (many, *more):
            aiohttp = ratio(cost[size], results.value(AIOHTTP, size, CPU_MS))
            what = f"CPU per stream, {loop}, {size} streams, against aiohttp"
            found.append(Target(what, aiohttp, AGAINST_AIOHTTP[loop], at_least=False))
    return found


def _against_pool(results: Results, ours: float | None, middle: str, many: str) -> Target:
    pool, at = results.value(POOL, many, CPU_MS), many
    if pool is None:  # its cost per stream only grows, so a smaller number of streams gives a lower bound
        pool, at = results.value(POOL, middle, CPU_MS), f"{middle}, a lower bound"
    what = f"CPU per stream, {many} streams, one httpx pool (at {at}) against asyncio"
    return Target(what, ratio(pool, ours), 15.0, at_least=True)


BENCHMARK = Benchmark(
    "concurrency",
    "Many streams at once",
    f"CPU of the client per stream that is opened, receives {WRITES} writes of one frame and ends. The writes to all "
    f"streams together come at {PER_SECOND:,} a second, whatever the number of streams, so the writes to 300 take "
    "1.5 s and those to 10,000 take 50 s. A row that takes far longer could not keep up, and its reads hold several "
    "writes. The server leaves connections open after a stream, as Node's does. The httpx rows are one shared pool "
    "with its limits raised. The second is with a server that closes. At 3,000 streams the first takes minutes, so it "
    "is run with `--full` only.",
    cases,
    [Table("client CPU, ms per stream", CPU_MS, ".2f"), Table("wall seconds, all streams", number("wall"), ".1f")],
    targets,
)
