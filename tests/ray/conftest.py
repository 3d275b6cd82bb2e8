"""A control plane in this process, and drivers of Ray that reach it, in processes of their own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.drivers import KEY, Driver, Plane

PROGRAM = Path(__file__).parent / "driver.py"


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
        environment = {"RAY_TMPDIR": directory, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
        if address is not None:
            environment["RAY_ADDRESS"] = address
        started.append(Driver(PROGRAM, case, plane, environment))
        return started[-1]

    yield start
    for each in started:
        each.stop()
    assert not leaks_of_the_key(directory)
    shutil.rmtree(directory, ignore_errors=True)


def leaks_of_the_key(directory: str) -> list[str]:
    """Files of Ray's, logs among them, that hold the key."""
    found = []
    for path in Path(directory).rglob("*"):
        with suppress(FileNotFoundError):  # its last processes tidy up
            if path.is_file() and KEY.encode() in path.read_bytes():
                found.append(str(path))
    return found
