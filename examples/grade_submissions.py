"""Grades 200 submissions to an exercise, each in a session of its own, with a progress bar.

The progress bar is Rich's on a terminal (`pip install rich`), else there are plain lines. Against the embedded
simulator, or the control plane that ENCLAVE_BASE_URL names:

    python examples/grade_submissions.py [--submissions 200] [--max-concurrency 8] [--backend asyncio|trio]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import cycle, islice

import anyio

from enclave import CreateSessionRequest, EgressPolicy, EnclaveClient, Errored, Outcome, SessionLimits, Verdict

LIMITS = SessionLimits(memory_mb=128, wall_clock_ms=10_000, cpu_millis=100, pids=8)  # a second of CPU time
CASES: list[tuple[list[int], float]] = [([5], 5), ([3, 1, 2], 2), ([4, 1, 3, 2], 2.5), ([7, 7, 1, 1], 4)]

RIGHT = (
    "def median(xs):\n    xs, h = sorted(xs), len(xs) // 2\n    return xs[h] if len(xs) % 2 else sum(xs[h-1:h+1]) / 2"
)
SLOPPY = "def median(xs):\n    return sorted(xs)[len(xs) // 2]"
UNSORTED = "def median(xs):\n    return xs[len(xs) // 2]"
BROKEN = "def median(xs)\n    return 0"
ENDLESS = "def median(xs):\n    while True:\n        pass"
CHEAT = "enclave.result('all tests passed')\nimport os\nos._exit(0)"
SUBMISSIONS = [RIGHT] * 90 + [SLOPPY] * 50 + [UNSORTED] * 36 + [BROKEN] * 12 + [CHEAT] * 10 + [ENDLESS] * 2

# Only the inputs go into the sandbox. The expected outputs stay here, where no submission can read or change them, and
# what comes back is an answer to compare and never a verdict to believe.
HARNESS = """
import json
enclave.result([median(case) for case in json.loads({cases!r})])
"""


def submissions(count: int) -> Iterator[CreateSessionRequest]:
    """One request after the other, made as the fan-out asks for it."""
    shuffled = random.Random(3).sample(SUBMISSIONS, len(SUBMISSIONS))  # noqa: S311 - the same in every run
    harness = HARNESS.format(cases=json.dumps([case for case, _ in CASES]))
    for number, code in enumerate(islice(cycle(shuffled), count)):
        yield CreateSessionRequest(
            code=f"{code}\n{harness}",
            limits=LIMITS,
            egress=EgressPolicy.deny_all(),
            labels={"student": f"s{number:03}"},
        )


def grade(outcome: Outcome[list[float]]) -> str:
    if outcome.verdict is Verdict.MISTYPED:  # the submission's doing
        return "no answer"
    if isinstance(outcome, Errored):  # no fault of the submission's: to be run again
        return "not graded"
    result = outcome.result
    if outcome.verdict is Verdict.KILLED:
        return f"killed: {result.kill_reason}"
    if outcome.verdict is Verdict.FAILED:
        return "crashed"
    if len(result.value) != len(CASES):
        return "no answer"
    right = sum(answer == expected for answer, (_, expected) in zip(result.value, CASES, strict=True))
    return f"{right} of {len(CASES)}"


@contextmanager
def progress(total: int) -> Iterator[Callable[[], None]]:
    """A function to call for each one that is done."""
    try:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn  # noqa: PLC0415
    except ModuleNotFoundError:
        yield plain_progress(total)
        return
    if not sys.stdout.isatty():
        yield plain_progress(total)
        return
    with Progress("grading", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)


def plain_progress(total: int) -> Callable[[], None]:
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if done % max(1, total // 10) == 0 or done == total:
            print(f"graded {done} of {total}", flush=True)

    return advance


@asynccontextmanager
async def connect() -> AsyncGenerator[EnclaveClient]:
    if os.environ.get("ENCLAVE_BASE_URL"):
        async with EnclaveClient() as enclave:
            yield enclave
        return
    from enclave.simulator import Simulator  # noqa: PLC0415 - an extra, needed only here

    async with (
        Simulator().serve() as simulator,
        EnclaveClient(simulator.base_url, api_key=simulator.api_key) as enclave,
    ):
        yield enclave


async def main(count: int, max_concurrency: int) -> None:
    grades: Counter[str] = Counter()
    async with connect() as enclave:
        with progress(count) as advance:
            requests = submissions(count)
            async with enclave.fan_out(requests, max_concurrency=max_concurrency, type=list[float]) as outcomes:
                async for outcome in outcomes:
                    grades[grade(outcome)] += 1
                    advance()
        left = [session.id for session in await enclave.list() if session.phase != "torn_down"]
    for name, number in sorted(grades.items()):
        print(f"{number:5}  {name}")
    print(f"Sessions left running: {len(left)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--submissions", type=int, default=200)
    parser.add_argument("--max-concurrency", type=int, default=8)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio", help="the event loop to run on")
    options = parser.parse_args()
    anyio.run(main, options.submissions, options.max_concurrency, backend=options.backend)
