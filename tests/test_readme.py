"""The README's programs run as they stand, and print what it says they print."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL)


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments], capture_output=True, text=True, timeout=60, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_every_python_block_of_the_readme_is_followed_by_its_output() -> None:
    assert len(PROGRAMS) == README.count("```python\n") > 0


@pytest.mark.parametrize(("program", "output"), PROGRAMS, ids=range(len(PROGRAMS)))
def test_a_program_of_the_readme_prints_what_the_readme_says(program: str, output: str) -> None:
    assert run("-c", program) == output


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


def test_what_the_readme_links_to_exists() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
