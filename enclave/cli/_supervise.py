"""The event loop under a command: a signal cancels the command, which then cleans up as on every other way out."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterable, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from importlib.util import find_spec
from typing import Generic, TypeVar

import anyio

from ._blocking import leave
from ._errors import BadUsage, CommandError, OutputClosed
from ._output import Screen

T = TypeVar("T")

_SAME_PRESS_SECONDS = 1.0  # a terminal and a wrapper such as make may both pass on one Ctrl-C
_SHOW_CURSOR = "\x1b[?25h"


def supervise(
    opened: Callable[[], AbstractAsyncContextManager[T]],
    work: Callable[[T], Awaitable[int]],
    *,
    backend: str,
    screen: Screen,
    until_signal: bool = False,
) -> int:
    """Run a command to its exit code; 128 plus the signal's number if one ended it, 0 if that is how it is ended.

    A signal cancels `work` alone, not what is `opened` around it: a simulator has to serve the work's last requests.
    """
    if backend == "trio" and find_spec("trio") is None:
        raise BadUsage("--backend trio needs Trio: pip install trio")
    try:
        return anyio.run(_supervised, opened, work, screen, until_signal, backend=backend)
    except KeyboardInterrupt:
        return 0 if until_signal else 128 + signal.SIGINT


async def _supervised(
    opened: Callable[[], AbstractAsyncContextManager[T]],
    work: Callable[[T], Awaitable[int]],
    screen: Screen,
    until_signal: bool,
) -> int:
    return await _Supervisor(opened, work, screen, until_signal=until_signal).run()


class _Supervisor(Generic[T]):
    def __init__(
        self,
        opened: Callable[[], AbstractAsyncContextManager[T]],
        work: Callable[[T], Awaitable[int]],
        screen: Screen,
        *,
        until_signal: bool,
    ) -> None:
        self._opened = opened
        self._work = work
        self._until_signal = until_signal
        self._screen = screen
        self._scope = anyio.CancelScope()
        self._signal: int | None = None
        self._exit_code: int | None = None
        self._error: Exception | None = None

    async def run(self) -> int:
        numbers = _signals()
        if not numbers:
            await self._attempt()
            return self._outcome()
        with anyio.open_signal_receiver(*numbers) as signals:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(self._watch, signals)
                await self._attempt()
                task_group.cancel_scope.cancel()
        return self._outcome()

    def _outcome(self) -> int:
        if self._error is not None:
            raise self._error
        if self._exit_code is not None:
            return self._exit_code
        return 0 if self._until_signal else 128 + (self._signal or signal.SIGINT)

    async def _attempt(self) -> None:
        try:
            async with self._opened() as resource:
                with self._scope:
                    self._exit_code = await self._work(resource)
        except Exception as error:  # noqa: BLE001 - raised again, outside the task group
            self._error = error

    async def _watch(self, signals: AsyncIterable[signal.Signals]) -> None:
        first = 0.0
        async for number in signals:
            if self._signal is None:
                first = anyio.current_time()
                self._signal = number
                self._scope.cancel()
                with suppress(CommandError, OutputClosed):  # the terminal went away, which is why the signal came
                    self._screen.status_now(f"{number.name}: cleaning up; once more to leave at once")
            elif anyio.current_time() - first > _SAME_PRESS_SECONDS:
                self._leave(number)

    def _leave(self, number: int) -> None:
        with suppress(CommandError, OutputClosed):
            self._screen.warn_now("left before everything was torn down; `enclave ls` lists what is still there")
            if self._screen.err.is_terminal:
                self._screen.err.write_now(_SHOW_CURSOR)
        leave(128 + number)


def _signals() -> list[signal.Signals]:
    """Those that ask us to end. One that whoever started us wants ignored, as nohup does, stays ignored."""
    if sys.platform == "win32":  # no event loop receives signals there; Ctrl-C is a KeyboardInterrupt
        return []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
