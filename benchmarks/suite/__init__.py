"""The benchmarks, one module each, and those over TLS in one. To add one, write a module and list it here."""

from __future__ import annotations

from . import brake, cancelled, concurrency, decode, imports, memory, requests, stream, tls

_WITHOUT_TLS = [
    module.BENCHMARK for module in (decode, stream, concurrency, memory, requests, brake, cancelled, imports)
]
BENCHMARKS = {benchmark.name: benchmark for benchmark in (*_WITHOUT_TLS, *tls.BENCHMARKS)}
