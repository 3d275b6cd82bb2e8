"""The programs in docs/ray.md print what the page says, on a real Ray."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import pytest

from tests.support.programs import PAGES, programs

PAGE = PAGES["docs/ray.md"]
PROGRAMS = programs("docs/ray.md")


def test_the_page_has_programs() -> None:
    assert len(PROGRAMS) == PAGE.count("```python") == 2


@pytest.mark.parametrize(("program", "output"), PROGRAMS, ids=["grader", "actor"])
def test_a_program_of_the_page_prints_what_the_page_says(plane, program, output) -> None:
    with tempfile.TemporaryDirectory(prefix="er", dir="/tmp", ignore_cleanup_errors=True) as directory:
        environment = {
            **os.environ,
            **plane.environment,
            "RAY_TMPDIR": directory,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "disabled",
        }
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    assert (done.returncode, done.stdout) == (0, output), done.stderr[-4000:]
    assert plane.live == 0
