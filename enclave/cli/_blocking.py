"""Reads and writes that may block for ever, off the event loop: a reader that stalls must not hold up Ctrl-C."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NoReturn, ParamSpec, TypeVar

import anyio.to_thread

P = ParamSpec("P")
T = TypeVar("T")

_running: set[object] = set()


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking call in a thread; cancellation leaves the thread behind, with whatever it is at."""

    def run() -> T:
        mark = object()
        _running.add(mark)
        try:
            return call(*args, **kwargs)
        finally:
            _running.discard(mark)

    return await anyio.to_thread.run_sync(run, abandon_on_cancel=True)


def leave_if_stuck(exit_code: int) -> None:
    """End the process here if a thread was left behind: an orderly exit would wait for it."""
    if _running:
        leave(exit_code)


def leave(exit_code: int) -> NoReturn:
    """End the process at once, whatever runs."""
    os._exit(exit_code)
