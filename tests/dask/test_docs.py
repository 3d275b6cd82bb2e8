"""The program in docs/dask.md prints what the page says, on a real Dask cluster of processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.programs import PAGES, programs

PAGE = PAGES["docs/dask.md"]
PROGRAMS = programs("docs/dask.md")


def test_the_page_has_one_program() -> None:
    assert len(PROGRAMS) == PAGE.count("```python") == 1


def test_the_program_of_the_page_prints_what_the_page_says(plane, tmp_path: Path) -> None:
    ((program, output),) = PROGRAMS
    path = tmp_path / "grading.py"
    path.write_text(program)
    done = subprocess.run(
        [sys.executable, str(path)],
        env={**os.environ, **plane.environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, output), done.stderr[-4000:]
    assert (plane.created, plane.live) == (4, 0)


def test_what_the_page_says_of_dasks_settings_is_so() -> None:
    from distributed import config  # noqa: PLC0415 - what fails is this test, if Dask has other settings

    assert config["distributed"]["scheduler"]["allowed-failures"] == 3
    assert config["distributed"]["scheduler"]["worker-ttl"] == "5 minutes"
