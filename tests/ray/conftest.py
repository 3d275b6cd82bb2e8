"""A control plane in this process, and drivers of Ray that reach it, in processes of their own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator

import pytest

from tests.support.ray_drivers import Driver, Plane, leaks_of_the_key


@pytest.fixture
def plane() -> Iterator[Plane]:
    plane = Plane()
    plane.start()
    yield plane
    plane.stop()


@pytest.fixture
def driver(plane: Plane) -> Iterator[Callable[..., Driver]]:
    # Not pytest's directory: the path of a socket has 107 bytes at most.
    directory = tempfile.mkdtemp(prefix="er", dir="/tmp")
    started: list[Driver] = []

    def start(case: str, *, address: str | None = None) -> Driver:
        started.append(Driver(case, plane, directory, address))
        return started[-1]

    yield start
    for each in started:
        each.stop()
    assert not leaks_of_the_key(directory)
    shutil.rmtree(directory, ignore_errors=True)
