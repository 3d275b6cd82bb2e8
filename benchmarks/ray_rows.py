"""The command `ray`: rows a second and CPU a row of instant sessions, through one process and through actors of Ray's.

The control plane is the source, whose sessions end at once. Each way runs a few rows and many rows, in turn. A few rows
show what it takes to start a Dataset and its actors. That is in the figures of many rows too.
CPU is that of the client: this process, and Ray's scheduler with all its workers. A class that does nothing shows Ray's
own part.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import psutil

from enclave import EnclaveClient, Verdict

from ._process import source

FEW, MANY = 100, 2_000
MAX_CONCURRENCY = 32
BATCH_ROWS = 50
ROUNDS = 2


class Nothing:
    """What Ray takes for itself."""

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        return {**batch, "verdict": ["succeeded"] * len(batch["id"])}


def _cpu_seconds() -> float:
    """Of this process, Ray's scheduler on this node, and its workers, those that have ended included."""
    total = 0.0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            command = " ".join(process.cmdline())
            if process.pid == os.getpid() or "raylet/raylet" in command or command.startswith("ray::"):
                total += sum(process.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return total


def fan_out(rows: int) -> list[str]:
    async def main() -> list[str]:
        async with EnclaveClient() as client:
            outcomes = await client.map(["x"] * rows, max_concurrency=4 * MAX_CONCURRENCY)
            return [str(outcome.verdict) for outcome in outcomes]

    return anyio.run(main)


def with_actors(run: Any, actors: int) -> Callable[[int], list[str]]:
    import ray.data  # noqa: PLC0415 - the other commands do without Ray

    from enclave.ray import RunCode  # noqa: PLC0415

    def measure(rows: int) -> list[str]:
        options: dict[str, Any] = {}
        if run is not None:
            options = {
                "fn_constructor_args": (run,),
                "fn_constructor_kwargs": {"request": lambda _: "x", "max_concurrency": MAX_CONCURRENCY},
            }
        pool = ray.data.ActorPoolStrategy(
            size=actors, max_concurrent_calls_per_actor=4, enable_true_multi_threading=True
        )
        table = ray.data.range(rows, override_num_blocks=rows // BATCH_ROWS)
        table = table.map_batches(
            RunCode if run is not None else Nothing, batch_size=BATCH_ROWS, compute=pool, **options
        )
        return [row["verdict"] for row in table.take_all()]

    return measure


def _measure(way: Callable[[int], list[str]], rows: int) -> tuple[float, float]:
    cpu, wall = _cpu_seconds(), time.perf_counter()
    verdicts = way(rows)
    wall, cpu = time.perf_counter() - wall, _cpu_seconds() - cpu
    if verdicts != [Verdict.SUCCEEDED] * rows:
        raise SystemExit(f"{rows} rows were asked for, and {verdicts.count(Verdict.SUCCEEDED)} have succeeded")
    return wall, cpu


def _report(ways: Mapping[str, Callable[[int], list[str]]]) -> None:
    """Run each way with few and many rows, round after round. The smallest of each counts."""
    best: dict[tuple[str, int], list[float]] = {}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            for rows in (FEW, MANY):
                measured = _measure(way, rows)
                before = best.setdefault((name, rows), [*measured])
                best[name, rows] = [min(pair) for pair in zip(before, measured, strict=True)]
    for name in ways:
        few, (wall, cpu) = best[name, FEW], best[name, MANY]
        print(f"{name:34}{few[0]:13.1f}{wall:13.1f}{MANY / wall:9.0f}{1e3 * cpu / MANY:16.2f}", flush=True)


def main(arguments: list[str]) -> int:
    if arguments:
        print("usage: python -m benchmarks ray", file=sys.stderr)
        return 2
    import ray  # noqa: PLC0415

    import enclave.ray  # noqa: PLC0415

    print(f"{'':34}{f'{FEW:,} rows, s':>13}{f'{MANY:,} rows, s':>13}{'rows/s':>9}{'CPU a row, ms':>16}")
    with source(["--quota", "100000", "0", "1"]) as base_url:
        os.environ |= {"ENCLAVE_BASE_URL": base_url, "ENCLAVE_API_KEY": "ek_bench_mark", "RAY_USAGE_STATS_ENABLED": "0"}
        _report({"fan_out, no Ray": fan_out})
        # Two actors, and room for the tasks that read.
        ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
        with enclave.ray.run(wall_clock_ms=60_000, quiet_seconds=1) as run:
            _report(
                {
                    "Ray, one actor": with_actors(run, 1),
                    "Ray, two actors": with_actors(run, 2),
                    "Ray, two actors that do nothing": with_actors(None, 2),
                }
            )
    return 0
