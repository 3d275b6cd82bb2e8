"""The command `run`: measure, print, and keep the results."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from . import _draw, _report
from ._environment import environment
from ._model import Options
from ._runner import run
from .suite import BENCHMARKS


def main(arguments: list[str]) -> int:
    """Exit status 0; 1 if a contender crashed or, with --check, a target was missed."""
    chosen = _parser().parse_args(arguments)
    options = Options(quick=chosen.quick, full=chosen.full, repeats=chosen.repeats)
    stored: _report.Document = {
        "taken": datetime.now(UTC).date().isoformat(),
        "environment": environment(),
        "benchmarks": {},
    }
    _print_environment(stored)
    for name in chosen.only or BENCHMARKS:
        benchmark = BENCHMARKS[name]
        found = _report.document(benchmark, run(benchmark, options, _progress), options)
        stored["benchmarks"][name] = found
        print(_report.text(found), flush=True)
    _keep(stored, chosen)
    return _status(stored, check=chosen.check)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__, epilog="Others: report, soak.")
    parser.add_argument("--only", action="append", choices=BENCHMARKS, metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to test the harness; figures mean nothing")
    parser.add_argument("--full", action="store_true", help="also what takes minutes because a contender is quadratic")
    parser.add_argument("--repeats", type=int, metavar="N", help="instead of each benchmark's own number")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    parser.add_argument("--check", action="store_true", help="exit status 1 when a target is missed")
    parser.add_argument("--write-readme", action="store_true", help="also put the results into benchmarks/README.md")
    return parser


def _print_environment(stored: _report.Document) -> None:
    for name, value in stored["environment"].items():
        print(f"{name}: {value}")
    print(flush=True)


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _keep(stored: _report.Document, chosen: argparse.Namespace) -> None:
    """Write what was asked for. The results file is left alone by a quick run, and completed by a partial one."""
    if chosen.json:
        chosen.json.write_text(_dump(stored))
    if chosen.quick:
        return
    if chosen.only and _draw.RESULTS.exists():
        stored = _completed(json.loads(_draw.RESULTS.read_text()), stored)
    _draw.RESULTS.write_text(_dump(stored))
    _draw.draw(stored, write_readme=chosen.write_readme)


def _completed(before: _report.Document, now: _report.Document) -> _report.Document:
    """Results taken before, with the new ones in their places; only results of one environment stand together."""
    if before["environment"] != now["environment"]:
        print("the environment has changed: the results file now holds this run alone", file=sys.stderr)
        return now
    merged = before["benchmarks"] | now["benchmarks"]
    return now | {"benchmarks": {name: merged[name] for name in BENCHMARKS if name in merged}}


def _dump(stored: _report.Document) -> str:
    return json.dumps(stored, indent=1) + "\n"


def _status(stored: _report.Document, *, check: bool) -> int:
    found = stored["benchmarks"].values()
    crashed = any(one["crashed"] for one in found)
    missed = any(target["failed"] for one in found for target in one["targets"])
    return int(crashed or (check and missed))
