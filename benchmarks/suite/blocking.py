"""What the blocking client costs over the async one."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks._model import Benchmark, Case, Options, Results, Table, Target, number
from benchmarks._process import case
from benchmarks.source._plan import burst_id

ROW = "enclave-blocking"
POINTS = {"200 a write": 200, "10 a write": 10}
CALLS, QUICK_CALLS = 2_000, 20
FRAMES, QUICK_FRAMES = 100_000, 1_000
ROUNDS, QUICK_ROUNDS = 5, 1


def cases(options: Options) -> Iterable[Case]:
    calls, frames, rounds = (QUICK_CALLS, QUICK_FRAMES, QUICK_ROUNDS) if options.quick else (CALLS, FRAMES, ROUNDS)
    for point, per_write in POINTS.items():
        session_id = burst_id(frames, per_write)
        parameters = {"calls": calls, "session_id": session_id, "frames": frames, "rounds": rounds}
        # One repeat, whose rounds take turns: what counts is a difference within one process.
        yield case(ROW, point, "blocking", parameters, prepare=[session_id], repeats=1, timeout=300.0)


def targets(results: Results, options: Options) -> list[Target]:
    point = "200 a write"

    def target(what: str, name: str, bound: float) -> Target:
        value = results.value(ROW, point, number(name))
        # The first call of a tiny run pays for all imports, so it says nothing.
        return Target(what, value, bound, at_least=False, goal=options.quick, unit=" us")

    return [
        target("CPU of a call, over the async client", "cpu_a_call", 250.0),
        target("wall time of a call, over the async client", "wall_a_call", 250.0),
        target("CPU of a frame, over the async client", "cpu_a_frame", 1.0),
        target("wall time of a frame, over the async client", "wall_a_frame", 1.0),
    ]


BENCHMARK = Benchmark(
    "blocking",
    "The blocking client",
    "What `SyncEnclaveClient` takes more than `EnclaveClient`: microseconds for each of `GET /sessions/{id}`, one call "
    "after the other, and for each frame of one stream, read with a plain loop. Both take turns in one process. "
    "The columns say how many frames the server writes at once. To a call that does not matter: its columns are two "
    "runs.",
    cases,
    [
        Table("CPU of a call, us more", number("cpu_a_call"), ".0f"),
        Table("wall time of a call, us more", number("wall_a_call"), ".0f"),
        Table("CPU of a frame, us more", number("cpu_a_frame"), ".3f"),
        Table("wall time of a frame, us more", number("wall_a_frame"), ".3f"),
    ],
    targets,
)
