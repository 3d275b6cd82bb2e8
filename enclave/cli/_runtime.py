"""What a command runs on: an event loop, signals that cancel it, and the time in which it has a client.

`command` turns a coroutine function into a command. The coroutine finds its `Invocation` in Typer's context.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial, wraps
from importlib.util import find_spec
from typing import Any, TypeVar

import anyio
import typer

from enclave import EnclaveClient

from ._client import GlobalOptions, Narrator, connect
from ._errors import BadUsage, CommandError, OutputClosed
from ._options import Command, epilog
from ._output import Screen

F = TypeVar("F", bound=Callable[..., Awaitable[int]])

_SAME_PRESS_SECONDS = 1.0  # a terminal and a wrapper such as make may both pass on one Ctrl-C
_READER_CHECK_SECONDS = 0.5
_SHOW_CURSOR = "\x1b[?25h"


class Context(typer.Context):
    """Typer's context, whose `obj` is the invocation."""

    obj: Invocation


def command(app: typer.Typer, *examples: str, name: str | None = None) -> Callable[[F], F]:
    """Make a coroutine function a command. Its result is the exit code. The help ends with the examples."""

    def register(function: F) -> F:
        @wraps(function)
        def call(ctx: Context, **arguments: Any) -> int:
            return ctx.obj.run(partial(function, ctx, **arguments))

        app.command(name, cls=Command, epilog=epilog(*examples))(call)
        return function

    return register


class Interrupted(Exception):
    """A signal has ended the command."""


class Invocation:
    """One call of the command line."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self.options = GlobalOptions()
        self._signal: signal.Signals | None = None
        self._scopes: list[anyio.CancelScope] = []
        self._needs_reader = False

    def run(self, work: Callable[[], Awaitable[int]]) -> int:
        """Run a command to its exit code, which is 128 plus the signal's number if a signal ended it."""
        if self.options.backend == "trio" and find_spec("trio") is None:
            raise BadUsage("--backend trio needs Trio: pip install trio")
        # KeyboardInterrupt comes where event loops receive no signals, and before ours does.
        try:
            return anyio.run(self._supervised, work, backend=self.options.backend)
        except (Interrupted, KeyboardInterrupt):
            return 128 + (self._signal or signal.SIGINT)

    @asynccontextmanager
    async def client(self, *, local: bool = False, narrate: bool = True) -> AsyncGenerator[EnclaveClient]:
        """A client for the length of a block. With `local`, it is the client of a simulator that lives as long.

        A signal cancels the block alone. The simulator goes on until the block has torn its sessions down. The block is
        also cancelled when the reader of standard output has gone, even if there is nothing to write.

        Args:
            local: start a simulator.
            narrate: tell a person when the client waits and tries again.

        Raises:
            BadUsage: `local`, together with options that name a server.
            ConnectError: a person is there, and nothing listens where the server should.
            CommandError: no server is named, or a credential cannot be read.
            Interrupted: a signal cancelled the block.
            OutputClosed: the reader of standard output has gone.
        """
        narrator = Narrator(self.screen, silent=not narrate)
        # The scope lies inside the client, and the client inside the simulator. A cancelled block still sends its
        # DELETE, and both have to be there for that.
        async with connect(self.options, narrator, local=local) as enclave:
            with self.interruptible() as block:
                self._needs_reader = True
                narrator.give_up = block.cancel
                try:
                    yield enclave
                finally:
                    self._needs_reader = False
        # The block was left in the middle, so its caller must not go on after it.
        if block.cancelled_caught:
            if narrator.refused is not None:
                raise narrator.refused
            raise OutputClosed if self._signal is None else Interrupted

    @contextmanager
    def interruptible(self) -> Generator[anyio.CancelScope]:
        """A block that the first signal cancels. What is around the block then goes on."""
        with anyio.CancelScope() as scope:
            self._scopes.append(scope)
            try:
                yield scope
            finally:
                self._scopes.remove(scope)

    async def _supervised(self, work: Callable[[], Awaitable[int]]) -> int:
        numbers = _signals()
        if not numbers:
            return await work()
        # What is left if the outermost scope is cancelled before `work` has an outcome.
        outcome: int | Exception = Interrupted()
        with anyio.open_signal_receiver(*numbers) as signals:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(self._watch_signals, signals)
                task_group.start_soon(self._watch_reader)
                with self.interruptible():
                    try:
                        outcome = await work()
                    except Exception as error:  # noqa: BLE001 - raised below, where the task group cannot wrap it
                        outcome = error
                task_group.cancel_scope.cancel()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _watch_signals(self, signals: AsyncIterable[signal.Signals]) -> None:
        """Cancel the innermost block at the first signal, and leave the process at a later one."""
        first = 0.0
        async for number in signals:
            # The first signal asks to clean up. A later one means that somebody does not want to wait for that.
            if self._signal is None:
                first = anyio.current_time()
                self._signal = number
                if self._scopes:
                    self._scopes[-1].cancel()
                with suppress(CommandError, OutputClosed):  # the terminal may be gone, which is why the signal came
                    self.screen.status_now(f"{number.name}: cleaning up. Repeat it to leave at once")
            elif anyio.current_time() - first > _SAME_PRESS_SECONDS:
                self._leave(number)

    async def _watch_reader(self) -> None:
        """Cancel the client's block when nobody reads standard output any more."""
        # A write would fail too, but a silent program writes nothing for as long as it runs.
        while not (self._needs_reader and self.screen.out.is_abandoned()):  # noqa: ASYNC110 - no loop tells of this
            await anyio.sleep(_READER_CHECK_SECONDS)
        self._scopes[-1].cancel()

    def _leave(self, number: int) -> None:
        with suppress(CommandError, OutputClosed):
            self.screen.warn_now("left before everything was torn down. `enclave ls` lists what is still there")
            if self.screen.err.is_terminal:
                self.screen.err.write_now(_SHOW_CURSOR)
        # Not sys.exit: what is still being cleaned up, and threads that are stuck in a write, would be waited for.
        os._exit(128 + number)


def _signals() -> list[signal.Signals]:
    """The signals that ask us to end. One that was set to be ignored, as nohup does, stays ignored."""
    if sys.platform == "win32":  # event loops receive no signals there, and Ctrl-C is a KeyboardInterrupt
        return []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
