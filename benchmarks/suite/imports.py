"""What `import enclave` costs, and what it brings in."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from functools import cache
from importlib import metadata

from benchmarks._model import Benchmark, Case, Measured, Options, Results, Table, Target, per, ratio
from benchmarks._process import output_of

POINT = "fresh interpreter"
REPEATS, QUICK_REPEATS = 20, 3
TIMEOUT = 60.0
DISTRIBUTION = "enclave-sdk"
WALL_MS = per("wall", "imports", 1e3)
SCRIPT = """
import sys, time
before = set(sys.modules)
wall, cpu = time.perf_counter(), time.process_time()
{statement}
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
modules = sorted(set(sys.modules) - before)
import json
print(json.dumps({{"wall": wall, "cpu": cpu, "imports": 1, "modules": modules}}))
"""


def cases(options: Options) -> Iterable[Case]:
    repeats = QUICK_REPEATS if options.quick else REPEATS
    return [Case("import enclave", POINT, _ours, repeats), Case("import httpx", POINT, _httpx, repeats)]


def _import(statement: str) -> tuple[Measured, list[str]]:
    """Run an import in a fresh interpreter; the second value names all that came in."""
    printed = json.loads(output_of([sys.executable, "-c", SCRIPT.format(statement=statement)], TIMEOUT))
    found: list[str] = printed.pop("modules")
    return printed, found


def _httpx() -> Measured:
    return _import("import httpx")[0]


def _ours() -> Measured:
    measured, modules = _import("import enclave")
    ours_alone = sorted({*modules} - _of_dependencies())
    return measured | {"foreign": foreign(ours_alone, requirements(DISTRIBUTION))}


@cache
def _of_dependencies() -> frozenset[str]:
    """What our dependencies import by themselves: httpx's command line and anyio bring in packages where installed."""
    direct = set(map(_normal, _needed(DISTRIBUTION)))
    owners = metadata.packages_distributions()
    packages = [
        name for name, owned_by in owners.items() if direct & set(map(_normal, owned_by)) and name.isidentifier()
    ]
    names = ", ".join(packages)
    # anyio loads its parts when they are first asked for.
    touch_all = f"import {names}\nfor package in [{names}]: [getattr(package, name) for name in dir(package)]"
    return frozenset(_import(touch_all)[1])


def _needed(distribution: str) -> list[str]:
    """The names of what a distribution needs without any extra."""
    lines = metadata.requires(distribution) or []
    return [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in lines if not re.search(r";.*\bextra\b", line)]


def requirements(distribution: str, seen: set[str] | None = None) -> set[str]:
    """A distribution and, step by step, all it needs without any extra, by their normal names."""
    seen = set() if seen is None else seen
    if _normal(distribution) in seen:
        return seen
    try:
        needed = _needed(distribution)
    except metadata.PackageNotFoundError:
        return seen  # needed under a condition that does not hold here
    seen.add(_normal(distribution))
    for name in needed:
        requirements(name, seen)
    return seen


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def foreign(modules: list[str], allowed: set[str]) -> list[str]:
    """Those of `modules` that belong to the simulator or to a distribution that is not `allowed`."""
    owners = metadata.packages_distributions()

    def is_foreign(module: str) -> bool:
        owned_by = {_normal(owner) for owner in owners.get(module.partition(".")[0], [])}
        return bool(owned_by and not owned_by & allowed) or f"{module}.".startswith("enclave.simulator.")

    return [module for module in modules if is_foreign(module)]


def _count(measured: Measured) -> float:
    return len(measured.get("foreign", ()))  # type: ignore[arg-type]


def targets(results: Results, options: Options) -> list[Target]:  # noqa: ARG001
    ours, theirs = (results.value(row, POINT, WALL_MS) for row in ("import enclave", "import httpx"))
    brought_in = results.value("import enclave", POINT, _count)
    return [
        Target("import enclave against import httpx", ratio(ours, theirs), 1.25, at_least=False),
        Target("modules of the simulator or an extra", brought_in, 0, at_least=False, form=".0f", unit=""),
    ]


BENCHMARK = Benchmark(
    "import",
    "Importing",
    "Milliseconds that the import takes in a fresh interpreter, and how many of the modules it brings in belong to the "
    "simulator or to a package that only an extra asks for.",
    cases,
    [Table("ms", WALL_MS, ".1f"), Table("modules of the simulator or an extra", _count, ".0f")],
    targets,
)
