"""The same questions over TLS, as production asks them, with the sizes at which the answers differ most."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks._limits import most_streams
from benchmarks._model import Benchmark, Case, Measured, Options, Results, Table, Target, number, per, ratio
from benchmarks._process import case
from benchmarks.source._plan import IDLE_ID, burst_id

from . import cancelled, concurrency, memory, requests
from ._shared import BARE, LOOPS, label
from .stream import CPU_US, FAST, M_FRAMES, faster_than, parameters, stream_case

CHAIN = "The server's certificate is signed by an authority that a root signed, in TLS 1.3."
OURS = ("enclave", "enclave-trio", "enclave-uvloop")
AIOHTTP = "aiohttp-lines"
CPU_MS = per("cpu", "streams", 1e3)
ALLOWED = {"asyncio": 1.0, "trio": 1.15}
"""Of what aiohttp's streams cost. trio itself costs more for each wake-up."""

STREAM_ROWS = (*OURS, "httpx-json", AIOHTTP, "aiohttp-reads", "node", "socket")
WRITES = {"200 a write": 200, "10 a write": 10, "1 a write": 1}
FRAMES, WARM_FRAMES, FAST_FACTOR = 60_000, 10_000, 4


def stream_cases(options: Options) -> Iterator[Case]:
    scale = 0.02 if options.quick else 1.0
    for point, per_write in WRITES.items():
        for row in STREAM_ROWS:
            factor = scale * (FAST_FACTOR if row in FAST else 1)
            given = parameters(burst_id, per_write, int(FRAMES * factor), int(WARM_FRAMES * factor))
            yield stream_case(row, point, given, tls=True)


def stream_targets(results: Results, options: Options) -> list[Target]:  # noqa: ARG001
    found = []
    for loop, ours in LOOPS.items():
        for point in ("200 a write", "10 a write"):
            against = faster_than(results, point, ours)
            found.append(Target(f"TLS, {point}, {loop}, against Node", against("node"), 1.0, at_least=True))
        against = faster_than(results, "1 a write", ours)
        best = min(filter(None, (against(AIOHTTP), against("aiohttp-reads"))), default=None)
        found.append(Target(f"TLS, 1 a write, {loop}, against the faster aiohttp + json", best, 1.0, at_least=True))
    return found


LIVE_SIZES, QUICK_LIVE_SIZES = (300, 1_000, 3_000), (10, 20, 30)


def live_cases(options: Options) -> Iterator[Case]:
    for size in QUICK_LIVE_SIZES if options.quick else LIVE_SIZES:
        for row in ("enclave", "enclave-trio", AIOHTTP):
            yield concurrency.live_case(row, size, repeats=2, tls=True)


def live_targets(results: Results, options: Options) -> list[Target]:
    return [
        _against_aiohttp(results, f"TLS, CPU per stream, {loop}, {size} streams", (row, size), CPU_MS, ALLOWED[loop])
        for loop, row in LOOPS.items()
        for size in map(label, QUICK_LIVE_SIZES if options.quick else LIVE_SIZES)
    ]


OPENING_SIZES, QUICK_OPENING_SIZES = (300, 5_000), (10, 20)


def _stall_ms(measured: Measured) -> float:
    return 1e3 * number("stall")(measured)


def _own_stall_ms(measured: Measured) -> float:
    return 1e3 * number("stall_without_collections")(measured)


MOST_STALL_MS = 100.0


def opening_cases(options: Options) -> Iterator[Case]:
    for size in QUICK_OPENING_SIZES if options.quick else OPENING_SIZES:
        if size > most_streams():
            continue
        for row in (*OURS, AIOHTTP, *BARE):
            given = {"session_id": IDLE_ID, "streams": size}
            yield case(row, label(size), "opening", given, repeats=2, timeout=300.0, tls=True)


def opening_targets(results: Results, options: Options) -> list[Target]:
    many = label((QUICK_OPENING_SIZES if options.quick else OPENING_SIZES)[-1])
    return [
        Target(
            f"TLS, {many} streams opened at once, {loop}, longest stall of the event loop{but}",
            results.value(row, many, stall),
            MOST_STALL_MS,
            at_least=False,
            form=".0f",
            unit=" ms",
        )
        for loop, row in LOOPS.items()
        for but, stall in (("", _stall_ms), (", without full collections", _own_stall_ms))
    ]


MOST_KB = 45.0


def memory_cases(options: Options) -> Iterator[Case]:
    for row in (*OURS, AIOHTTP):
        small, large = memory.QUICK_SIZES if options.quick else memory.SIZES
        given = {"session_id": IDLE_ID, "small": small, "large": large}
        yield case(row, memory.POINT, "idle", given, repeats=2, tls=True)


