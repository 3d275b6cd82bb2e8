"""A program for `test_interrupt`: presses Ctrl-C at one line of the SDK after the other, each time in a new event loop.

It prints the lines at which that went wrong, and how.
"""

from __future__ import annotations

import itertools
import logging
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import anyio.lowlevel

import enclave
from enclave import EnclaveClient
from tests.support.stepping_transport import ScriptedTransport

HOME = Path(enclave.__file__).parent
NAMES = ("_client.py", "_create.py", "_fan_out.py", "_groups.py", "_loop.py", "_owned_task.py", "_session.py")
FILES = {str(HOME / name) for name in (*NAMES, "_tasks.py", "_streams/_stream.py")}


async def run(client: EnclaveClient) -> None:
    """From the moment that the call gives the session, that is the caller's business."""
    session = None
    try:
        session = await client.run("pass")
        await anyio.lowlevel.checkpoint()
    finally:
        sys.settrace(None)
        if session is not None:
            with anyio.CancelScope(shield=True):
                await session.teardown()


async def session(client: EnclaveClient) -> None:
    async with client.session("pass") as session:
        await session.result()


async def stream(client: EnclaveClient) -> None:
    async with client.stream("kept") as frames:
        async for _ in frames:
            pass


async def fan_out(client: EnclaveClient) -> None:
    async with client.fan_out(["pass"]) as outcomes:
        async for _ in outcomes:
            pass


class Presser:
    """Presses Ctrl-C when so many lines were run."""

    def __init__(self, lines: int) -> None:
        self.place: str | None = None
        self._left = lines

    def __call__(self, frame: FrameType, event: str, _: object) -> Any:
        if self.place is not None or frame.f_code.co_filename not in FILES:
            return None
        if event == "line":
            self._left -= 1
            if self._left == 0:
                self.place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_qualname}"
                signal.raise_signal(signal.SIGINT)
        return self


class Warnings(logging.Handler):
    """Keeps what is logged: an interrupt that leaves nothing behind is nothing to warn of."""

    def __init__(self, messages: list[str]) -> None:
        super().__init__()
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        self._messages.append(record.getMessage())


def press(lines: int, action: str, backend: str) -> tuple[str | None, str]:
    """Where Ctrl-C was pressed, if the action was that long, and what went wrong."""
    transport = ScriptedTransport()
    transport.sessions.add("kept")
    presser = Presser(lines)

    async def main() -> None:
        async with EnclaveClient("http://127.0.0.1:1", transport=transport, retry=None) as client:
            sys.settrace(presser)
            try:
                await globals()[action](client)
            finally:
                sys.settrace(None)
            for _ in range(5 if presser.place else 0):
                await anyio.lowlevel.checkpoint()
                await anyio.lowlevel.checkpoint()

    problem = "the interrupt was swallowed"
    warnings: list[str] = []
    logging.getLogger("enclave").handlers = [Warnings(warnings)]
    try:
        anyio.run(main, backend=backend)
    except KeyboardInterrupt:
        problem = ""
    except BaseException as error:  # noqa: BLE001 - the test looks at it
        problem = repr(error)
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
    sys.stdout.write(f"{number - 1} lines\n")
