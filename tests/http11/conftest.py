"""Leaves no socket behind: every test here ends with as many open sockets as it began with.

These tests run on uvloop too: what reads from a socket there is not asyncio's.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.loops import ASYNCIO, TRIO, UVLOOP
from tests.support.origin import open_sockets


@pytest.fixture(params=[ASYNCIO, TRIO, UVLOOP])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(autouse=True)
def no_socket_is_left_open(request: pytest.FixtureRequest):
    before = open_sockets()
    yield
    if "anyio_backend" in request.fixturenames:
        assert open_sockets() <= before
