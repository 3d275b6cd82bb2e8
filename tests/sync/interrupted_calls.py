"""A program for `test_interrupts`: Ctrl-C at one call after the other within the blocking client, each in a new client.

A signal handler runs where Python begins a function, or comes back from one that is not Python's. It prints the places
at which that went wrong, and how.
"""

from __future__ import annotations

import itertools
import logging
import signal
import sys
from pathlib import Path
from types import FrameType

import enclave._sync
from enclave import SyncEnclaveClient
from tests.cancellation.interrupted_lines import Warnings
from tests.support.stepping_transport import ScriptedTransport

HOME = Path(enclave._sync.__file__).parent


def run(client: SyncEnclaveClient) -> None:
    """From the moment that the call gives the session, that is the caller's business."""
    session = None
    try:
        session = client.run("pass")
    finally:
        sys.setprofile(None)
        if session is not None:
            session.teardown()


def session(client: SyncEnclaveClient) -> None:
    with client.session("pass") as session:
        session.result()


def stream(client: SyncEnclaveClient) -> None:
    for _ in client.stream("kept"):
        pass


def fan_out(client: SyncEnclaveClient) -> None:
    with client.fan_out(["pass"]) as outcomes:
        for _ in outcomes:
            pass


class Presser:
    """Presses Ctrl-C when so many calls were made."""

    def __init__(self, calls: int) -> None:
        self.place: str | None = None
        self._left = calls

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        if self.place is not None or event not in ("call", "c_return") or _is_finalized(frame):
            return
        if Path(frame.f_code.co_filename).parent == HOME:
            self._left -= 1
            if self._left == 0:
                name = Path(frame.f_code.co_filename).name
                self.place = f"{name}:{frame.f_lineno} {event} {frame.f_code.co_qualname}"
                signal.raise_signal(signal.SIGINT)


def _is_finalized(frame: FrameType | None) -> bool:
    """Whether this is called by the garbage collector, which shows an interrupt to nobody."""
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


def press(calls: int, action: str) -> tuple[str | None, str]:
    """Where Ctrl-C was pressed, if the action was that long, and what went wrong."""
    transport = ScriptedTransport()
    transport.sessions.add("kept")
    presser = Presser(calls)
    problem = "the interrupt was swallowed"
    warnings: list[str] = []
    logging.getLogger("enclave").handlers = [Warnings(warnings)]
    with SyncEnclaveClient("http://127.0.0.1:1", transport=transport, retry=None) as client:
        sys.setprofile(presser)
        try:
            globals()[action](client)
        except KeyboardInterrupt:
            problem = ""
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            problem = repr(error)
        finally:
            sys.setprofile(None)
    if warnings:
        problem += f" warned: {warnings}"
    if transport.sessions != {"kept"}:
        problem += " sessions are left"
    if transport.open_bodies or transport.in_flight:
        problem += " responses are left"
    return presser.place, problem


if __name__ == "__main__":
    for number in itertools.count(1):
        place, problem = press(number, *sys.argv[1:])
        if place is None:
            break
        if problem:
            sys.stdout.write(f"{place} {problem}\n")
    sys.stdout.write(f"{number - 1} calls\n")
