"""The event loops that tests run on, as parameters of the fixture `anyio_backend`."""

from __future__ import annotations

import asyncio
import math
import sys

import pytest


def _patient_loop() -> asyncio.AbstractEventLoop:
    """A loop whose debug mode does not log slow steps: which ones are slow depends on what else the machine does."""
    loop = asyncio.new_event_loop()
    loop.slow_callback_duration = math.inf
    return loop


ASYNCIO = pytest.param(("asyncio", {"debug": True, "loop_factory": _patient_loop}), id="asyncio")
TRIO = pytest.param(("trio", {}), id="trio")
UVLOOP = pytest.param(
    ("asyncio", {"use_uvloop": True}),
    id="uvloop",
    marks=pytest.mark.skipif(sys.platform == "win32", reason="there is no uvloop on Windows"),
)
