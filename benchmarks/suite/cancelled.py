"""Cancelling many open streams at once: what each costs, and whether every socket is closed."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks._model import Benchmark, Case, Options, Results, Table, Target, number, per, ratio
from benchmarks._process import case
from benchmarks.source._plan import IDLE_ID

from ._shared import AIOHTTP, BARE, LOOPS, SMALL_STACK, is_goal, label

SIZES, QUICK_SIZES = (200, 2_000), (10, 20)
SLOW = "httpx-json"
FLAT = 1.3
"""What counts as flat; the same allowance as for live streams."""
AGAINST_AIOHTTP = 1.5
"""Each of our streams is two tasks: the caller's, and the one that reads ahead of it."""
CPU_US = per("cpu", "streams", 1e6)


def cases(options: Options) -> Iterable[Case]:
    for size in QUICK_SIZES if options.quick else SIZES:
        for row in (*SMALL_STACK, *BARE):
            if row == SLOW and size == SIZES[-1] and not options.full:
                continue
            parameters = {"session_id": IDLE_ID, "streams": size}
            repeats = 1 if row == SLOW else 3
            yield case(row, label(size), "cancel", parameters, repeats=repeats, timeout=300.0)


def targets(results: Results, options: Options) -> list[Target]:
    few, many = map(label, QUICK_SIZES if options.quick else SIZES)
    found = []
    for loop, row in LOOPS.items():
        goal = is_goal(loop)
        growth = ratio(results.value(row, many, CPU_US), results.value(row, few, CPU_US))
        left = results.value(row, many, number("sockets_left"))
        found.append(
            Target(
                f"{many} streams cancelled, {loop}, CPU per stream against {few}",
                growth,
                FLAT,
                at_least=False,
                goal=goal,
            )
        )
        aiohttp = ratio(results.value(row, many, CPU_US), results.value(AIOHTTP, many, CPU_US))
        what = f"{many} streams cancelled, {loop}, CPU per stream against aiohttp"
        found.append(Target(what, aiohttp, AGAINST_AIOHTTP, at_least=False, goal=goal))
        found.append(
            Target(
                f"{many} streams cancelled, {loop}, sockets left open",
                left,
                0,
                at_least=False,
                form=".0f",
                unit="",
            )
        )
    return found


BENCHMARK = Benchmark(
    "cancel",
    "Cancelling open streams",
    "CPU of the client per open stream when all are cancelled at the same moment, until the server has seen the last "
    "socket close, or for 10 s. The client stays open. The server counts the sockets that it still sees. The last rows "
    "are no clients, but one task for each socket. Each of our streams has two.",
    cases,
    [Table("client CPU, us per stream", CPU_US, ".0f"), Table("sockets left open", number("sockets_left"), ".0f")],
    targets,
)
