"""Many requests issued at once: what each costs, and whether the queue makes it dearer."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks._model import Benchmark, Case, Options, Results, Table, Target, per, ratio
from benchmarks._process import case

from ._shared import AIOHTTP, LOOPS, SMALL_STACK, label

SIZES, QUICK_SIZES = (500, 2_000, 5_000), (20, 40, 60)
SLOW, SLOW_SIZES = "httpx-json", (500, 2_000)
CONNECTIONS = 20
"""How many connections the others may use; ours decides for itself."""
CPU_US = per("cpu", "requests", 1e6)


def cases(options: Options) -> Iterable[Case]:
    for size in QUICK_SIZES if options.quick else SIZES:
        for row in SMALL_STACK:
            if row == SLOW and not (options.quick or options.full) and size not in SLOW_SIZES:
                continue
            parameters = {"session_id": "s-1", "count": size, "connections": CONNECTIONS}
            repeats = 1 if row == SLOW and size > 500 else 3
            yield case(row, label(size), "requests", parameters, repeats=repeats, timeout=300.0)


def targets(results: Results, options: Options) -> list[Target]:
    few, *_, many = map(label, QUICK_SIZES if options.quick else SIZES)
    found = []
    for loop, row in LOOPS.items():
        growth = ratio(results.value(row, many, CPU_US), results.value(row, few, CPU_US))
        what = f"CPU per request, {loop}, {many} at once against {few}"
        found.append(Target(what, growth, 1.2, at_least=False))
        aiohttp = ratio(results.value(row, many, CPU_US), results.value(AIOHTTP, many, CPU_US))
        what = f"CPU per request, {loop}, {many} at once, against aiohttp"
        found.append(Target(what, aiohttp, 1.2, at_least=False))
    return found


BENCHMARK = Benchmark(
    "requests",
    "Many requests at once",
    "CPU of the client per `GET /sessions/{id}`, all issued at the same moment. httpx and aiohttp may use "
    f"{CONNECTIONS} connections; ours uses its own default.",
    cases,
    [
        Table("client CPU, us per request", CPU_US, ".0f"),
        Table("wall, us per request", per("wall", "requests", 1e6), ".0f"),
    ],
    targets,
)
