"""The command `ray`: rows a second and CPU a row of instant sessions, through one process and through actors of Ray's.

The control plane is the source, whose sessions end at once. All ways take turns, round after round, and the median of
each figure counts, so that a machine which is busy with other things is so for all of them.

Only the time from the first batch's begin to the last one's end is measured. Starting a Dataset and its actors takes
seconds, whatever they do then. CPU is that of the client, and not of the source: in the actors, by the clock of their
processes, and in all other processes of Ray's, the driver's included. Of these the least counts and not the median,
because in some rounds Ray starts spare workers meanwhile, which take 0.6 s each.
"""

from __future__ import annotations

import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import anyio
import psutil

from enclave import EnclaveClient, Verdict

from ._process import source

ROWS = 2_000
MAX_CONCURRENCY = 32
BATCHES_AT_ONCE = 4
BATCH_ROWS = 50
ROUNDS = 5
SAMPLE_SECONDS = 0.1

Batch = Mapping[str, Any]


class Figures(NamedTuple):
    """What one way took for all rows."""

    rows_per_second: float
    actors_ms: float
    """CPU of the actors for a row, or of the one process."""
    rays_ms: float
    """CPU of all other processes of Ray's for a row."""


class Lap:
    """A batch in an actor: when it ran, and how much CPU its process had used before and after."""

    def __init__(self) -> None:
        self.began, self.cpu_began = time.time(), time.process_time()

    def onto(self, columns: dict[str, Any]) -> dict[str, Any]:
        lap = {
            "pid": os.getpid(),
            "began": self.began,
            "ended": time.time(),
            "cpu_began": self.cpu_began,
            "cpu_ended": time.process_time(),
        }
        return {**columns, **{name: [value] * len(columns["id"]) for name, value in lap.items()}}


class Nothing:
    """What Ray takes for itself."""

    def __call__(self, batch: Batch) -> dict[str, Any]:
        return Lap().onto({**batch, "verdict": ["succeeded"] * len(batch["id"])})


def _classes() -> tuple[type, type]:
    """`RunCode` with its own event loop, and the same work on the loop that Ray runs an async class on."""
    from enclave.ray import RunCode  # noqa: PLC0415 - the other commands do without Ray

    class OwnLoop(RunCode):
        def __call__(self, batch: Batch) -> dict[str, Any]:
            lap = Lap()
            return lap.onto(super().__call__(batch))

    class RaysLoop(RunCode):
        async def __call__(self, batch: Batch) -> dict[str, Any]:  # type: ignore[override]
            lap = Lap()
            return lap.onto(self._with_columns(batch, await self._map(self._rows_of(batch))))

    return OwnLoop, RaysLoop


