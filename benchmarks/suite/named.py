"""What a connection costs more by name than by address, plain and over TLS."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks._model import Benchmark, Case, Options, Results, Table, Target, per, ratio
from benchmarks._process import case
from benchmarks.source._plan import burst_id

from ._shared import LOOPS, is_goal

ROWS = ("enclave", "enclave-trio", "aiohttp-lines")
STREAMS, QUICK_STREAMS = 1_000, 10
WRITES = 40
WAYS = {"plain": False, "TLS": True}
CPU_MS = per("cpu", "streams", 1e3)


def cases(options: Options) -> Iterable[Case]:
    streams = QUICK_STREAMS if options.quick else STREAMS
    session_id = burst_id(WRITES, 1)
    parameters = {"session_id": session_id, "streams": streams, "frames": WRITES, "warm_id": session_id}
    for way, tls in WAYS.items():
        for row in ROWS:
            for by_name in (False, True):
                yield case(
                    row,
                    _point(way, by_name=by_name),
                    "many",
                    parameters,
                    prepare=[session_id],
                    repeats=5,
                    tls=tls,
                    by_name=by_name,
                )


def _point(way: str, *, by_name: bool) -> str:
    return f"{way}, by {'name' if by_name else 'address'}"


def targets(results: Results, options: Options) -> list[Target]:  # noqa: ARG001
    found = []
    for loop, ours in LOOPS.items():
        for way in WAYS:
            by_address, by_name = (results.value(ours, _point(way, by_name=named), CPU_MS) for named in (False, True))
            what = f"CPU per stream, {way}, {loop}, by name against by address"
            found.append(Target(what, ratio(by_name, by_address), 1.05, at_least=False, goal=is_goal(loop)))
    return found


BENCHMARK = Benchmark(
    "named",
    "By name and by address",
    f"CPU of the client per stream, when {STREAMS:,} of {WRITES} frames are opened at the same moment through one "
    "client, whose base URL has the name `localhost` or the address `127.0.0.1`.",
    cases,
    [Table("client CPU, ms per stream", CPU_MS, ".2f")],
    targets,
)
