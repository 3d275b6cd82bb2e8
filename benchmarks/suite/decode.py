"""Decoding in memory: from the body of a response to frames, without a socket."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks._model import Benchmark, Case, Options, Results, Table, Target, per, ratio
from benchmarks._process import case
from benchmarks.source._plan import backlog_id

ROWS = ("enclave-decoder", "enclave-exact", "sse-json", "sse-msgspec", "node")
POINT = "id, event and data"
US_PER_FRAME = per("wall", "frames", 1e6)


def cases(options: Options) -> Iterable[Case]:
    frames = 2_000 if options.quick else 50_000
    session_id = backlog_id(frames, 200)
    parameters = {"session_id": session_id, "frames": frames}
    return [case(row, POINT, "decode", parameters, prepare=[session_id]) for row in ROWS]


def targets(results: Results, options: Options) -> list[Target]:  # noqa: ARG001
    ours = results.value("enclave-decoder", POINT, US_PER_FRAME)
    theirs = results.value("sse-json", POINT, US_PER_FRAME)
    node = results.value("node", POINT, US_PER_FRAME)
    return [
        Target("decode in memory, against httpx-sse + json", ratio(theirs, ours), 8.0, at_least=True),
        Target("decode in memory, against Node", ratio(node, ours), 1.0, at_least=True, goal=True),
    ]


BENCHMARK = Benchmark(
    "decode",
    "Decoding in memory",
    "Microseconds per frame from bytes to decoded frame. The body is given in reads of 64 KiB; every frame has an id, "
    "an event and a data line.",
    cases,
    [Table("us per frame", US_PER_FRAME, ".3f")],
    targets,
)
