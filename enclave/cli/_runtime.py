"""What a command runs on: an event loop, signals that cancel it, and a client.

`runs` turns a coroutine function into the plain function that Typer calls. The coroutine finds its `Invocation` in
Typer's context.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial, wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Concatenate, ParamSpec

import anyio
import typer

from enclave import EnclaveClient, SessionHandle

from ._errors import BadUsage, CommandError, OutputClosed
from ._output import Screen

P = ParamSpec("P")

MAX_CREDENTIAL_FILE_BYTES = 64 * 1024
_SAME_PRESS_SECONDS = 1.0  # a terminal and a wrapper such as make may both pass on one Ctrl-C
_SHOW_CURSOR = "\x1b[?25h"


class Context(typer.Context):
    """Typer's context, whose `obj` is the invocation."""

    obj: Invocation


def runs(function: Callable[Concatenate[Context, P], Awaitable[int]]) -> Callable[..., int]:
    """Let Typer call a coroutine function. Its result is the exit code."""

    @wraps(function)
    def call(ctx: Context, *args: P.args, **kwargs: P.kwargs) -> int:
        return ctx.obj.run(partial(function, ctx, *args, **kwargs))

    return call


def attached(enclave: EnclaveClient, session_id: str) -> SessionHandle:
    """A handle for an existing session. Raises `BadUsage` for what cannot be the id of one."""
    try:
        return enclave.attach(session_id)
    except ValueError as error:
        raise BadUsage(str(error)) from None


class Interrupted(Exception):
    """A signal has ended the command."""


@dataclass(frozen=True, kw_only=True)
class GlobalOptions:
    """The options that stand before the command."""

    base_url: str | None = None
    api_key_file: str | None = None
    token_file: str | None = None
    backend: str = "asyncio"


class Invocation:
    """One call of the command line."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self.options = GlobalOptions()
        self._signal: signal.Signals | None = None
        self._scopes: list[anyio.CancelScope] = []

    def run(self, work: Callable[[], Awaitable[int]]) -> int:
        """Run a command to its exit code, which is 128 plus the signal's number if a signal ended it."""
        if self.options.backend == "trio" and find_spec("trio") is None:
            raise BadUsage("--backend trio needs Trio: pip install trio")
        try:
            return anyio.run(self._supervised, work, backend=self.options.backend)
        except (Interrupted, KeyboardInterrupt):
            return 128 + (self._signal or signal.SIGINT)

    @asynccontextmanager
    async def client(self, *, local: bool = False) -> AsyncGenerator[EnclaveClient]:
        """A client for the length of a block. With `local`, it is the client of a simulator that lives as long.

        A signal cancels the block alone. The simulator goes on until the block has torn its sessions down.

        Raises:
            BadUsage: `local`, together with options that name a server.
            CommandError: no server is named, or a credential cannot be read.
            Interrupted: a signal cancelled the block.
        """
        async with self._connected(local=local) as enclave:
            with self.interruptible() as block:
                yield enclave
        if block.cancelled_caught:
            raise Interrupted

    @contextmanager
    def interruptible(self) -> Generator[anyio.CancelScope]:
        """A block that the first signal cancels. What is around the block then goes on."""
        with anyio.CancelScope() as scope:
            self._scopes.append(scope)
            try:
                yield scope
            finally:
                self._scopes.remove(scope)

    @asynccontextmanager
    async def _connected(self, *, local: bool) -> AsyncGenerator[EnclaveClient]:
        options = self.options
        if not local:
            async with _configured_client(options) as enclave:
                yield enclave
            return
        if options.base_url or options.api_key_file or options.token_file:
            raise BadUsage("--local starts a server of its own: leave out --base-url, --api-key-file and --token-file")
        from ._simulator import load_simulator  # noqa: PLC0415 - an extra, needed by few commands

        async with (
            load_simulator()().serve() as simulator,
            EnclaveClient(simulator.base_url, api_key=simulator.api_key) as enclave,
        ):
            yield enclave

    async def _supervised(self, work: Callable[[], Awaitable[int]]) -> int:
        numbers = _signals()
        if not numbers:
            return await work()
        outcome: int | Exception = Interrupted()
        with anyio.open_signal_receiver(*numbers) as signals:
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(self._watch, signals)
                with self.interruptible():
                    try:
                        outcome = await work()
                    except Exception as error:  # noqa: BLE001 - raised below, where the task group cannot wrap it
                        outcome = error
                task_group.cancel_scope.cancel()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _watch(self, signals: AsyncIterable[signal.Signals]) -> None:
        """Cancel the innermost block at the first signal, and leave the process at a later one."""
        first = 0.0
        async for number in signals:
            if self._signal is None:
                first = anyio.current_time()
                self._signal = number
                if self._scopes:
                    self._scopes[-1].cancel()
                with suppress(CommandError, OutputClosed):  # the terminal may be gone, which is why the signal came
                    self.screen.status_now(f"{number.name}: cleaning up. Repeat it to leave at once")
            elif anyio.current_time() - first > _SAME_PRESS_SECONDS:
                self._leave(number)

    def _leave(self, number: int) -> None:
        with suppress(CommandError, OutputClosed):
            self.screen.warn_now("left before everything was torn down. `enclave ls` lists what is still there")
            if self.screen.err.is_terminal:
                self.screen.err.write_now(_SHOW_CURSOR)
        os._exit(128 + number)


def _signals() -> list[signal.Signals]:
    """The signals that ask us to end. One that was set to be ignored, as nohup does, stays ignored."""
    if sys.platform == "win32":  # event loops receive no signals there, and Ctrl-C is a KeyboardInterrupt
        return []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


def _configured_client(options: GlobalOptions) -> EnclaveClient:
    if not options.base_url and not os.environ.get("ENCLAVE_BASE_URL"):
        raise CommandError(
            "no control plane is named. Set ENCLAVE_BASE_URL or pass --base-url, as in http://127.0.0.1:8088. "
            "`enclave simulator` starts one here, and `enclave run --local` needs none"
        )
    if options.api_key_file:
        return EnclaveClient(options.base_url, api_key=read_secret("--api-key-file", options.api_key_file))
    if options.token_file:
        return EnclaveClient(options.base_url, token=read_secret("--token-file", options.token_file))
    return EnclaveClient(options.base_url)


def read_secret(option: str, path: str) -> str:
    """The only line of a file. No message ever shows it.

    Raises:
        CommandError: the file is empty, too large or holds more than one line.
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as file:
        content = file.read(MAX_CREDENTIAL_FILE_BYTES + 1)
    lines = content.strip().splitlines()
    if len(lines) != 1 or len(content) > MAX_CREDENTIAL_FILE_BYTES:
        raise CommandError(f"{option} {path}: expected one line with the credential, got {len(lines)} lines")
    return lines[0].decode("utf-8", "replace")