class Sampler(threading.Thread):
    """Notes now and then how much CPU Ray's processes have used so far, this one included, but not the noting."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._samples: list[tuple[float, float]] = []
        self._stopping = threading.Event()
        self._used: dict[int, float] = {}
        """By process, those that have ended since included."""

    def run(self) -> None:
        while not self._stopping.is_set():
            self._samples.append((time.time(), self._cpu_seconds() - time.thread_time()))
            self._stopping.wait(SAMPLE_SECONDS)

    def stop(self) -> None:
        self._stopping.set()
        self.join()
        self._samples.append((time.time(), self._cpu_seconds()))

    def between(self, began: float, ended: float) -> float:
        return self._at(ended) - self._at(began)

    def _at(self, moment: float) -> float:
        """Between two samples it is taken to grow evenly."""
        for (earlier, less), (later, more) in zip(self._samples, self._samples[1:], strict=False):
            if earlier <= moment <= later:
                return less + (more - less) * (moment - earlier) / (later - earlier)
        raise ValueError(f"{moment} is not within the samples")

    def _cpu_seconds(self) -> float:
        self._used[os.getpid()] = time.process_time()
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if "benchmarks.source" not in process.cmdline():
                    self._used[process.pid] = sum(process.cpu_times()[:2])
        return sum(self._used.values())


def fan_out() -> Figures:
    async def main() -> list[Verdict]:
        async with EnclaveClient() as client:
            outcomes = await client.map(["x"] * ROWS, max_concurrency=BATCHES_AT_ONCE * MAX_CONCURRENCY)
            return [outcome.verdict for outcome in outcomes]

    cpu, wall = time.process_time(), time.perf_counter()
    verdicts = anyio.run(main)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    _check([str(verdict) for verdict in verdicts])
    return Figures(ROWS / wall, 1e3 * cpu / ROWS, 0.0)


def with_actors(actors: int, of: type, *arguments: Any, **options: Any) -> Callable[[], Figures]:
    import ray.data  # noqa: PLC0415 - the other commands do without Ray

    def measure() -> Figures:
        is_async = of.__name__ == "RaysLoop"
        pool = ray.data.ActorPoolStrategy(
            size=actors, max_concurrent_calls_per_actor=BATCHES_AT_ONCE, enable_true_multi_threading=not is_async
        )
        table = ray.data.range(ROWS, override_num_blocks=ROWS // BATCH_ROWS).map_batches(
            of, batch_size=BATCH_ROWS, compute=pool, fn_constructor_args=arguments, fn_constructor_kwargs=options
        )
        sampler = Sampler()
        sampler.start()
        rows = table.take_all()
        sampler.stop()
        _check([row["verdict"] for row in rows])
        return _figures(rows, sampler)

    return measure


def _figures(rows: list[dict[str, Any]], sampler: Sampler) -> Figures:
    began, ended = min(row["began"] for row in rows), max(row["ended"] for row in rows)
    in_actors = 0.0
    for pid in {row["pid"] for row in rows}:
        laps = [row for row in rows if row["pid"] == pid]
        in_actors += max(lap["cpu_ended"] for lap in laps) - min(lap["cpu_began"] for lap in laps)
    in_all = sampler.between(began, ended)
    return Figures(ROWS / (ended - began), 1e3 * in_actors / ROWS, 1e3 * (in_all - in_actors) / ROWS)


def _check(verdicts: list[str]) -> None:
    succeeded = verdicts.count("succeeded")
    if succeeded != ROWS:
        raise SystemExit(f"{ROWS} rows were asked for, and {succeeded} have succeeded")


def _report(ways: Mapping[str, Callable[[], Figures]]) -> None:
    measured: dict[str, list[Figures]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(ROUNDS):
        # Each begins a round in turn: Ray tidies up after one way while the next one runs.
        for name in names[number % len(names) :] + names[: number % len(names)]:
            measured[name].append(ways[name]())
    print(f"{f'{ROUNDS} rounds of {ROWS:,} rows':34}{'rows/s':>18}{'CPU a row, ms':>20}{'of Ray, ms':>20}")
    for name, each in measured.items():
        rates, actors_ms, rays_ms = zip(*each, strict=True)
        cells = [
            f"{statistics.median(rates):.0f} ({min(rates):.0f}-{max(rates):.0f})",
            f"{statistics.median(actors_ms):.2f} ({min(actors_ms):.2f}-{max(actors_ms):.2f})",
            f"{min(rays_ms):.2f} (-{max(rays_ms):.2f})",
        ]
        print(f"{name:34}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, (18, 20, 20), strict=True)))


def main(arguments: list[str]) -> int:
    if arguments:
        print("usage: python -m benchmarks ray", file=sys.stderr)
        return 2
    import ray  # noqa: PLC0415

    import enclave.ray  # noqa: PLC0415

    with source(["--quota", "100000", "0", "1"]) as base_url:
        os.environ |= {"ENCLAVE_BASE_URL": base_url, "ENCLAVE_API_KEY": "ek_bench_mark", "RAY_USAGE_STATS_ENABLED": "0"}
        # Two actors, and room for the tasks that read.
        ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
        own_loop, rays_loop = _classes()
        options = {"request": lambda _: "x", "max_concurrency": MAX_CONCURRENCY}
        with enclave.ray.run(wall_clock_ms=60_000, quiet_seconds=1) as run:
            _report(
                {
                    "fan_out, no Ray": fan_out,
                    "one actor, RunCode": with_actors(1, own_loop, run, **options),
                    "one actor, on Ray's loop": with_actors(1, rays_loop, run, **options),
                    "two actors, RunCode": with_actors(2, own_loop, run, **options),
                    "two actors that do nothing": with_actors(2, Nothing),
                }
            )
    return 0
