"""The benchmarks, one module each, and those over TLS alone in one. To add one, write a module and list it here."""

from __future__ import annotations

from . import blocking, brake, cancelled, concurrency, decode, imports, memory, named, requests, stream, tls

_MODULES = (decode, stream, concurrency, named, memory, requests, blocking, brake, cancelled, imports)
BENCHMARKS = {benchmark.name: benchmark for benchmark in (*(each.BENCHMARK for each in _MODULES), *tls.BENCHMARKS)}
