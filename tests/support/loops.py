"""The event loops that tests run on, as parameters of the fixture `anyio_backend`, and the time that passes on them."""

from __future__ import annotations

import asyncio
import selectors
import sys
import threading
import time
from typing import Any

import pytest
import trio

GRACE_SECONDS = 0.001


class PatientClock(trio.abc.Clock, trio.abc.Instrument):
    """Time that stands still while the machine runs something else.

    It is what the loop's thread has computed and what the loop has slept. A sleep counts for no longer than was asked
    for, however late the machine ends it. So a limit of 0.1 s is enough for what a server in the same loop answers at
    once, on a machine that takes a second to come back to this process too.

    Bytes may have come within a sleep that ended late, and the time may be over as well. Then the bytes were first: a
    deadline is reached only by a look for bytes that takes no longer than this clock's grace.
    """

    def __init__(self) -> None:
        self._slept = 0.0
        self._asleep_since = 0.0

    def current_time(self) -> float:
        return time.thread_time() + self._slept

    def falls_asleep(self) -> None:
        self._asleep_since = time.monotonic()

    def wakes_up(self, asked: float | None) -> None:
        """Count the sleep that ends now. `asked` is how long it was to take at most, in seconds."""
        slept = time.monotonic() - self._asleep_since
        if asked is not None and slept >= asked:
            # Twice, so that what is left of a sleep that ended late counts in full, although no float is exact.
            slept = asked - GRACE_SECONDS if asked > 2 * GRACE_SECONDS else max(0.0, asked)
        self._slept += slept

    # How Trio uses it.

    def start_clock(self) -> None:
        pass

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return deadline - self.current_time()

    def before_io_wait(self, timeout: float) -> None:
        self.falls_asleep()

    def after_io_wait(self, timeout: float) -> None:
        self.wakes_up(timeout)


class PatientSelector(selectors.DefaultSelector):
    """How asyncio uses it."""

    def __init__(self, clock: PatientClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._clock.falls_asleep()
        try:
            return super().select(timeout)
        finally:
            self._clock.wakes_up(timeout)


class PatientLoop(asyncio.SelectorEventLoop):
    """On a patient clock. Like asyncio's debug mode, it refuses a call of another thread.

    The debug mode itself takes half as long again, because it notes the stack at each step.
    """

    def __init__(self) -> None:
        self._patient_clock = PatientClock()
        self._thread = threading.get_ident()
        super().__init__(PatientSelector(self._patient_clock))

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        if threading.get_ident() != self._thread:
            raise RuntimeError("call_soon from another thread, which would not wake the loop")
        return super().call_soon(callback, *args, context=context)

    def time(self) -> float:
        return self._patient_clock.current_time()


def _trio_options() -> dict[str, Any]:
    clock = PatientClock()
    return {"clock": clock, "instruments": [clock]}


ASYNCIO = pytest.param(("asyncio", {"loop_factory": PatientLoop}), id="asyncio")
TRIO = pytest.param(("trio", _trio_options()), id="trio")
UVLOOP = pytest.param(
    ("asyncio", {"use_uvloop": True}),
    id="uvloop",
    marks=pytest.mark.skipif(sys.platform == "win32", reason="there is no uvloop on Windows"),
)
