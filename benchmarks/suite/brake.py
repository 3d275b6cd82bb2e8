"""A fan-out far beyond a server's quota: what it costs the server in refusals, and the caller in time."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks._model import Benchmark, Case, Options, Results, Table, Target, number, per
from benchmarks._process import case

from ._shared import LOOPS

ROOM, SECONDS, RETRY_AFTER = 20, 0.5, 1.0
COUNT, QUICK_COUNT = 500, 60
MAX_CONCURRENCY = 200
REFUSED = per("refused", "sessions")


def _point(options: Options) -> str:
    return f"{QUICK_COUNT if options.quick else COUNT} sessions"


def cases(options: Options) -> Iterable[Case]:
    count = QUICK_COUNT if options.quick else COUNT
    parameters = {"count": count, "max_concurrency": MAX_CONCURRENCY, "best_seconds": count / ROOM * SECONDS}
    prepare = ["--quota", str(ROOM), str(SECONDS), str(RETRY_AFTER)]
    for row in LOOPS.values():
        yield case(row, _point(options), "fan_out", parameters, prepare=prepare, repeats=3)


def targets(results: Results, options: Options) -> list[Target]:
    found = []
    for loop, row in LOOPS.items():
        refused = results.value(row, _point(options), REFUSED)
        slower = results.value(row, _point(options), per("wall", "best"))
        found.append(Target(f"refused creates a session, {loop}", refused, 1.5, at_least=False, unit=""))
        found.append(Target(f"time over the best possible, {loop}", slower, 1.2, at_least=False))
    return found


BENCHMARK = Benchmark(
    "brake",
    "A fan-out beyond a quota",
    f"`fan_out` of {COUNT} requests with `max_concurrency={MAX_CONCURRENCY}` against a server that has room for {ROOM} "
    f"sessions at once, each of {SECONDS:g} s, and answers 429 with `Retry-After: {RETRY_AFTER:g}` beyond. The best "
    "possible time is that of a server which is full all the time.",
    cases,
    [
        Table("refused creates a session", REFUSED, ".2f"),
        Table("wall, s", number("wall"), ".1f"),
        Table("wall over the best possible", per("wall", "best"), ".2f"),
    ],
    targets,
)
