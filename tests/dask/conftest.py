"""A control plane in this process, and the program of docs/dask.md with other rows, in processes of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.drivers import Driver, Plane
from tests.support.programs import programs


@pytest.fixture
def plane() -> Iterator[Plane]:
    plane = Plane()
    plane.start()
    yield plane
    plane.stop()


@pytest.fixture
def driver(plane: Plane, tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    ((program, _),) = programs("docs/dask.md")
    (tmp_path / "grading.py").write_text(program)
    driver = shutil.copy(Path(__file__).parent / "driver.py", tmp_path)
    started: list[Driver] = []

    def start(case: str, **environment: str) -> Driver:
        started.append(Driver(Path(driver), case, plane, environment))
        return started[-1]

    yield start
    for each in started:
        each.stop()
