"""Running a benchmark: all points and contenders in turn, round after round, so that a busy minute hits all alike."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from ._model import Benchmark, Case, Options, Results
from ._process import CrashError
from .contenders import CONTENDERS


def run(benchmark: Benchmark, options: Options, progress: Callable[[str], None]) -> Results:
    """Measure all cells of a benchmark. A contender that crashes is recorded, and not tried again at that point."""
    results = Results()
    points: dict[str, list[Case]] = {}
    for case in benchmark.cases(options):
        results.order.append((case.row, case.point))
        if _can_run(case, results):
            points.setdefault(case.point, []).append(case)
    rounds = max((_repeats(case, options) for cases in points.values() for case in cases), default=0)
    for repeat in range(rounds):
        for cases in points.values():
            _run_point(cases, repeat, options, results, lambda line: progress(f"{benchmark.name}: {line}"))
    return results


def _can_run(case: Case, results: Results) -> bool:
    contender = CONTENDERS.get(case.row)
    reason = contender.missing() if contender else None
    if reason:
        results.skipped[case.row] = reason
    return reason is None


def _run_point(
    cases: list[Case], repeat: int, options: Options, results: Results, progress: Callable[[str], None]
) -> None:
    for case in cases:
        if repeat < _repeats(case, options) and (case.row, case.point) not in results.crashed:
            started = time.monotonic()
            _run_case(case, results)
            seconds = time.monotonic() - started
            progress(f"{case.point}, {case.row}, repeat {repeat + 1} ({seconds:.1f} s)")


def _repeats(case: Case, options: Options) -> int:
    return options.repeats or (1 if options.quick else case.repeats)


def _run_case(case: Case, results: Results) -> None:
    try:
        results.add(case.row, case.point, case.run())
    except CrashError as error:
        results.crashed[case.row, case.point] = str(error)
        results.cells.pop((case.row, case.point), None)
        print(f"{case.row} crashed at {case.point}: {error}", file=sys.stderr)
