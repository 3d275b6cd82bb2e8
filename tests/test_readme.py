"""The README works where a package index shows it, and the program that `make demo` runs shows what the README says."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
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


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text().replace("\\\n\t", "")
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()
    listed = re.findall(r"^([a-z-]+):.*## \S", makefile, re.MULTILINE)
    assert listed == targets
    assert {line.partition(":")[0] for line in re.findall(r"^[a-z-]+:", makefile, re.MULTILINE)} == set(listed)


def as_an_index_shows_it(readme: str) -> str:
    """What the build makes of the README, by the substitutions in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for substitution in project["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        readme = re.sub(substitution["pattern"], substitution["replacement"], readme)
    return readme


def outside_of_fences(text: str) -> tuple[str, list[str]]:
    """The prose, and the blocks of code between it."""
    parts = re.split(r"^(```.*?^```)$", text, flags=re.DOTALL | re.MULTILINE)
    return "".join(parts[::2]), parts[1::2]


def test_a_package_index_shows_no_link_and_no_picture_that_leads_nowhere() -> None:
    readme = (ROOT / "README.md").read_text()
    prose, programs = outside_of_fences(as_an_index_shows_it(readme))
    assert re.findall(r"\]\((?!https?://)[^)]*\)|<(?:img|source|picture)\b", prose) == []
    assert programs == outside_of_fences(readme)[1]
