"""The examples that are programs run as they stand, and do what they are there to show."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def run(name: str, *arguments: str) -> list[str]:
    """The lines that an example prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", f"examples/{name}", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.guides
def test_the_first_agent_whose_program_passes_wins_and_nothing_is_left_running() -> None:
    lines = run("agents_trio.py")
    reports = [line.split(" | ", 1) for line in lines if " | " in line]
    of_ada = [text for name, text in reports if name.strip() == "ada"]
    assert "NameError" in of_ada[0]
    assert of_ada[1:] == ["exit code 0, and a wrong answer", "passed at attempt 3"]
    assert lines[-1] == "Sessions left running: 0"


@pytest.mark.guides
def test_every_submission_is_graded_and_each_kind_gets_what_it_deserves() -> None:
    lines = run("grade_submissions.py", "--submissions", "60", "--backend", "trio")
    assert lines[:10] == [f"graded {n} of 60" for n in range(6, 61, 6)]
    grades = {name: int(count) for count, name in (re.match(r" +(\d+)  (.+)", line).groups() for line in lines[10:-1])}
    # A submission may be killed for its CPU time or its wall-clock time, whichever the machine spends first.
    assert grades.pop("killed: wall_clock_exceeded", 0) + grades.pop("killed: cpu_exceeded", 0) == 1
    assert grades == {"4 of 4": 18, "2 of 4": 18, "1 of 4": 13, "crashed": 6, "no answer": 4}
    assert lines[-1] == "Sessions left running: 0"


@pytest.mark.guides
def test_the_agent_loop_gets_its_answer_through_the_mcp_server() -> None:
    pytest.importorskip("mcp.server", reason="the extra mcp is not installed")
    lines = run("agent_loop_mcp.py")
    assert lines[-2:] == ["  model | The sum is 24133.", "Sessions left running: 0"]
    assert "  model | No network: 203.0.113.7 is denied. I compute them." in lines
    assert "  model | My code failed: NameError: name 'primes' is not defined" in lines


def test_every_example_is_run_by_a_test_and_named_in_the_guide() -> None:
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    guide = (ROOT / "docs" / "examples.md").read_text()
    examples = [path.name for path in (ROOT / "examples").glob("*.py")]
    assert len(examples) >= 5
    assert [name for name in examples if name not in tests or f"`{name}`" not in guide] == []
