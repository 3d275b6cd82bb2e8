"""What an open and silent stream costs in resident memory."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks._model import Benchmark, Case, Measured, Options, Results, Table, Target, number
from benchmarks._process import case
from benchmarks.source._plan import IDLE_ID

from ._shared import LOOPS, SMALL_STACK

POINT = "idle stream"
SLOW = "httpx-json"
SIZES, SLOW_SIZES, QUICK_SIZES = (200, 2_200), (50, 350), (20, 120)
LIMIT_KB = 24.0


def kilobytes(measured: Measured) -> float:
    return number("bytes_per_stream")(measured) / 1024


def cases(options: Options) -> Iterable[Case]:
    for row in SMALL_STACK:
        small, large = QUICK_SIZES if options.quick else SLOW_SIZES if row == SLOW else SIZES
        parameters = {"session_id": IDLE_ID, "small": small, "large": large}
        yield case(row, POINT, "idle", parameters, repeats=2)


def targets(results: Results, options: Options) -> list[Target]:  # noqa: ARG001
    return [
        Target(
            f"RSS per idle stream, {loop}",
            results.value(row, POINT, kilobytes),
            LIMIT_KB,
            at_least=False,
            form=".1f",
            unit=" KB",
        )
        for loop, row in LOOPS.items()
    ]


BENCHMARK = Benchmark(
    "memory",
    "Memory of an idle stream",
    "Resident memory per stream that has given one frame and waits for more: the slope from 200 to 2,200 open streams "
    "(50 to 350 for the httpx pool). The kernel's socket buffers are not part of it.",
    cases,
    [Table("KB per stream", kilobytes, ".1f")],
    targets,
)