def memory_targets(results: Results, options: Options) -> list[Target]:  # noqa: ARG001
    found = []
    for loop, row in LOOPS.items():
        value = results.value(row, memory.POINT, memory.kilobytes)
        what = f"TLS, RSS per idle stream, {loop}"
        found.append(Target(what, value, MOST_KB, at_least=False, form=".1f", unit=" KB"))
    return found


REQUESTS, QUICK_REQUESTS = 2_000, 40


def request_cases(options: Options) -> Iterator[Case]:
    count = QUICK_REQUESTS if options.quick else REQUESTS
    for row in (*OURS, AIOHTTP):
        given = {"session_id": "s-1", "count": count, "connections": requests.CONNECTIONS}
        yield case(row, label(count), "requests", given, timeout=300.0, tls=True)


def request_targets(results: Results, options: Options) -> list[Target]:
    size = label(QUICK_REQUESTS if options.quick else REQUESTS)
    return [_against_aiohttp(results, "TLS, CPU per request, asyncio", ("enclave", size), requests.CPU_US, 1.2)]


CANCELLED, QUICK_CANCELLED = 2_000, 20


def cancel_cases(options: Options) -> Iterator[Case]:
    size = QUICK_CANCELLED if options.quick else CANCELLED
    for row in (*OURS, AIOHTTP):
        yield case(row, label(size), "cancel", {"session_id": IDLE_ID, "streams": size}, timeout=300.0, tls=True)


def cancel_targets(results: Results, options: Options) -> list[Target]:
    size = label(QUICK_CANCELLED if options.quick else CANCELLED)
    left = results.value("enclave", size, number("sockets_left"))
    return [
        _against_aiohttp(results, f"TLS, {size} streams cancelled, asyncio", ("enclave", size), cancelled.CPU_US, 1.5),
        Target(
            f"TLS, {size} streams cancelled, asyncio, sockets left open", left, 0, at_least=False, form=".0f", unit=""
        ),
    ]


def _against_aiohttp(
    results: Results, what: str, cell: tuple[str, str], read: Callable[[Measured], float], bound: float
) -> Target:
    row, size = cell
    value = ratio(results.value(row, size, read), results.value(AIOHTTP, size, read))
    return Target(f"{what}, against aiohttp", value, bound, at_least=False)


BENCHMARKS = (
    Benchmark(
        "tls-stream",
        "One stream over TLS, end to end",
        "Millions of frames a second from a TLS socket to decoded frames. The source makes one TLS record of each "
        f"write, and at one frame a write it is the source that bounds the fastest. {CHAIN}",
        stream_cases,
        [Table("million frames per second", M_FRAMES, ".3f"), Table("client CPU, us per frame", CPU_US, ".2f")],
        stream_targets,
    ),
    Benchmark(
        "tls-concurrency",
        "Many streams at once over TLS",
        f"As without TLS: CPU of the client per stream that is opened, receives {concurrency.WRITES} writes and "
        "ends, its handshake included.",
        live_cases,
        [Table("client CPU, ms per stream", CPU_MS, ".2f"), Table("wall seconds, all streams", number("wall"), ".1f")],
        live_targets,
    ),
    Benchmark(
        "tls-open",
        "Opening streams over TLS",
        "The handshakes apart from the reads: CPU of the client per stream, all opened at the same moment, until each "
        "has given its first frame. All have to open. The stall is the longest time in which nothing else on the event "
        "loop got its turn. Python's garbage collector now and then looks at every object there is, in one go. That "
        "takes the longer the more streams are open, whoever opens them, so the last table leaves that out. The rows "
        "below aiohttp's are no clients: a task, a socket and a TLS object for each stream. A hundred begin at once.",
        opening_cases,
        [
            Table("client CPU, ms per stream", CPU_MS, ".2f"),
            Table("longest stall, ms", _stall_ms, ".0f"),
            Table("longest stall without full collections of garbage, ms", _own_stall_ms, ".0f"),
        ],
        opening_targets,
    ),
    Benchmark(
        "tls-memory",
        "Memory of an idle stream over TLS",
        "Resident memory per stream that has given one frame and waits for more: the slope from 200 to 2,200 open "
        "streams.",
        memory_cases,
        [Table("KB per stream", memory.kilobytes, ".1f")],
        memory_targets,
    ),
    Benchmark(
        "tls-requests",
        "Many requests at once over TLS",
        f"CPU of the client per `GET /sessions/{{id}}`. aiohttp may use {requests.CONNECTIONS} connections. "
        "Ours uses its own default, and so makes more handshakes.",
        request_cases,
        [Table("client CPU, us per request", requests.CPU_US, ".0f")],
        request_targets,
    ),
    Benchmark(
        "tls-cancel",
        "Cancelling open streams over TLS",
        "As without TLS. Each client tells the server by TLS that it closes (close_notify), which is one more write.",
        cancel_cases,
        [
            Table("client CPU, us per stream", cancelled.CPU_US, ".0f"),
            Table("sockets left open", number("sockets_left"), ".0f"),
        ],
        cancel_targets,
    ),
)
