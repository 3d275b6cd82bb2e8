"""Starting the source and one contender, each in a fresh process, and taking the contender's one line of JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ._model import Case, Measured
from .contenders import CONTENDERS, NODE_DIR

ROOT = Path(__file__).parent.parent
STOP_SECONDS = 10.0


class CrashError(Exception):
    """A contender ended without a measurement."""


@contextmanager
def source(prepare: Sequence[str] = ()) -> Iterator[str]:
    """The base URL of a source process that has built the bytes of these sessions; it ends with the block."""
    command = [sys.executable, "-m", "benchmarks.source", *prepare]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        if not port:
            raise CrashError("the source did not start")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.communicate(timeout=STOP_SECONDS)  # closes its standard input, at which it ends


def output_of(command: Sequence[str], timeout: float) -> str:
    """Run a command to its end.

    Raises:
        CrashError: it failed or took longer than `timeout` seconds.
    """
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise CrashError(f"took longer than {timeout:.0f} s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        errors = [line for line in lines if "Error" in line and not line.startswith(" ")]
        raise CrashError((errors or lines)[-1].strip(" |+-").replace(f"{ROOT}/", ""))
    return done.stdout


def measure(contender: str, job: str, parameters: dict[str, Any], prepare: Sequence[str], timeout: float) -> Measured:
    """One measurement of one contender, with a source of its own."""
    runs_in_node = CONTENDERS[contender].adapter == "node"
    command = ["node", str(NODE_DIR / "bench.mjs")] if runs_in_node else [sys.executable, "-m", "benchmarks.contenders"]
    with source(prepare) as base_url:
        request = {"contender": contender, "base_url": base_url, "job": job, "parameters": parameters}
        measured: Measured = json.loads(output_of([*command, json.dumps(request)], timeout))
    return measured


def case(
    contender: str,
    point: str,
    job: str,
    parameters: dict[str, Any],
    *,
    prepare: Sequence[str] = (),
    repeats: int = 3,
    timeout: float = 120.0,
) -> Case:
    """A cell that is measured by one contender process for each repeat."""
    return Case(contender, point, lambda: measure(contender, job, parameters, prepare, timeout), repeats)
