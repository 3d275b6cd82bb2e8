"""The benchmarks, one module each. To add one, write a module with a `BENCHMARK` and list it here."""

from __future__ import annotations

from . import brake, cancelled, concurrency, decode, imports, memory, requests, stream

BENCHMARKS = {
    module.BENCHMARK.name: module.BENCHMARK
    for module in (decode, stream, concurrency, memory, requests, brake, cancelled, imports)
}
