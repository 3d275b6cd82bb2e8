"""Leaves no socket behind: every test here ends with as many open descriptors as it began with."""

from __future__ import annotations

import psutil
import pytest


@pytest.fixture(autouse=True)
def no_socket_is_left_open(request: pytest.FixtureRequest):
    before = psutil.Process().num_fds()
    yield
    if "anyio_backend" in request.fixturenames:
        assert psutil.Process().num_fds() <= before
