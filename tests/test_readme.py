"""The program that `make demo` runs shows what the README says it shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments], capture_output=True, text=True, timeout=60, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_quickstart_shows_the_main_job_on_either_loop(backend: str) -> None:
    shown = run("examples/quickstart.py", "--backend", backend)
    for line in (
        "stdout | prime: 29",
        "result | Primes(primes=[2, 3, 5, 7, 11, 13, 17, 19, 23, 29], total=129)",
        "says hello",
        "audit | egress_denied 169.254.169.254",
        "killed | wall_clock_exceeded",
        "Sessions left running: 0",
    ):
        assert line in shown
